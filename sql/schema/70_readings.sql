-- The stream road: foreign tables that take readings by COPY and INSERT. They hold no rows themselves.

CREATE FUNCTION iot.readings_handler() RETURNS fdw_handler
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'readings_handler_wrapper';
COMMENT ON FUNCTION iot.readings_handler() IS 'Handler of the foreign-data wrapper iot_readings.';

CREATE FUNCTION iot.readings_validator(options text[], catalog oid) RETURNS void
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'readings_validator_wrapper';
COMMENT ON FUNCTION iot.readings_validator(text[], oid) IS
    'Validator of the foreign-data wrapper iot_readings: refuses options that it does not know.';

CREATE FOREIGN DATA WRAPPER iot_readings HANDLER iot.readings_handler VALIDATOR iot.readings_validator;
COMMENT ON FOREIGN DATA WRAPPER iot_readings IS 'Takes readings for iot.sensor_data.';

CREATE SERVER iot_readings FOREIGN DATA WRAPPER iot_readings;
COMMENT ON SERVER iot_readings IS 'This database: readings end in iot.sensor_data.';

CREATE FOREIGN TABLE iot.readings (
    sensor_id             uuid,
    measurement_timestamp timestamptz,
    measurement_value     double precision,
    measurement_metadata  jsonb,
    text_value            text,
    boolean_value         boolean,
    json_value            jsonb
) SERVER iot_readings OPTIONS (format 'typed');
COMMENT ON FOREIGN TABLE iot.readings IS
    'COPY or INSERT readings here: each goes through the whole pipeline into iot.sensor_data, or into iot.rejected_readings. Cannot be read.';
COMMENT ON COLUMN iot.readings.sensor_id IS 'The sensor.';
COMMENT ON COLUMN iot.readings.measurement_timestamp IS 'When it was measured; NULL is when it arrived.';
COMMENT ON COLUMN iot.readings.measurement_value IS 'Value as the device sent it.';
COMMENT ON COLUMN iot.readings.measurement_metadata IS 'What the device said beside the value.';
COMMENT ON COLUMN iot.readings.text_value IS 'Value of a reading that is text.';
COMMENT ON COLUMN iot.readings.boolean_value IS 'Value of a reading that is yes or no.';
COMMENT ON COLUMN iot.readings.json_value IS 'Value of a reading that is a structure.';

CREATE FOREIGN TABLE iot.raw_readings (
    sensor_id             text,
    measurement_timestamp text,
    measurement_value     text,
    measurement_metadata  text,
    text_value            text,
    boolean_value         text,
    json_value            text
) SERVER iot_readings OPTIONS (format 'raw');
COMMENT ON FOREIGN TABLE iot.raw_readings IS
    'As iot.readings, for sources that may send anything: what cannot be read goes to iot.rejected_readings as malformed. Cannot be read.';
COMMENT ON COLUMN iot.raw_readings.sensor_id IS 'The sensor, a uuid.';
COMMENT ON COLUMN iot.raw_readings.measurement_timestamp IS 'When it was measured, ISO 8601 or any timestamptz; NULL or empty is when it arrived.';
COMMENT ON COLUMN iot.raw_readings.measurement_value IS 'Value as the device sent it, a number; empty counts as NULL.';
COMMENT ON COLUMN iot.raw_readings.measurement_metadata IS 'What the device said beside the value, JSON; empty counts as NULL.';
COMMENT ON COLUMN iot.raw_readings.text_value IS 'Value of a reading that is text.';
COMMENT ON COLUMN iot.raw_readings.boolean_value IS 'Value of a reading that is yes or no; empty counts as NULL.';
COMMENT ON COLUMN iot.raw_readings.json_value IS 'Value of a reading that is a structure, JSON; empty counts as NULL.';
