-- Ingest: one reading through the whole pipeline.

CREATE FUNCTION iot.process_sensor_data(
    sensor_uuid uuid, measurement_value double precision, measurement_metadata jsonb DEFAULT '{}',
    measurement_timestamp timestamptz DEFAULT NULL) RETURNS uuid
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'process_sensor_data_wrapper';
COMMENT ON FUNCTION iot.process_sensor_data(uuid, double precision, jsonb, timestamptz) IS
    'Calibrates, checks, scores and stores one reading, then evaluates alert rules; returns its data_id. No time means the clock''s. Of a reading whose sensor has one of that time, setup(duplicates) decides; the data_id is that of the row which is stored.';

CREATE FUNCTION iot.generate_data_id() RETURNS uuid
    VOLATILE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'generate_data_id_wrapper';
COMMENT ON FUNCTION iot.generate_data_id() IS
    'A time-ordered UUID (version 7, RFC 9562), increasing within a session.';

CREATE FUNCTION iot.quality_reasons(quality_flags integer) RETURNS text[]
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'quality_reasons_wrapper';
COMMENT ON FUNCTION iot.quality_reasons(integer) IS
    'The reasons in sensor_data.quality_flags as words.';
