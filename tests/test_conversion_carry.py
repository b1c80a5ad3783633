"""What iot.convert_to_partitioned() carries over: a table with everything on it, compared before and after."""

import psycopg
import pytest

OWNER, APPLICATION, ANALYST = "conversion_owner", "conversion_application", "conversion_analyst"

EVERYTHING = f"""
CREATE TABLE sites (id integer PRIMARY KEY, name text);
INSERT INTO sites SELECT n, 'site ' || n FROM generate_series(1, 5) n;
CREATE TYPE grade AS ENUM ('good', 'bad');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.note := coalesce(NEW.note, '') || '+'; RETURN NEW; END $$;
CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO heard VALUES (TG_NAME); RETURN NULL; END $$;
CREATE TABLE heard (name text);
CREATE TABLE "Meter readings" (
    id bigint GENERATED ALWAYS AS IDENTITY (START WITH 7 INCREMENT BY 3 CACHE 5),
    dropped integer,
    site integer NOT NULL,
    "at" timestamptz NOT NULL,
    value numeric(10, 3) CONSTRAINT "not too low" CHECK (value > -100),
    doubled numeric GENERATED ALWAYS AS (value * 2) STORED,
    grade grade DEFAULT 'good',
    note text COMPRESSION pglz COLLATE "C",
    tags jsonb,
    secret text,
    serial_number serial,
    CONSTRAINT "Meter readings_pkey" PRIMARY KEY (id) WITH (fillfactor = 80),
    CONSTRAINT one_per_site UNIQUE (site, "at") INCLUDE (value) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT in_site FOREIGN KEY (site) REFERENCES sites (id) ON UPDATE CASCADE ON DELETE RESTRICT
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false);
ALTER TABLE "Meter readings" DROP COLUMN dropped;
ALTER TABLE "Meter readings" ALTER note SET STORAGE EXTERNAL, ALTER site SET STATISTICS 500, ALTER site SET (n_distinct = 5);
CREATE INDEX "by ""value"" first" ON "Meter readings" (value DESC NULLS LAST, lower(note)) WHERE value > 10 AND note <> ') WHERE (';
CREATE INDEX by_tags ON "Meter readings" USING gin (tags jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX by_time ON "Meter readings" USING brin ("at") WITH (pages_per_range = 16);
CREATE UNIQUE INDEX by_note ON "Meter readings" (site, lower(note)) NULLS NOT DISTINCT WHERE note LIKE 'unique%';
CREATE STATISTICS together (ndistinct, dependencies) ON site, grade FROM "Meter readings";
ALTER STATISTICS together SET STATISTICS 300;
CREATE TRIGGER "a stamp" BEFORE INSERT ON "Meter readings" FOR EACH ROW WHEN (NEW.value > 5) EXECUTE FUNCTION stamp();
CREATE TRIGGER per_row AFTER UPDATE OF value ON "Meter readings" FOR EACH ROW EXECUTE FUNCTION count_rows();
CREATE TRIGGER per_statement AFTER INSERT ON "Meter readings" REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_rows();
CREATE TRIGGER switched_off AFTER DELETE ON "Meter readings" FOR EACH ROW EXECUTE FUNCTION count_rows();
ALTER TABLE "Meter readings" DISABLE TRIGGER switched_off, ENABLE ALWAYS TRIGGER per_row;
ALTER TABLE "Meter readings" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON "Meter readings" FOR SELECT TO {ANALYST}
    USING (site IN (SELECT s.id FROM sites s WHERE s.id <= 2 AND "Meter readings".value > 0));
CREATE POLICY never ON "Meter readings" AS RESTRICTIVE USING (site <> 4) WITH CHECK (site <> 5);
CREATE POLICY application ON "Meter readings" TO {APPLICATION} USING (true);
GRANT SELECT, INSERT, UPDATE ON "Meter readings" TO {APPLICATION} WITH GRANT OPTION;
GRANT SELECT (id, site, "at", value) ON "Meter readings" TO {ANALYST};
GRANT SELECT ON sites TO {ANALYST};
GRANT INSERT ON heard TO PUBLIC;
GRANT USAGE ON SEQUENCE "Meter readings_id_seq", "Meter readings_serial_number_seq" TO {APPLICATION};
CREATE PUBLICATION some_columns FOR TABLE "Meter readings" (id, "at", value) WHERE (value > 0)
    WITH (publish = 'insert', publish_via_partition_root = true);
COMMENT ON TABLE "Meter readings" IS 'What meters say; it''s much.';
COMMENT ON COLUMN "Meter readings".value IS 'In kWh.';
COMMENT ON CONSTRAINT "not too low" ON "Meter readings" IS 'No meter runs backwards so far.';
COMMENT ON CONSTRAINT "Meter readings_pkey" ON "Meter readings" IS 'Key.';
COMMENT ON INDEX by_tags IS 'For searches.';
COMMENT ON STATISTICS together IS 'They go together.';
COMMENT ON TRIGGER per_row ON "Meter readings" IS 'Heard of.';
COMMENT ON POLICY mine ON "Meter readings" IS 'What analysts may see.';
ALTER TABLE "Meter readings" OWNER TO {OWNER};
ALTER TABLE sites OWNER TO {OWNER};
ALTER STATISTICS together OWNER TO {OWNER};
ALTER PUBLICATION some_columns OWNER TO {OWNER};
ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT SELECT ON TABLES TO PUBLIC;
"""

# Everything about the table, one line each.
ABOUT = r"""
WITH t AS (SELECT * FROM pg_class WHERE oid = '"Meter readings"'::regclass)
SELECT concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
                 a.attstorage, a.attcompression, a.attcollation::regcollation, nullif(a.attstattarget, -1),
                 (SELECT array_agg(o) FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_%'),
                 pg_get_expr(d.adbin, d.adrelid), (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(a.attacl) x),
                 col_description(t.oid, a.attnum))
  FROM t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
UNION ALL
SELECT concat_ws(' ', 'constraint', k.conname, pg_get_constraintdef(k.oid), k.convalidated, obj_description(k.oid, 'pg_constraint'))
  FROM t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype IN ('c', 'f', 'p', 'u')
UNION ALL
SELECT concat_ws(' ', 'index', c.relname, regexp_replace(pg_get_indexdef(c.oid), '.* (ONLY )?public."Meter readings" USING', ''),
                 obj_description(c.oid, 'pg_class'))
  FROM t JOIN pg_index x ON x.indrelid = t.oid AND x.indisvalid JOIN pg_class c ON c.oid = x.indexrelid
UNION ALL
SELECT concat_ws(' ', 'statistics', pg_get_statisticsobjdef(s.oid), s.stxstattarget, obj_description(s.oid, 'pg_statistic_ext'))
  FROM t JOIN pg_statistic_ext s ON s.stxrelid = t.oid
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(g.oid), g.tgenabled, obj_description(g.oid, 'pg_trigger'))
  FROM t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL
SELECT concat_ws(' ', 'policy', p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
                 pg_get_expr(p.polwithcheck, p.polrelid), obj_description(p.oid, 'pg_policy'))
  FROM t JOIN pg_policy p ON p.polrelid = t.oid
UNION ALL
SELECT concat_ws(' ', 'table', t.relowner::regrole, t.relrowsecurity, t.relforcerowsecurity, t.relreplident,
                 (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(t.relacl) x), obj_description(t.oid, 'pg_class')) FROM t
UNION ALL
SELECT concat_ws(' ', 'publication', p.pubname, x.attnames, x.rowfilter)
  FROM pg_publication p JOIN pg_publication_tables x ON x.pubname = p.pubname AND x.tablename = 'Meter readings'
UNION ALL
SELECT concat_ws(' ', 'sequence', s.sequencename, s.start_value, s.increment_by, s.cache_size, s.min_value, s.max_value, s.last_value,
                 c.relacl, a.attname)
  FROM t JOIN pg_depend d ON d.refobjid = t.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_sequences s ON s.sequencename = c.relname
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
 ORDER BY 1
"""


@pytest.fixture
def meters(bare_database):
    roles = (OWNER, APPLICATION, ANALYST)
    for role in roles:
        bare_database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        fill(bare_database)
        yield bare_database
    finally:
        for role in roles:
            bare_database.execute(f"DROP OWNED BY {role} CASCADE")
            bare_database.execute(f"DROP ROLE {role}")


def fill(bare_database):
    bare_database.execute(f"GRANT CREATE ON DATABASE {bare_database.name} TO {OWNER}")
    bare_database.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {OWNER}")
    bare_database.execute(f"GRANT USAGE ON SCHEMA iot TO {OWNER}")
    bare_database.psql(EVERYTHING)
    bare_database.execute(
        'INSERT INTO "Meter readings" (site, "at", value, note, tags)'
        " SELECT 1 + n % 5, timestamptz '2026-03-01 00:00+00' + n * interval '1 hour', n % 50, 'note ' || n,"
        "        jsonb_build_object('n', n) FROM generate_series(1, 3000) n")


def convert(database, user=OWNER, **arguments):
    """Converts as the owner; returns what was said meanwhile."""
    said = []
    with database.connect(user) as connection:
        connection.add_notice_handler(lambda notice: said.append((notice.severity, notice.message_primary)))
        extra = "".join(f", {name} => {value}" for name, value in arguments.items())
        connection.execute(f"""CALL iot.convert_to_partitioned('"Meter readings"', 'at', batch_rows => 700{extra})""")
    return said


def test_everything_is_carried_over(meters):
    before = [line for (line,) in meters.rows(ABOUT)]
    rows = meters.rows('SELECT r::text FROM "Meter readings" r ORDER BY id')
    said = convert(meters)
    after = [line for (line,) in meters.rows(ABOUT)]
    # Unique keys without the time gain it.
    expected = sorted(
        line.replace("PRIMARY KEY (id)", "PRIMARY KEY (id, at)").replace("btree (id)", "btree (id, at)")
            .replace("btree (site, lower(note))", "btree (site, lower(note), at)")
        for line in before)
    assert sorted(after) == expected
    assert len(before) > 30
    assert [text for severity, text in said if severity == "WARNING"] == [
        'unique index "Meter readings_pkey" (id) becomes (id, at)',
        'unique index "by_note" (site, lower(note)) becomes (site, lower(note), at)',
        'trigger "a stamp" must leave at in its partition',
    ]
    assert meters.rows('SELECT r::text FROM "Meter readings" r ORDER BY id') == rows
    assert meters.rows('SELECT r::text FROM "Meter readings_before_conversion" r ORDER BY id') == rows

    # Partitions: storage, row security, and nobody's privileges but the owner's, whatever default privileges say.
    assert meters.rows("""
        SELECT DISTINCT c.reloptions, t.reloptions, c.relrowsecurity, c.relforcerowsecurity, c.relowner::regrole::text,
               (SELECT count(*) FROM aclexplode(c.relacl) g WHERE g.grantee <> c.relowner),
               (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid)
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class t ON t.oid = c.reltoastrelid
         WHERE i.inhparent = '"Meter readings"'::regclass""") == [
        (["fillfactor=90", "autovacuum_vacuum_scale_factor=0.05"], ["autovacuum_enabled=false"], True, True, OWNER, 0, 3)]
    assert meters.value("SELECT storage_parameters FROM iot.partition_settings WHERE parent = '\"Meter readings\"'::regclass") == [
        "fillfactor=90", "autovacuum_vacuum_scale_factor=0.05", "toast.autovacuum_enabled=false"]
    # Statistics are there from the first query on.
    assert meters.value("SELECT count(*) FROM pg_stats WHERE tablename = 'Meter readings' AND attname = 'site'") == 1
    assert meters.value("SELECT count(*) FROM pg_stats_ext WHERE tablename = 'Meter readings'") == 1


def test_it_works_as_before(meters):
    last = meters.value('SELECT max(id) FROM "Meter readings"')
    serial = meters.value('SELECT max(serial_number) FROM "Meter readings"')
    convert(meters)
    meters.execute("TRUNCATE heard")
    with meters.connect(APPLICATION) as application:
        new = application.execute('INSERT INTO "Meter readings" (site, "at", value, note) VALUES (1, now(), 6, \'new\')'
                                  " RETURNING id > %s, serial_number > %s, doubled, note", (last, serial)).fetchone()
        assert new == (True, True, 12, "new+")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute('INSERT INTO "Meter readings" (site, "at", value) VALUES (5, now(), 6)')
        with pytest.raises(psycopg.errors.CheckViolation):
            application.execute('INSERT INTO "Meter readings" (site, "at", value) VALUES (1, now(), -200)')
        with pytest.raises(psycopg.errors.UniqueViolation):
            application.execute('INSERT INTO "Meter readings" (site, "at", value) SELECT site, "at", 1 FROM "Meter readings" LIMIT 1')
        application.execute('UPDATE "Meter readings" SET value = 8 WHERE note = \'new+\'')
    assert sorted(meters.rows("SELECT name FROM heard")) == [("per_row",), ("per_statement",)]
    with pytest.raises((psycopg.errors.ForeignKeyViolation, psycopg.errors.RestrictViolation)):  # the latter from 18 on
        meters.execute("DELETE FROM sites WHERE id = 1")
    with meters.connect(ANALYST) as analyst:
        assert analyst.execute('SELECT min(site), max(site), bool_and(value > 0) FROM "Meter readings"').fetchone() == (1, 2, True)
        for statement in ('SELECT secret FROM "Meter readings"', 'SELECT * FROM "Meter readings_2026_04"'):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                analyst.execute(statement)
    # The table before is only kept: nothing needs it, nothing is hindered by it.
    meters.execute('DROP TABLE "Meter readings_before_conversion"')
    assert meters.value('SELECT count(*) FROM "Meter readings"') == 3001
    # A cascade of the partitioned table itself.
    meters.execute("UPDATE sites SET id = 50 WHERE id = 5")
    assert meters.value('SELECT count(*) FROM "Meter readings" WHERE site = 50') == 600


def test_a_superuser_acts_as_the_owner(meters):
    meters.execute(f"ALTER TABLE \"Meter readings\" ADD CONSTRAINT seen CHECK (current_user <> 'postgres' OR id < 0) NOT VALID")
    meters.execute('ALTER TABLE "Meter readings" DROP CONSTRAINT seen')
    meters.execute("CREATE FUNCTION who(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
                   " $$ BEGIN RETURN current_user; END $$")
    meters.execute('CREATE INDEX by_who ON "Meter readings" (who(note))')
    convert(meters, "postgres", keep_original="false")
    assert meters.value("SELECT to_regclass('\"Meter readings_before_conversion\"')") is None
    assert meters.value(
        "SELECT count(*) FROM pg_stats WHERE tablename LIKE 'by_who%' OR tablename LIKE 'Meter readings_2026_04_who%'"
        "   AND 'postgres' = ANY (most_common_vals::text::text[])") == 0
    assert meters.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'Meter readings%' AND relkind IN ('r', 'p')"
                        f" AND relowner <> '{OWNER}'::regrole") == 0


KEYS = {
    "uuid": ("id uuid PRIMARY KEY DEFAULT gen_random_uuid(), at timestamptz NOT NULL", ""),
    "time first": ("device text NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (at, device)", "'d' || n % 7"),
    "device and time": ("device varchar(20) NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (device, at)", "'d''\"' || n % 7"),
    "collation": ('device text COLLATE "C" NOT NULL, at timestamptz NOT NULL, UNIQUE (device)', "chr(65 + n % 50) || n"),
    "numbers": ("device numeric NOT NULL, part float8 NOT NULL DEFAULT random(), at timestamptz NOT NULL,"
                " PRIMARY KEY (part, device)", "n / 7.0"),
    "bytes": ("device bytea PRIMARY KEY, at timestamptz NOT NULL", "sha256(n::text::bytea)"),
    "interval": ("device interval PRIMARY KEY, at timestamptz NOT NULL", "n * interval '1 month 2 days 3.5 seconds'"),
    "timestamp": ("device bigserial PRIMARY KEY, at timestamp NOT NULL", ""),
    "date": ("device bigserial PRIMARY KEY, at date NOT NULL", ""),
}


@pytest.mark.parametrize("key", KEYS)
def test_any_key(bare_database, key):
    columns, device = KEYS[key]
    bare_database.execute(f"CREATE TABLE readings ({columns}, value numeric)")
    names, values = ("device, ", f"{device}, ") if device else ("", "")
    bare_database.execute(
        f"INSERT INTO readings ({names}at, value) SELECT {values}timestamp '2025-12-30 22:00' + n * interval '37 minutes', n"
        "   FROM generate_series(1, 4000) n")
    # Whatever the session prints like, and even where dates are read in another order.
    with bare_database.connect() as connection:
        connection.execute("SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kathmandu'; SET intervalstyle = 'sql_standard';"
                           "SET bytea_output = 'escape'; SET extra_float_digits = -5;"
                           "SET default_transaction_isolation = 'serializable'")
        connection.execute("CALL iot.convert_to_partitioned('readings', 'at', '7 days', batch_rows => 300)")
    assert bare_database.row("SELECT count(*), sum(value) FROM readings") == (4000, 4000 * 4001 // 2)
    assert bare_database.value("SELECT rows_verified FROM iot.conversions") == 4000
    # From Monday 29 December on, a week each.
    assert bare_database.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'readings'::regclass") >= 15
    assert bare_database.value("SELECT count(*) FROM pg_class WHERE relname = 'readings_2025_12_29'") == 1
