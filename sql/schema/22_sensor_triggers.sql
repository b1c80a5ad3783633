-- Triggers of sensors and their calibrations.

-- row_security = off makes the query fail, rather than find nothing, where a policy hides readings from the caller.
CREATE FUNCTION iot.sensors_refuse_delete() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF EXISTS (SELECT FROM iot.sensor_data) THEN
            RAISE EXCEPTION 'sensors have readings'
                USING ERRCODE = 'foreign_key_violation',
                      DETAIL = 'Table iot.sensor_data is not empty.',
                      HINT = 'Truncate iot.sensor_data first, in a statement of its own.';
        END IF;
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM iot.sensor_data r WHERE r.sensor_id = OLD.sensor_id) THEN
        RAISE EXCEPTION 'sensor "%" has readings', OLD.sensor_id
            USING ERRCODE = 'foreign_key_violation',
                  DETAIL = 'Rows of iot.sensor_data refer to it.',
                  HINT = 'Set sensor_status = ''decommissioned'' instead of deleting it.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION iot.sensors_refuse_delete() IS 'Trigger: refuses to delete a sensor that has readings.';

CREATE FUNCTION iot.sensors_refuse_identity_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    changed text := concat_ws(' and ',
        CASE WHEN NEW.sensor_id <> OLD.sensor_id THEN 'sensor_id' END,
        CASE WHEN NEW.device_id <> OLD.device_id THEN 'device_id' END,
        CASE WHEN NEW.sensor_type <> OLD.sensor_type THEN 'sensor_type' END);
BEGIN
    IF EXISTS (SELECT FROM iot.sensor_data r WHERE r.sensor_id = OLD.sensor_id) THEN
        RAISE EXCEPTION '% of sensor "%" cannot change', changed, OLD.sensor_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('It has readings with device_id "%s" and sensor_type "%s".', OLD.device_id, OLD.sensor_type),
                  HINT = 'Set sensor_status = ''decommissioned'' and register a new sensor.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.sensors_refuse_identity_change() IS 'Trigger: refuses another key, device or type for a sensor that has readings.';

CREATE FUNCTION iot.sensors_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.validate_calibration(NEW.calibration_data);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.sensors_validate() IS 'Trigger: refuses a calibration that cannot be applied.';

-- The new calibration holds from the clock time on, up to the next one that is planned, if any.
CREATE FUNCTION iot.record_calibration(sensor_uuid uuid, calibration jsonb) RETURNS void
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed_at timestamptz := '-infinity';
    holds_to timestamptz := 'infinity';
BEGIN
    IF EXISTS (SELECT FROM iot.sensor_calibrations c WHERE c.sensor_id = sensor_uuid) THEN
        changed_at := clock_timestamp();
        -- Two changes in one microsecond.
        WHILE EXISTS (SELECT FROM iot.sensor_calibrations c WHERE c.sensor_id = sensor_uuid AND c.valid_from = changed_at) LOOP
            changed_at := changed_at + interval '1 microsecond';
        END LOOP;
        SELECT COALESCE(min(c.valid_from), 'infinity') INTO holds_to
          FROM iot.sensor_calibrations c WHERE c.sensor_id = sensor_uuid AND c.valid_from > changed_at;
        UPDATE iot.sensor_calibrations c SET valid_to = changed_at
         WHERE c.sensor_id = sensor_uuid AND c.valid_from < changed_at AND c.valid_to > changed_at;
    END IF;
    INSERT INTO iot.sensor_calibrations (sensor_id, calibration_data, valid_from, valid_to)
    VALUES (sensor_uuid, calibration, changed_at, holds_to);
END
$$;
COMMENT ON FUNCTION iot.record_calibration(uuid, jsonb) IS 'Continues a sensor''s history with a new calibration; called by a trigger on iot.sensors.';

CREATE FUNCTION iot.sensors_record_calibration() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.record_calibration(NEW.sensor_id, NEW.calibration_data);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.sensors_record_calibration() IS 'Trigger: keeps the history of sensors.calibration_data.';

CREATE FUNCTION iot.sensor_calibrations_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.validate_calibration(NEW.calibration_data);
    -- One writer at a time per sensor, so that the check for overlaps sees what others wrote.
    PERFORM FROM iot.sensors s WHERE s.sensor_id = NEW.sensor_id FOR NO KEY UPDATE;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.sensor_calibrations_validate() IS 'Trigger: refuses a calibration that cannot be applied, and locks the sensor.';

-- Runs after the rows are in place, so that one statement may shift several.
CREATE FUNCTION iot.sensor_calibrations_guard() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other record;
BEGIN
    SELECT c.valid_from, c.valid_to INTO other
      FROM iot.sensor_calibrations c
     WHERE c.sensor_id = NEW.sensor_id AND c.calibration_id <> NEW.calibration_id
       AND c.valid_from < NEW.valid_to AND c.valid_to > NEW.valid_from
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'calibration of sensor "%" overlaps another one', NEW.sensor_id
            USING ERRCODE = 'exclusion_violation',
                  DETAIL = format('It holds from %s to %s, the other from %s to %s.',
                                  NEW.valid_from, NEW.valid_to, other.valid_from, other.valid_to),
                  HINT = 'Give the other one an earlier valid_to first.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.sensor_calibrations_guard() IS 'Trigger: refuses calibrations of a sensor that overlap in time.';
