-- Conversion: a plain table becomes partitioned while it is in use, and rows of a default partition move to partitions.

-- Not dumped: a restored copy has nothing that is under way. (pg_upgrade keeps it, with the tables that it speaks of.)
CREATE TABLE iot.conversion (
    conversion_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation           regclass    NOT NULL UNIQUE,
    parent             regclass,
    original           regclass,
    partitioned        regclass    NOT NULL,
    change_log         regclass    NOT NULL,
    time_column        name        NOT NULL,
    partition_interval interval    NOT NULL,
    premake            integer     NOT NULL,
    batch_rows         integer     NOT NULL,
    keep_original      boolean     NOT NULL,
    keep_default       boolean     NOT NULL,
    lock_retries       integer     NOT NULL,
    key_columns        text[]      NOT NULL,
    definition         text        NOT NULL,
    phase              text        NOT NULL,
    file               oid,
    next_block         bigint      NOT NULL DEFAULT 0,
    end_block          bigint      NOT NULL DEFAULT 0,
    log_block          bigint      NOT NULL DEFAULT 0,
    range_start        timestamptz,
    range_end          timestamptz,
    verified_to        text[],
    row_estimate       bigint      NOT NULL DEFAULT 0,
    rows_copied        bigint      NOT NULL DEFAULT 0,
    changes_replayed   bigint      NOT NULL DEFAULT 0,
    rows_verified      bigint      NOT NULL DEFAULT 0,
    attempts           integer     NOT NULL DEFAULT 0,
    last_obstacle      text,
    started_by         name        NOT NULL DEFAULT session_user,
    started_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at        timestamptz
);
COMMENT ON TABLE iot.conversion IS 'Conversions of plain tables, and imports of default partitions: how each was ordered and how far it is.';
COMMENT ON COLUMN iot.conversion.conversion_id IS 'Key.';
COMMENT ON COLUMN iot.conversion.relation IS 'The table: the plain one until names change, then the partitioned one; of an import, the default partition.';
COMMENT ON COLUMN iot.conversion.parent IS 'Of an import, the table that the default partition belongs to.';
COMMENT ON COLUMN iot.conversion.original IS 'The plain table, once it has given its name away.';
COMMENT ON COLUMN iot.conversion.partitioned IS 'The partitioned copy.';
COMMENT ON COLUMN iot.conversion.change_log IS 'Table of the keys of rows that changed and are to be copied anew.';
COMMENT ON COLUMN iot.conversion.time_column IS 'Column by whose range the copy is partitioned.';
COMMENT ON COLUMN iot.conversion.partition_interval IS 'Width of the partitions.';
COMMENT ON COLUMN iot.conversion.premake IS 'Partitions to be ready beyond the current one.';
COMMENT ON COLUMN iot.conversion.batch_rows IS 'Rows per transaction.';
COMMENT ON COLUMN iot.conversion.keep_original IS 'Whether the plain table stays under another name.';
COMMENT ON COLUMN iot.conversion.keep_default IS 'Of an import, whether the table gets an empty default partition again.';
COMMENT ON COLUMN iot.conversion.lock_retries IS 'How often a step that cannot get a lock is tried again.';
COMMENT ON COLUMN iot.conversion.key_columns IS 'Columns of the key by which rows are told apart.';
COMMENT ON COLUMN iot.conversion.definition IS 'Checksum of the definition of the table, which must not change meanwhile.';
COMMENT ON COLUMN iot.conversion.phase IS 'What is done next.';
COMMENT ON COLUMN iot.conversion.file IS 'File of the table that next_block counts in.';
COMMENT ON COLUMN iot.conversion.next_block IS 'First block that is not copied yet.';
COMMENT ON COLUMN iot.conversion.end_block IS 'First block that need not be copied: what is there is in the log of changes.';
COMMENT ON COLUMN iot.conversion.log_block IS 'Block of the log of changes to go on from.';
COMMENT ON COLUMN iot.conversion.range_start IS 'Earliest time in the table at the start.';
COMMENT ON COLUMN iot.conversion.range_end IS 'Latest time in the table at the start.';
COMMENT ON COLUMN iot.conversion.verified_to IS 'Key up to which both tables are compared.';
COMMENT ON COLUMN iot.conversion.row_estimate IS 'Rows of the table at the start, estimated.';
COMMENT ON COLUMN iot.conversion.rows_copied IS 'Rows copied.';
COMMENT ON COLUMN iot.conversion.changes_replayed IS 'Logged changes carried over.';
COMMENT ON COLUMN iot.conversion.rows_verified IS 'Rows compared.';
COMMENT ON COLUMN iot.conversion.attempts IS 'How often the current step has failed for want of a lock.';
COMMENT ON COLUMN iot.conversion.last_obstacle IS 'Why it failed last.';
COMMENT ON COLUMN iot.conversion.started_by IS 'Who began it.';
COMMENT ON COLUMN iot.conversion.started_at IS 'When.';
COMMENT ON COLUMN iot.conversion.finished_at IS 'When it was done.';
COMMENT ON SEQUENCE iot.conversion_conversion_id_seq IS 'Keys of iot.conversion.';

CREATE FUNCTION iot.conversion_log_length(relation regclass) RETURNS bigint
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'conversion_log_length_wrapper';
COMMENT ON FUNCTION iot.conversion_log_length(regclass) IS
    'Changes of a table under conversion that are not carried over yet; NULL when it is not under conversion or the caller is neither its owner nor a monitor.';

-- Keys are data: the table itself is not for everybody.
CREATE VIEW iot.conversions WITH (security_barrier = true) AS
SELECT c.relation, c.parent, c.phase, c.time_column, c.partition_interval, c.row_estimate, c.rows_copied,
       CASE WHEN c.phase OPERATOR(pg_catalog.<>) ALL ('{starting,partitioning,copying}'::pg_catalog.text[]) THEN 0
            WHEN c.rows_copied OPERATOR(pg_catalog.=) 0 OR c.next_block OPERATOR(pg_catalog.=) 0 THEN c.row_estimate
            ELSE (c.rows_copied::pg_catalog.float8
                      OPERATOR(pg_catalog.*) (c.end_block OPERATOR(pg_catalog.-) c.next_block)::pg_catalog.float8
                      OPERATOR(pg_catalog./) c.next_block::pg_catalog.float8)::pg_catalog.int8 END AS rows_to_go,
       iot.conversion_log_length(c.relation) AS log_length, c.changes_replayed, c.rows_verified,
       c.attempts, c.last_obstacle, c.original, c.started_by, c.started_at, c.finished_at
  FROM iot.conversion c
  JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) c.relation
 WHERE pg_catalog.pg_has_role(t.relowner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW iot.conversions IS 'Conversions under way and done, of tables that the reader owns; monitors see all.';
COMMENT ON COLUMN iot.conversions.relation IS 'The table.';
COMMENT ON COLUMN iot.conversions.parent IS 'Of an import, the table that the default partition belongs to.';
COMMENT ON COLUMN iot.conversions.phase IS 'starting, partitioning, copying, indexing, analyzing, verifying, referencing, closing, swapping, cleaning or finished.';
COMMENT ON COLUMN iot.conversions.time_column IS 'Column by whose range it is partitioned.';
COMMENT ON COLUMN iot.conversions.partition_interval IS 'Width of the partitions.';
COMMENT ON COLUMN iot.conversions.row_estimate IS 'Rows at the start, estimated.';
COMMENT ON COLUMN iot.conversions.rows_copied IS 'Rows copied.';
COMMENT ON COLUMN iot.conversions.rows_to_go IS 'Rows still to be copied, estimated.';
COMMENT ON COLUMN iot.conversions.log_length IS 'Changes still to be carried over.';
COMMENT ON COLUMN iot.conversions.changes_replayed IS 'Changes carried over.';
COMMENT ON COLUMN iot.conversions.rows_verified IS 'Rows compared.';
COMMENT ON COLUMN iot.conversions.attempts IS 'How often the current step has failed for want of a lock.';
COMMENT ON COLUMN iot.conversions.last_obstacle IS 'Why it failed last.';
COMMENT ON COLUMN iot.conversions.original IS 'The plain table, once it has given its name away.';
COMMENT ON COLUMN iot.conversions.started_by IS 'Who began it.';
COMMENT ON COLUMN iot.conversions.started_at IS 'When.';
COMMENT ON COLUMN iot.conversions.finished_at IS 'When it was done.';
GRANT SELECT ON iot.conversions TO PUBLIC;

CREATE FUNCTION iot.log_conversion_change() RETURNS trigger
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'iot_conversion_changed';
COMMENT ON FUNCTION iot.log_conversion_change() IS
    'Writes down which rows of a table change while it is being converted; does nothing on a restored copy.';

-- Whoever drops a table need not be allowed to write the catalogue: hence SECURITY DEFINER.
CREATE FUNCTION iot.forget_dropped_conversions() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    forgotten record;
BEGIN
    FOR forgotten IN
        DELETE FROM iot.conversion c
         USING pg_event_trigger_dropped_objects() dropped
         WHERE dropped.classid = 'pg_class'::regclass AND dropped.objid = c.relation
        RETURNING c.phase, ARRAY[c.partitioned, c.change_log]::oid[] AS made
    LOOP
        -- After the swap the copy is the table.
        CONTINUE WHEN forgotten.phase IN ('cleaning', 'finished');
        DECLARE
            relation regclass;
        BEGIN
            FOR relation IN SELECT r.oid FROM pg_class r WHERE r.oid = ANY (forgotten.made) LOOP
                EXECUTE format('DROP TABLE %s', relation);
            END LOOP;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION iot.forget_dropped_conversions() IS
    'Deletes the conversion of tables that were dropped, with the copy and the log of changes that it had made.';
REVOKE ALL ON FUNCTION iot.forget_dropped_conversions() FROM PUBLIC;

CREATE EVENT TRIGGER iot_ext_forget_dropped_conversions ON sql_drop
    WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED')
    EXECUTE FUNCTION iot.forget_dropped_conversions();
COMMENT ON EVENT TRIGGER iot_ext_forget_dropped_conversions IS 'Deletes the conversion of tables that are dropped.';

CREATE FUNCTION iot.check_conversion(dry_run boolean) RETURNS boolean
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'check_conversion_wrapper';
COMMENT ON FUNCTION iot.check_conversion(boolean) IS
    'Step of iot.convert_to_partitioned() and iot.import_partitions(): refuses transaction blocks, unless it is a dry run; returns whether it is none.';

CREATE FUNCTION iot.begin_conversion(
    relation regclass, time_column name, partition_interval interval, batch_rows integer, keep_original boolean,
    premake integer, lock_retries integer, dry_run boolean) RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'begin_conversion_wrapper';
COMMENT ON FUNCTION iot.begin_conversion(regclass, name, interval, integer, boolean, integer, integer, boolean) IS
    'Step of iot.convert_to_partitioned(): checks the table and makes the copy, or finds the conversion to go on with; returns its key, NULL for a dry run.';

CREATE FUNCTION iot.begin_import(
    parent regclass, partition_interval interval, premake integer, retention interval, batch_rows integer,
    keep_default boolean, keep_original boolean, lock_retries integer, dry_run boolean) RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'begin_import_wrapper';
COMMENT ON FUNCTION iot.begin_import(regclass, interval, integer, interval, integer, boolean, boolean, integer, boolean) IS
    'Step of iot.import_partitions(): checks the table; returns the key of the conversion of its default partition, NULL where there is nothing to move.';

CREATE FUNCTION iot.end_import(
    parent regclass, partition_interval interval, premake integer, retention interval, dry_run boolean) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'end_import_wrapper';
COMMENT ON FUNCTION iot.end_import(regclass, interval, integer, interval, boolean) IS
    'Step of iot.import_partitions(): manages the table from now on, and says what else is to be done.';

CREATE FUNCTION iot.continue_conversion(conversion_id bigint) RETURNS bigint
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'continue_conversion_wrapper';
COMMENT ON FUNCTION iot.continue_conversion(bigint) IS
    'Step of iot.convert_to_partitioned() and iot.import_partitions(): the next transaction; returns its argument, NULL at the end.';

CREATE FUNCTION iot.cancel_conversion(relation regclass) RETURNS boolean
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'cancel_conversion_wrapper';
COMMENT ON FUNCTION iot.cancel_conversion(regclass) IS
    'Takes back a conversion that has not come to its end: the copy and the log of changes are dropped, the table stays as it was. False when there is nothing to take back.';

-- No SET clause and no SECURITY DEFINER, which would forbid COMMIT: hence every name below is qualified or a keyword, and
-- whatever needs an operator is left to the functions.
CREATE PROCEDURE iot.convert_to_partitioned(
    relation regclass, time_column name, partition_interval interval DEFAULT '1 month', batch_rows integer DEFAULT 10000,
    keep_original boolean DEFAULT true, premake integer DEFAULT 3, lock_retries integer DEFAULT 30,
    dry_run boolean DEFAULT false)
    LANGUAGE plpgsql AS $$
DECLARE
    conversion bigint;
BEGIN
    IF iot.check_conversion(dry_run) THEN
        COMMIT;
        -- Each step looks at what others have committed, whatever the session's default is.
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END IF;
    conversion := iot.begin_conversion(relation, time_column, partition_interval, batch_rows, keep_original, premake,
                                       lock_retries, dry_run);
    WHILE conversion IS NOT NULL LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        conversion := iot.continue_conversion(conversion);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE iot.convert_to_partitioned(regclass, name, interval, integer, boolean, integer, integer, boolean) IS
    'Makes a plain table one that is partitioned by time, while it is read and written. Called again, it goes on where it was interrupted. A dry run only says what would be done.';

CREATE PROCEDURE iot.import_partitions(
    parent regclass, partition_interval interval DEFAULT NULL, premake integer DEFAULT NULL, retention interval DEFAULT NULL,
    batch_rows integer DEFAULT 10000, keep_default boolean DEFAULT false, keep_original boolean DEFAULT true,
    lock_retries integer DEFAULT 30, dry_run boolean DEFAULT false)
    LANGUAGE plpgsql AS $$
DECLARE
    conversion bigint;
BEGIN
    IF iot.check_conversion(dry_run) THEN
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END IF;
    conversion := iot.begin_import(parent, partition_interval, premake, retention, batch_rows, keep_default, keep_original,
                                   lock_retries, dry_run);
    WHILE conversion IS NOT NULL LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        conversion := iot.continue_conversion(conversion);
    END LOOP;
    PERFORM iot.end_import(parent, partition_interval, premake, retention, dry_run);
END
$$;
COMMENT ON PROCEDURE iot.import_partitions(
    regclass, interval, integer, interval, integer, boolean, boolean, integer, boolean) IS
    'Manages a table that is partitioned already, as pg_partman is told to where it was; rows of a default partition move to partitions of their own. Called again, it goes on where it was interrupted.';
