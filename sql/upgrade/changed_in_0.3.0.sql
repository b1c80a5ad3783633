-- What 0.2.0 has in another form.
CREATE OR REPLACE FUNCTION iot.partitions_changed() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_EVENT = 'sql_drop' THEN
        IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() o
                    WHERE o.object_type = 'table' AND o.schema_name = 'iot') THEN
            PERFORM iot.all_readings_changed();
        END IF;
    -- By name: to_regclass() fails for those who may not look into the schema, and with it any ALTER TABLE of theirs.
    ELSIF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.object_identity = 'iot.sensor_data') THEN
        PERFORM iot.all_readings_changed();
    END IF;
END
$$;
