"""What the extension promises to the planner and to the grants, as one reviewed list, and that everything is documented.

tests/catalog/functions.txt holds one line per function, procedure and aggregate. Whoever changes a volatility, a
strictness, a parallel label, a search_path or a grant changes that file too, where a reviewer sees it.
"""

from pathlib import Path

import pytest

from golden import compare

FUNCTIONS = """
    SELECT format('%s %s.%s(%s)%s: %s %s %s %s %s config={%s} acl={%s}',
        CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' WHEN 'w' THEN 'window' ELSE 'function' END,
        n.nspname, p.proname, pg_get_function_arguments(p.oid),
        coalesce(' returns ' || pg_get_function_result(p.oid), ''),
        l.lanname,
        CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
        CASE WHEN p.proisstrict THEN 'strict' ELSE 'called-on-null' END,
        CASE p.proparallel WHEN 's' THEN 'parallel-safe' WHEN 'r' THEN 'parallel-restricted' ELSE 'parallel-unsafe' END,
        CASE WHEN p.prosecdef THEN 'definer' ELSE 'invoker' END,
        (SELECT string_agg(setting, '; ' ORDER BY setting) FROM unnest(p.proconfig) setting),
        CASE WHEN p.proacl IS NULL THEN 'default'
            ELSE (SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest(p.proacl) acl) END)
        || coalesce((SELECT format(' combine=%s serial=%s moving=%s', nullif(a.aggcombinefn, 0), nullif(a.aggserialfn, 0),
            nullif(a.aggmtransfn, 0)) FROM pg_aggregate a WHERE a.aggfnoid = p.oid), '')
    FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_language l ON l.oid = p.prolang
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'iot_ext'
"""

# Members of the extension, whatever they are, that carry no comment. Row and array types, which PostgreSQL 18 counts as
# members, belong to their relation or element.
UNDOCUMENTED_MEMBERS = """
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'iot_ext' AND d.deptype = 'e' AND obj_description(d.objid, d.classid::regclass::name) IS NULL
        AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid
            AND (t.typrelid <> 0 OR t.typelem <> 0))
    ORDER BY 1
"""

# The schema, and the relations, columns, functions and types in it, whoever owns them. Partitions are copies of their
# parent; row and array types belong to their relation or element.
UNDOCUMENTED = """
    SELECT what FROM (
        SELECT 'schema iot' AS what, obj_description('iot'::regnamespace, 'pg_namespace') AS comment
        UNION ALL
        SELECT pg_describe_object('pg_class'::regclass, c.oid, 0), obj_description(c.oid, 'pg_class')
        FROM pg_class c
        WHERE c.relnamespace = 'iot'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT c.relispartition
        UNION ALL
        SELECT pg_describe_object('pg_class'::regclass, c.oid, a.attnum), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'iot'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND NOT c.relispartition
        UNION ALL
        SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0), obj_description(p.oid, 'pg_proc')
        FROM pg_proc p WHERE p.pronamespace = 'iot'::regnamespace
        UNION ALL
        SELECT pg_describe_object('pg_type'::regclass, t.oid, 0), obj_description(t.oid, 'pg_type')
        FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'iot'::regnamespace AND t.typelem = 0 AND (c.oid IS NULL OR c.relkind = 'c')
    ) AS everything
    WHERE comment IS NULL ORDER BY what
"""


def test_functions_are_as_reviewed(bare_database, cluster):
    bare_database.execute("SET search_path = pg_catalog")
    # Sorted here and not by the server: its collation must not decide about the order of a file.
    lines = sorted(line for (line,) in bare_database.rows(FUNCTIONS))
    assert lines, "the extension has no functions"
    path = Path(__file__).parent / "catalog" / "functions.txt"
    compare("".join(f"{line}\n" for line in lines), path, cluster.major)


@pytest.mark.parametrize("query", [UNDOCUMENTED_MEMBERS, UNDOCUMENTED], ids=["members", "schema"])
def test_everything_has_a_comment(database, query):
    assert [what for (what,) in database.rows(query)] == []


def test_no_function_is_callable_with_a_hostile_search_path(bare_database):
    """A SQL or PL/pgSQL function finds its names through search_path: each must pin its own."""
    unpinned = bare_database.rows(
        """
        SELECT p.oid::regprocedure::text
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = 'iot'::regnamespace AND p.prokind IN ('f', 'w')
            AND (l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL OR p.prosecdef)
            AND NOT coalesce(p.proconfig, '{}')::text LIKE '%search_path=%'
        """
    )
    assert unpinned == []
