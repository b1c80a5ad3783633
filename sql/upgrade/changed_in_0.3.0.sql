-- What 0.2.0 has in another form.
CREATE OR REPLACE FUNCTION iot.partitions_changed() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_partitions_changed';
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
DROP EVENT TRIGGER iot_ext_partitions_dropped;
CREATE EVENT TRIGGER iot_ext_partitions_dropped ON sql_drop WHEN TAG IN ('DROP TABLE')
    EXECUTE FUNCTION iot.partitions_dropped();
COMMENT ON EVENT TRIGGER iot_ext_partitions_dropped IS 'Sees partitions of iot.sensor_data that are dropped.';
COMMENT ON COLUMN iot.iot_stat_ingest.offered IS 'Readings that the engine decided about: always stored + duplicates + rejected.';
COMMENT ON COLUMN iot.iot_stat_ingest.stored IS 'Readings stored, also in statements and transactions that were rolled back later.';
COMMENT ON COLUMN iot.iot_stat_ingest.rejected IS 'Readings refused: kept in iot.rejected_readings, or the statement failed over them, as single calls do.';
