//! Definitions of indexes and keys, as PostgreSQL prints them.

/// The parts of an index after `USING`, or of a key after its kind, such as
/// `btree (a, lower(b) DESC) INCLUDE (c) WITH (fillfactor='90') WHERE (a > 0)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition<'text> {
    /// What stands before the columns: the access method, or the kind of key.
    pub head: &'text str,
    /// The columns, without brackets.
    pub columns: &'text str,
    /// What follows them, up to the condition.
    pub options: &'text str,
    /// The condition, with `WHERE`.
    pub condition: &'text str,
}

impl<'text> Definition<'text> {
    /// Takes `text` apart; `None` when it is no such definition.
    pub fn parse(text: &'text str) -> Option<Self> {
        let open = top_level(text, 0).find(|&(_, byte)| byte == b'(')?.0;
        let close = top_level(text, open + 1).find(|&(_, byte)| byte == b')')?.0;
        let rest = close + 1;
        let condition = top_level(text, rest)
            .map(|(at, _)| at)
            .find(|&at| text.is_char_boundary(at) && text[at..].starts_with(" WHERE "))
            .unwrap_or(text.len());
        Some(Self {
            head: text[..open].trim(),
            columns: &text[open + 1..close],
            options: text[rest..condition].trim(),
            condition: text[condition..].trim(),
        })
    }

    /// Whether `column` (quoted) is one of the columns, as it is.
    pub fn has_column(&self, column: &str) -> bool {
        let mut start = 0;
        let commas = top_level(self.columns, 0).filter(|&(_, byte)| byte == b',').map(|(at, _)| at);
        for end in commas.chain([self.columns.len()]) {
            if self.columns[start..end].trim() == column {
                return true;
            }
            start = end + 1;
        }
        false
    }
}

/// `columns` and `column` after them, unless it is there already.
pub fn with_column(columns: &[String], column: &str) -> Vec<String> {
    let mut all = columns.to_vec();
    if !all.iter().any(|each| each == column) {
        all.push(column.to_owned());
    }
    all
}

/// The bytes of `text` from `start` that are inside neither quotes nor brackets opened after it, with their places. The
/// bracket that closes a group is inside of it, one that nothing opened is not.
fn top_level(text: &str, start: usize) -> impl Iterator<Item = (usize, u8)> + '_ {
    let bytes = text.as_bytes();
    let (mut depth, mut quote, mut escapes) = (0_u32, None, false);
    let mut at = start;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let (place, byte) = (at, bytes[at]);
            at += 1;
            match quote {
                Some(b'\'') if escapes && byte == b'\\' => at += 1,
                // A doubled quote ends the text and opens it again: the same in the end.
                Some(end) if byte == end => quote = None,
                Some(_) => {}
                None => match byte {
                    b'\'' | b'"' => {
                        quote = Some(byte);
                        let after_word = |back: usize| {
                            place > back
                                && (bytes[place - back - 1].is_ascii_alphanumeric()
                                    || bytes[place - back - 1] == b'_')
                        };
                        escapes =
                            byte == b'\'' && place > start && bytes[place - 1] == b'E' && !after_word(1);
                    }
                    b'(' => {
                        depth += 1;
                        if depth == 1 {
                            return Some((place, byte));
                        }
                    }
                    b')' if depth > 0 => depth -= 1,
                    _ if depth == 0 => return Some((place, byte)),
                    _ => {}
                },
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (&str, &str, &str, &str) {
        let found = Definition::parse(text).unwrap();
        (found.head, found.columns, found.options, found.condition)
    }

    #[test]
    fn indexes() {
        assert_eq!(parts("btree (id)"), ("btree", "id", "", ""));
        assert_eq!(
            parts(
                "btree (a, lower((b)::text) DESC) INCLUDE (c) NULLS NOT DISTINCT WITH (fillfactor='90') WHERE (a > 0)"
            ),
            (
                "btree",
                "a, lower((b)::text) DESC",
                "INCLUDE (c) NULLS NOT DISTINCT WITH (fillfactor='90')",
                "WHERE (a > 0)"
            )
        );
        assert_eq!(parts("gin (tags jsonb_path_ops)"), ("gin", "tags jsonb_path_ops", "", ""));
    }

    #[test]
    fn keys() {
        assert_eq!(parts("PRIMARY KEY (id)"), ("PRIMARY KEY", "id", "", ""));
        assert_eq!(
            parts("UNIQUE NULLS NOT DISTINCT (a, b) INCLUDE (c) DEFERRABLE INITIALLY DEFERRED"),
            ("UNIQUE NULLS NOT DISTINCT", "a, b", "INCLUDE (c) DEFERRABLE INITIALLY DEFERRED", "")
        );
    }

    #[test]
    fn quotes_hide_what_is_in_them() {
        assert_eq!(
            parts(r#"btree ("a) WHERE (b", (c || ') WHERE (''x'::text)) WHERE (d = ' WHERE '::text)"#),
            ("btree", r#""a) WHERE (b", (c || ') WHERE (''x'::text)"#, "", "WHERE (d = ' WHERE '::text)")
        );
        assert_eq!(
            parts(r"btree ((a || E'\')')) WHERE (E'é\\' = b)"),
            ("btree", r"(a || E'\')')", "", r"WHERE (E'é\\' = b)")
        );
        assert_eq!(parts(r"btree ((like'\')) WITH (x='1')"), ("btree", r"(like'\')", "WITH (x='1')", ""));
    }

    #[test]
    fn no_definition() {
        for text in ["", "btree", "btree (a", "btree ('a)", ")("] {
            assert_eq!(Definition::parse(text), None, "{text}");
        }
    }

    #[test]
    fn columns_are_found_as_a_whole() {
        let definition = Definition::parse(r#"btree (a, lower(at), f(b, at2), "At", at3)"#).unwrap();
        for (column, expected) in
            [("a", true), ("at", false), ("at2", false), (r#""At""#, true), ("at3", true), ("b", false)]
        {
            assert_eq!(definition.has_column(column), expected, "{column}");
        }
    }

    #[test]
    fn a_column_is_added_once() {
        let key = ["id".to_owned()];
        assert_eq!(with_column(&key, "at"), ["id", "at"]);
        assert_eq!(with_column(&key, "id"), ["id"]);
    }
}
