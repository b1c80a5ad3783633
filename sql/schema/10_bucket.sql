-- Time buckets, and the first and last value by time.

COMMENT ON SCHEMA iot IS 'IoT back end (extension iot_ext): its functions, and the tables made by iot.setup().';

CREATE FUNCTION iot.time_bucket(bucket_width interval, ts timestamptz) RETURNS timestamptz
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'time_bucket_wrapper';
COMMENT ON FUNCTION iot.time_bucket(interval, timestamptz) IS
    'Start of the bucket of the given width that holds ts, in UTC: widths of a fixed length count from Monday 2000-01-03, months from 2000-01-01.';

CREATE FUNCTION iot.time_bucket(bucket_width interval, ts timestamptz, origin timestamptz) RETURNS timestamptz
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'time_bucket_origin_wrapper';
COMMENT ON FUNCTION iot.time_bucket(interval, timestamptz, timestamptz) IS
    'Start of the bucket of the given width that holds ts; a bucket starts at origin.';

CREATE FUNCTION iot.time_bucket(bucket_width interval, ts timestamptz, "offset" interval) RETURNS timestamptz
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'time_bucket_offset_wrapper';
COMMENT ON FUNCTION iot.time_bucket(interval, timestamptz, interval) IS
    'Start of the bucket of the given width that holds ts; every bucket is shifted by the offset.';

CREATE FUNCTION iot.first_transition(state internal, value anyelement, "time" "any") RETURNS internal
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_first_transition';
COMMENT ON FUNCTION iot.first_transition(internal, anyelement, "any") IS
    'Transition function of the aggregate first.';

CREATE FUNCTION iot.last_transition(state internal, value anyelement, "time" "any") RETURNS internal
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_last_transition';
COMMENT ON FUNCTION iot.last_transition(internal, anyelement, "any") IS
    'Transition function of the aggregate last.';

CREATE FUNCTION iot.first_last_final(state internal, value anyelement, "time" "any") RETURNS anyelement
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_first_last_final';
COMMENT ON FUNCTION iot.first_last_final(internal, anyelement, "any") IS
    'Final function of the aggregates first and last.';

CREATE AGGREGATE iot.first(value anyelement, "time" "any") (
    SFUNC = iot.first_transition, STYPE = internal, FINALFUNC = iot.first_last_final, FINALFUNC_EXTRA,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE iot.first(anyelement, "any") IS
    'The value with the least time. Rows without a time are left out; of rows with the same time, the first one read counts.';

CREATE AGGREGATE iot.last(value anyelement, "time" "any") (
    SFUNC = iot.last_transition, STYPE = internal, FINALFUNC = iot.first_last_final, FINALFUNC_EXTRA,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE iot.last(anyelement, "any") IS
    'The value with the greatest time. Rows without a time are left out; of rows with the same time, the first one read counts.';
