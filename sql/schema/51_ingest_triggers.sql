-- Triggers that keep caches and states true to the tables. All are attached ENABLE ALWAYS: what replication applies counts.

CREATE FUNCTION iot.registry_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_registry_changed';
COMMENT ON FUNCTION iot.registry_changed() IS
    'Trigger: tells every session that what it keeps of this table is no longer true.';

CREATE FUNCTION iot.readings_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_readings_changed';
COMMENT ON FUNCTION iot.readings_changed() IS
    'Trigger: readings written by plain SQL make the statistics of their sensor be read anew.';

CREATE TRIGGER partition_policy_changed AFTER INSERT OR UPDATE OR DELETE ON iot.partition_policy
    FOR EACH ROW EXECUTE FUNCTION iot.registry_changed();
ALTER TABLE iot.partition_policy ENABLE ALWAYS TRIGGER partition_policy_changed;

CREATE FUNCTION iot.all_readings_changed() RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_all_readings_changed';
COMMENT ON FUNCTION iot.all_readings_changed() IS
    'Makes the statistics of every sensor be read anew from the stored readings.';

CREATE FUNCTION iot.partitions_changed() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_partitions_changed';
COMMENT ON FUNCTION iot.partitions_changed() IS
    'Event trigger: readings that come or go with a partition make statistics be read anew.';

CREATE FUNCTION iot.partitions_dropped() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() o
                WHERE o.object_type = 'table' AND o.schema_name = 'iot') THEN
        PERFORM iot.all_readings_changed();
    END IF;
END
$$;
COMMENT ON FUNCTION iot.partitions_dropped() IS
    'Event trigger: readings that go with a partition make statistics be read anew.';

CREATE EVENT TRIGGER iot_ext_partitions_dropped ON sql_drop WHEN TAG IN ('DROP TABLE')
    EXECUTE FUNCTION iot.partitions_dropped();
COMMENT ON EVENT TRIGGER iot_ext_partitions_dropped IS 'Sees partitions of iot.sensor_data that are dropped.';
CREATE EVENT TRIGGER iot_ext_partitions_changed ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION iot.partitions_changed();
COMMENT ON EVENT TRIGGER iot_ext_partitions_changed IS 'Sees partitions of iot.sensor_data that are attached or detached.';
