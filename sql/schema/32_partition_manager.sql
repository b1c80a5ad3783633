-- The partition manager: what it is told of each table, what it remembers of partitions, its functions.

ALTER TABLE iot.partition_policy
    ADD COLUMN drop_after             interval,
    ADD COLUMN maximum_bytes          bigint  CHECK (maximum_bytes OPERATOR(pg_catalog.>) 0),
    ADD COLUMN warm_after             interval,
    ADD COLUMN cold_after             interval,
    ADD COLUMN hot_indexes            text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN warm_indexes           text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN cold_indexes           text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN subpartition_by        text    CHECK (subpartition_by OPERATOR(pg_catalog.=) ANY ('{list,hash}'::pg_catalog.text[])),
    ADD COLUMN subpartition_column    name,
    ADD COLUMN subpartition_values    text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN subpartition_count     integer CHECK (subpartition_count OPERATOR(pg_catalog.>) 0),
    ADD COLUMN leaf_key               text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN storage_parameters     text[]  NOT NULL DEFAULT '{}';
COMMENT ON TABLE iot.partition_policy IS 'How each managed table is partitioned; written by iot.setup() and iot.manage_partitions().';
COMMENT ON COLUMN iot.partition_policy.retention IS 'How far back readings are accepted, of iot.sensor_data alone; NULL means ten years. Age at which partitions are dropped: drop_after.';
COMMENT ON COLUMN iot.partition_policy.drop_after IS 'Age at which partitions are dropped, as given to iot.manage_partitions() as retention; NULL means never.';
COMMENT ON COLUMN iot.partition_policy.maximum_bytes IS 'What all partitions may take; above that the oldest are dropped. NULL means no limit.';
COMMENT ON COLUMN iot.partition_policy.warm_after IS 'Age at which a partition is warm.';
COMMENT ON COLUMN iot.partition_policy.cold_after IS 'Age at which a partition is cold.';
COMMENT ON COLUMN iot.partition_policy.hot_indexes IS 'Indexes of hot partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_policy.warm_indexes IS 'Indexes of warm partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_policy.cold_indexes IS 'Indexes of cold partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_policy.subpartition_by IS 'How new partitions are partitioned themselves: list, hash, or NULL for not at all.';
COMMENT ON COLUMN iot.partition_policy.subpartition_column IS 'Column of the sub-partitions.';
COMMENT ON COLUMN iot.partition_policy.subpartition_values IS 'Values with a sub-partition each (list); all others share one.';
COMMENT ON COLUMN iot.partition_policy.subpartition_count IS 'Number of sub-partitions (hash).';
COMMENT ON COLUMN iot.partition_policy.leaf_key IS 'Columns of the primary key that each sub-partition gets.';
COMMENT ON COLUMN iot.partition_policy.storage_parameters IS 'Storage parameters of new partitions, such as fillfactor=90.';

CREATE OR REPLACE VIEW iot.partition_settings WITH (security_invoker = true) AS
SELECT p.parent, p.time_column, p.partition_interval, p.premake, p.retention, p.index_policy, p.duplicates,
       p.drop_after, p.maximum_bytes, p.warm_after, p.cold_after, p.hot_indexes, p.warm_indexes, p.cold_indexes,
       p.subpartition_by, p.subpartition_column, p.subpartition_values, p.subpartition_count, p.leaf_key,
       p.storage_parameters
  FROM iot.partition_policy p
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.parent);
COMMENT ON COLUMN iot.partition_settings.retention IS 'How far back readings are accepted, of iot.sensor_data alone; NULL means ten years. Age at which partitions are dropped: drop_after.';
COMMENT ON COLUMN iot.partition_settings.drop_after IS 'Age at which partitions are dropped, as given to iot.manage_partitions() as retention; NULL means never.';
COMMENT ON COLUMN iot.partition_settings.maximum_bytes IS 'What all partitions may take; above that the oldest are dropped. NULL means no limit.';
COMMENT ON COLUMN iot.partition_settings.warm_after IS 'Age at which a partition is warm.';
COMMENT ON COLUMN iot.partition_settings.cold_after IS 'Age at which a partition is cold.';
COMMENT ON COLUMN iot.partition_settings.hot_indexes IS 'Indexes of hot partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_settings.warm_indexes IS 'Indexes of warm partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_settings.cold_indexes IS 'Indexes of cold partitions beside those of the table.';
COMMENT ON COLUMN iot.partition_settings.subpartition_by IS 'How new partitions are partitioned themselves: list, hash, or NULL for not at all.';
COMMENT ON COLUMN iot.partition_settings.subpartition_column IS 'Column of the sub-partitions.';
COMMENT ON COLUMN iot.partition_settings.subpartition_values IS 'Values with a sub-partition each (list); all others share one.';
COMMENT ON COLUMN iot.partition_settings.subpartition_count IS 'Number of sub-partitions (hash).';
COMMENT ON COLUMN iot.partition_settings.leaf_key IS 'Columns of the primary key that each sub-partition gets.';
COMMENT ON COLUMN iot.partition_settings.storage_parameters IS 'Storage parameters of new partitions, such as fillfactor=90.';

-- What is between two runs: dumped, so that a partition caught between DETACH and DROP is dropped in the copy as well.
CREATE TABLE iot.partition_state (
    partition   regclass    PRIMARY KEY,
    parent      regclass    NOT NULL,
    settled     text,
    retired_at  timestamptz,
    reason      text,
    range_start timestamptz,
    range_end   timestamptz
);
COMMENT ON TABLE iot.partition_state IS 'What the partition manager remembers of single partitions.';
COMMENT ON COLUMN iot.partition_state.partition IS 'The partition, or what was one until it was detached.';
COMMENT ON COLUMN iot.partition_state.parent IS 'Its table.';
COMMENT ON COLUMN iot.partition_state.settled IS 'The retention rules by which it was last rewritten.';
COMMENT ON COLUMN iot.partition_state.retired_at IS 'When it was decided to detach and then drop it.';
COMMENT ON COLUMN iot.partition_state.reason IS 'Why.';
COMMENT ON COLUMN iot.partition_state.range_start IS 'First time inside, of one that is to be detached: should it have to come back.';
COMMENT ON COLUMN iot.partition_state.range_end IS 'First time after it.';
GRANT SELECT ON iot.partition_state TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump(
    'iot.partition_state',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) partition)
       AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) parent)');

CREATE FUNCTION iot.manage_partitions(
    parent regclass, partition_interval interval DEFAULT NULL, premake integer DEFAULT NULL, retention interval DEFAULT NULL,
    maximum_bytes bigint DEFAULT NULL, warm_after interval DEFAULT NULL, cold_after interval DEFAULT NULL,
    hot_indexes text[] DEFAULT NULL, warm_indexes text[] DEFAULT NULL, cold_indexes text[] DEFAULT NULL,
    subpartition_by text DEFAULT NULL, subpartition_column name DEFAULT NULL, subpartition_values text[] DEFAULT NULL,
    subpartition_count integer DEFAULT NULL, leaf_key text[] DEFAULT NULL, storage_parameters text[] DEFAULT NULL,
    dry_run boolean DEFAULT false, force boolean DEFAULT false)
    RETURNS TABLE (action text, partition_name text, range_start timestamptz, range_end timestamptz,
                   row_estimate bigint, bytes bigint, reason text, outcome text)
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'manage_partitions_wrapper';
COMMENT ON FUNCTION iot.manage_partitions(
    regclass, interval, integer, interval, bigint, interval, interval, text[], text[], text[], text, name, text[], integer,
    text[], text[], boolean, boolean) IS
    'Keeps a table that is partitioned by time: remembers how (NULL keeps earlier choices), then makes, drops and reindexes partitions as that wants. Returns what it did; with dry_run it changes nothing and returns what it would do. force goes over retention guards.';

CREATE FUNCTION iot.drop_old_partitions(
    parent regclass, retention_days integer, dry_run boolean DEFAULT false, force boolean DEFAULT false) RETURNS integer
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'drop_old_partitions_by_days_wrapper';
COMMENT ON FUNCTION iot.drop_old_partitions(regclass, integer, boolean, boolean) IS
    'Drops the partitions whose rows are all older than that many days; returns how many. dry_run only tells, force goes over retention guards.';

CREATE FUNCTION iot.drop_old_partitions(
    parent regclass, older_than interval, dry_run boolean DEFAULT false, force boolean DEFAULT false) RETURNS integer
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'drop_old_partitions_by_interval_wrapper';
COMMENT ON FUNCTION iot.drop_old_partitions(regclass, interval, boolean, boolean) IS
    'Drops the partitions whose rows are all older than that; returns how many. dry_run only tells, force goes over retention guards.';

CREATE FUNCTION iot.premake_partitions(parent regclass) RETURNS integer
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'premake_partitions_wrapper';
COMMENT ON FUNCTION iot.premake_partitions(regclass) IS
    'Makes the partitions of a managed table that are to be ready for new rows, and nothing else; returns how many.';

CREATE FUNCTION iot.partition_upkeep(parent regclass DEFAULT NULL) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'partition_upkeep_wrapper';
COMMENT ON FUNCTION iot.partition_upkeep(regclass) IS
    'Makes, drops and reindexes partitions as was told to iot.manage_partitions() and iot.setup(), and analyzes tables once in each interval. NULL means every managed table that the caller owns.';

CREATE FUNCTION iot.partition_statements(parent regclass DEFAULT NULL) RETURNS SETOF text
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'partition_statements_wrapper';
COMMENT ON FUNCTION iot.partition_statements(regclass) IS
    'The same upkeep as statements for the top level of a session, with DETACH PARTITION CONCURRENTLY: run them one by one, in psql by \gexec. NULL means every managed table that the caller owns.';

CREATE FUNCTION iot.retire_partition(partition regclass, reason text) RETURNS void
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'retire_partition_wrapper';
COMMENT ON FUNCTION iot.retire_partition(regclass, text) IS
    'Remembers that this partition is to be dropped once it is detached; one of the statements of iot.partition_statements().';

CREATE FUNCTION iot.drop_retired_partitions(parent regclass) RETURNS integer
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'drop_retired_partitions_wrapper';
COMMENT ON FUNCTION iot.drop_retired_partitions(regclass) IS
    'Finishes what a crash or a long reader interrupted: completes pending detachments and drops what was detached to be dropped; returns how many.';

CREATE FUNCTION iot.partition_list(parent regclass)
    RETURNS TABLE (partition regclass, range_start timestamptz, range_end timestamptz, row_estimate bigint, bytes bigint,
                   tier text, next_action text, next_action_at timestamptz, reason text)
    STABLE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'partition_list_wrapper';
COMMENT ON FUNCTION iot.partition_list(regclass) IS
    'The partitions of a managed table, and what happens next to each; nothing for whom may not read the table.';

CREATE VIEW iot.partitions WITH (security_invoker = true) AS
SELECT p.parent, l.partition, l.range_start, l.range_end, l.row_estimate, l.bytes, l.tier,
       CASE WHEN l.range_end OPERATOR(pg_catalog.<=) pg_catalog.now() AND pg_catalog.isfinite(l.range_end)
            THEN pg_catalog.now() OPERATOR(pg_catalog.-) l.range_end END AS age,
       l.next_action, l.next_action_at, l.reason
  FROM iot.partition_policy p
 CROSS JOIN LATERAL iot.partition_list(p.parent) l
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.parent);
COMMENT ON VIEW iot.partitions IS 'The partitions of every managed table that the reader may read: size, age, and what becomes of them next.';
COMMENT ON COLUMN iot.partitions.parent IS 'The partitioned table.';
COMMENT ON COLUMN iot.partitions.partition IS 'The partition.';
COMMENT ON COLUMN iot.partitions.range_start IS 'First time inside.';
COMMENT ON COLUMN iot.partitions.range_end IS 'First time after it.';
COMMENT ON COLUMN iot.partitions.row_estimate IS 'Rows, as of the last ANALYZE or VACUUM; NULL before the first.';
COMMENT ON COLUMN iot.partitions.bytes IS 'Size with indexes and TOAST.';
COMMENT ON COLUMN iot.partitions.tier IS 'hot, warm or cold.';
COMMENT ON COLUMN iot.partitions.age IS 'Time since its end; NULL before that.';
COMMENT ON COLUMN iot.partitions.next_action IS 'What happens next: drop, rewrite, index, warm, cold; blocked when a guard stands against it; keep when nothing is planned.';
COMMENT ON COLUMN iot.partitions.next_action_at IS 'When: now for what is due, NULL for what is kept.';
COMMENT ON COLUMN iot.partitions.reason IS 'Why.';
GRANT SELECT ON iot.partitions TO PUBLIC;

CREATE FUNCTION iot.create_hypertable(
    relation regclass, time_column_name name, chunk_time_interval interval DEFAULT '7 days', if_not_exists boolean DEFAULT false)
    RETURNS TABLE (schema_name text, table_name text, created boolean)
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_hypertable_wrapper';
COMMENT ON FUNCTION iot.create_hypertable(regclass, name, interval, boolean) IS
    'Makes an empty plain table one that is partitioned by time and managed, under TimescaleDB''s name for it.';
