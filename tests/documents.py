"""The SQL blocks of the documents, so that a test can run what a reader would paste."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    text: str
    output: str | None  # the plain block right after it, if it shows what psql prints

    def __str__(self):
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def sql_blocks(document: Path) -> list[Block]:
    """The ```sql blocks in order; a ``` block without language that follows one is its expected output."""
    text = document.read_text(encoding="utf-8")
    found = [(match, match.group(1), match.group(2)) for match in BLOCK.finditer(text)]
    blocks = []
    for index, (match, language, body) in enumerate(found):
        if language == "sql":
            after = found[index + 1] if index + 1 < len(found) else None
            output = after[2] if after and after[1] == "" else None
            blocks.append(Block(document, text.count("\n", 0, match.start()) + 1, body, output))
    return blocks
