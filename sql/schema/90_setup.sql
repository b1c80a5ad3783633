-- Making the user's tables.

CREATE FUNCTION iot.setup(
    partition_interval interval DEFAULT NULL, premake integer DEFAULT NULL, retention interval DEFAULT NULL,
    index_policy text[] DEFAULT NULL, duplicates text DEFAULT NULL) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'setup_wrapper';
COMMENT ON FUNCTION iot.setup(interval, integer, interval, text[], text) IS
    'Makes the iot tables, owned by the caller, or brings them forward; may be run again at any time. NULL keeps earlier choices: partitions of 1 month, 3 premade, readings accepted up to 10 years back, indexes device_time and time_brin, the first of readings of the same sensor and time (duplicates: first, last or both).';
