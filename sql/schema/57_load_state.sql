-- Shared memory after a start of the server.

CREATE FUNCTION iot.load_state(maximum integer DEFAULT 10000) RETURNS bigint
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'load_state_wrapper';
COMMENT ON FUNCTION iot.load_state(integer) IS
    'Brings states of sensors that were written down back into shared memory, those heard of last first, while there is room; returns how many. A background worker calls it after the server has started.';
REVOKE EXECUTE ON FUNCTION iot.load_state(integer) FROM PUBLIC;
