-- What the engine holds in shared memory.

CREATE FUNCTION iot.flush_state() RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'flush_state_wrapper';
COMMENT ON FUNCTION iot.flush_state() IS
    'Writes the state of changed sensors to iot.sensor_state, and when devices were last heard of to iot.devices.last_seen_at; returns how many sensors. A background worker calls it now and then.';
REVOKE EXECUTE ON FUNCTION iot.flush_state() FROM PUBLIC;

CREATE FUNCTION iot.latest_time_in_memory(sensor_uuid uuid) RETURNS timestamptz
    VOLATILE STRICT PARALLEL RESTRICTED
    LANGUAGE c AS 'MODULE_PATHNAME', 'latest_time_in_memory_wrapper';
COMMENT ON FUNCTION iot.latest_time_in_memory(uuid) IS
    'Time of the sensor''s newest committed reading, if it is tracked in shared memory and the caller may read all readings; else NULL.';

CREATE FUNCTION iot.last_received_in_memory(sensor_uuid uuid) RETURNS timestamptz
    VOLATILE STRICT PARALLEL RESTRICTED
    LANGUAGE c AS 'MODULE_PATHNAME', 'last_received_in_memory_wrapper';
COMMENT ON FUNCTION iot.last_received_in_memory(uuid) IS
    'When a reading of the sensor last reached the server, under the same conditions.';
