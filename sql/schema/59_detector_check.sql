-- Which detectors a sensor can have.

-- Before the CHECK of the column, which cannot say what would do.
CREATE FUNCTION iot.sensors_validate_detector() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.detector IS NOT NULL AND NOT EXISTS (SELECT FROM iot.detector_kinds() k WHERE k.detector = NEW.detector) THEN
        RAISE EXCEPTION 'detector "%" does not exist', NEW.detector
            USING ERRCODE = 'check_violation',
                  DETAIL = format('It is to score the readings of sensor "%s".', NEW.sensor_id),
                  HINT = (SELECT format('Use one of %s.', string_agg(k.detector, ', ')) FROM iot.detector_kinds() k),
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'detector';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.sensors_validate_detector() IS 'Trigger: refuses a detector that there is not.';
