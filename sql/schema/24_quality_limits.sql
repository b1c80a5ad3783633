-- Which quality limits readings can be held against.

CREATE FUNCTION iot.validate_quality_limits(quality_limits jsonb) RETURNS void
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'validate_quality_limits_wrapper';
COMMENT ON FUNCTION iot.validate_quality_limits(jsonb) IS
    'Raises 22023 unless readings can be held against the limits. Keys: maximum_rate, spike_threshold, flatline_after_seconds, flatline_tolerance, gap_after_seconds, late_after_seconds, calibration_valid_days.';

-- A trigger of its own: databases set up by an earlier version have sensors_validate for the calibration alone.
CREATE FUNCTION iot.sensors_validate_quality_limits() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.validate_quality_limits(NEW.quality_limits);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.sensors_validate_quality_limits() IS 'Trigger: refuses quality limits that readings cannot be held against.';
