-- Devices and sensors: which moves of the lifecycle are allowed, which calibrations can be applied.

CREATE FUNCTION iot.device_status_can_become(from_status text, to_status text) RETURNS boolean
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'device_status_can_become_wrapper';
COMMENT ON FUNCTION iot.device_status_can_become(text, text) IS
    'Whether a device in the first state may move to the second; staying where it is counts as allowed.';

CREATE FUNCTION iot.device_status_next(from_status text) RETURNS text[]
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'device_status_next_wrapper';
COMMENT ON FUNCTION iot.device_status_next(text) IS
    'The states to which a device in the given state may move.';

CREATE FUNCTION iot.validate_calibration(calibration_data jsonb) RETURNS void
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'validate_calibration_wrapper';
COMMENT ON FUNCTION iot.validate_calibration(jsonb) IS
    'Raises 22023 unless the calibration can be applied. Keys: multiplier, offset, then polynomial (coefficients from the constant up) or piecewise (pairs of raw and true value), info (free).';
