-- Partition policy: how each managed table is partitioned. The table belongs to the extension, its rows to the user:
-- they are dumped, follow RENAME (regclass), and go with their table.
CREATE TABLE iot.partition_policy (
    parent             regclass    PRIMARY KEY,
    time_column        name        NOT NULL,
    partition_interval interval    NOT NULL,
    premake            integer     NOT NULL CHECK (premake OPERATOR(pg_catalog.>=) 0),
    retention          interval,
    index_policy       text[]      NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE iot.partition_policy IS 'How each managed table is partitioned; written by iot.setup().';
COMMENT ON COLUMN iot.partition_policy.parent IS 'The partitioned table.';
COMMENT ON COLUMN iot.partition_policy.time_column IS 'Column by whose range it is partitioned.';
COMMENT ON COLUMN iot.partition_policy.partition_interval IS 'Width of new partitions.';
COMMENT ON COLUMN iot.partition_policy.premake IS 'Partitions kept ready beyond the current one.';
COMMENT ON COLUMN iot.partition_policy.retention IS 'How far back rows are accepted; NULL means ten years.';
COMMENT ON COLUMN iot.partition_policy.index_policy IS 'Optional indexes that the table carries.';
GRANT SELECT ON iot.partition_policy TO PUBLIC;

-- A row whose table is gone cannot be restored: leave it out of dumps.
SELECT pg_catalog.pg_extension_config_dump(
    'iot.partition_policy',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) parent)');

CREATE VIEW iot.partition_settings WITH (security_invoker = true) AS
SELECT p.parent, p.time_column, p.partition_interval, p.premake, p.retention, p.index_policy
  FROM iot.partition_policy p
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.parent);
COMMENT ON VIEW iot.partition_settings IS 'How each managed table is partitioned.';
COMMENT ON COLUMN iot.partition_settings.parent IS 'The partitioned table.';
COMMENT ON COLUMN iot.partition_settings.time_column IS 'Column by whose range it is partitioned.';
COMMENT ON COLUMN iot.partition_settings.partition_interval IS 'Width of new partitions.';
COMMENT ON COLUMN iot.partition_settings.premake IS 'Partitions kept ready beyond the current one.';
COMMENT ON COLUMN iot.partition_settings.retention IS 'How far back rows are accepted; NULL means ten years.';
COMMENT ON COLUMN iot.partition_settings.index_policy IS 'Optional indexes that the table carries.';
GRANT SELECT ON iot.partition_settings TO PUBLIC;

-- Whoever drops a managed table need not be allowed to write the policy: hence SECURITY DEFINER.
CREATE FUNCTION iot.forget_dropped_tables() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM iot.partition_policy p
     USING pg_event_trigger_dropped_objects() dropped
     WHERE dropped.classid = 'pg_class'::regclass AND dropped.objid = p.parent;
END
$$;
COMMENT ON FUNCTION iot.forget_dropped_tables() IS 'Deletes the policy of tables that were dropped.';
REVOKE ALL ON FUNCTION iot.forget_dropped_tables() FROM PUBLIC;

CREATE EVENT TRIGGER iot_ext_forget_dropped_tables ON sql_drop
    WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED')
    EXECUTE FUNCTION iot.forget_dropped_tables();
COMMENT ON EVENT TRIGGER iot_ext_forget_dropped_tables IS 'Deletes the partition policy of tables that are dropped.';

CREATE FUNCTION iot.create_monthly_partition(parent regclass, year integer, month integer) RETURNS text
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_monthly_partition_wrapper';
COMMENT ON FUNCTION iot.create_monthly_partition(regclass, integer, integer) IS
    'Makes the partition of that month (UTC) and returns its name; NULL when the month is covered already.';

CREATE FUNCTION iot.create_future_partitions(parent regclass, months_ahead integer DEFAULT 3) RETURNS text[]
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_future_partitions_wrapper';
COMMENT ON FUNCTION iot.create_future_partitions(regclass, integer) IS
    'Makes the partitions that are missing for the current month (UTC) and the given number after it; returns their names.';
