-- What the ingest engine counts of itself. Counting writes no row; rolled-back readings count too, as in pg_stat_database.

CREATE FUNCTION iot.ingest_counters() RETURNS TABLE (counter_name text, counter_value bigint)
    VOLATILE PARALLEL RESTRICTED ROWS 16
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_counters_wrapper';
COMMENT ON FUNCTION iot.ingest_counters() IS 'Counters behind iot.iot_stat_ingest.';

CREATE FUNCTION iot.ingest_counters_reset_at() RETURNS timestamptz
    VOLATILE PARALLEL RESTRICTED
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_counters_reset_at_wrapper';
COMMENT ON FUNCTION iot.ingest_counters_reset_at() IS 'When the counters were last set to zero.';

CREATE FUNCTION iot.ingest_counters_are_shared() RETURNS boolean
    VOLATILE PARALLEL RESTRICTED
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_counters_are_shared_wrapper';
COMMENT ON FUNCTION iot.ingest_counters_are_shared() IS 'Whether the counters are those of the database, not of this session.';

CREATE FUNCTION iot.iot_stat_reset() RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_stat_reset_wrapper';
COMMENT ON FUNCTION iot.iot_stat_reset() IS 'Sets the counters of iot.iot_stat_ingest to zero.';
REVOKE EXECUTE ON FUNCTION iot.iot_stat_reset() FROM PUBLIC;

CREATE FUNCTION iot.tracked_sensors_occupancy()
    RETURNS TABLE (capacity bigint, tracked bigint, evicted bigint, refused bigint, rebuilt bigint, merged bigint, entry_bytes bigint)
    VOLATILE PARALLEL RESTRICTED ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'tracked_sensors_occupancy_wrapper';
COMMENT ON FUNCTION iot.tracked_sensors_occupancy() IS 'Figures behind iot.iot_stat_tracked_sensors.';

CREATE VIEW iot.iot_stat_ingest AS
SELECT pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'batches') AS batches,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'offered') AS offered,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'stored') AS stored,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'duplicates') AS duplicates,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'rejected') AS rejected,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'late') AS late,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'anomalies') AS anomalies,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'onsets') AS onsets,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'alerts') AS alerts,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'conflicts') AS conflicts,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'window_reads') AS window_reads,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'largest_batch') AS largest_batch,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'look_up_nanoseconds') OPERATOR(pg_catalog./) 1e6 AS look_up_milliseconds,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'score_nanoseconds') OPERATOR(pg_catalog./) 1e6 AS score_milliseconds,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'store_nanoseconds') OPERATOR(pg_catalog./) 1e6 AS store_milliseconds,
       pg_catalog.max(c.counter_value) FILTER (WHERE c.counter_name OPERATOR(pg_catalog.=) 'alert_nanoseconds') OPERATOR(pg_catalog./) 1e6 AS alert_milliseconds,
       iot.ingest_counters_are_shared() AS is_whole_database,
       iot.ingest_counters_reset_at() AS stats_reset
  FROM iot.ingest_counters() c;
COMMENT ON VIEW iot.iot_stat_ingest IS 'What the ingest engine has done in this database since the server started or the counters were reset; without preload, in this session.';
COMMENT ON COLUMN iot.iot_stat_ingest.batches IS 'Batches: calls of an ingest function, and parts of a COPY.';
COMMENT ON COLUMN iot.iot_stat_ingest.offered IS 'Readings that the engine decided about: always stored + duplicates + rejected.';
COMMENT ON COLUMN iot.iot_stat_ingest.stored IS 'Readings stored, also in statements and transactions that were rolled back later.';
COMMENT ON COLUMN iot.iot_stat_ingest.duplicates IS 'Readings that were there already.';
COMMENT ON COLUMN iot.iot_stat_ingest.rejected IS 'Readings refused: kept in iot.rejected_readings, or the statement failed over them, as single calls do.';
COMMENT ON COLUMN iot.iot_stat_ingest.late IS 'Readings older than their sensor''s newest one.';
COMMENT ON COLUMN iot.iot_stat_ingest.anomalies IS 'Stored readings flagged as anomalies.';
COMMENT ON COLUMN iot.iot_stat_ingest.onsets IS 'Stored readings at which an anomalous episode began.';
COMMENT ON COLUMN iot.iot_stat_ingest.alerts IS 'Alerts opened, or open and matched again.';
COMMENT ON COLUMN iot.iot_stat_ingest.conflicts IS 'Readings that met one of another session at the primary key.';
COMMENT ON COLUMN iot.iot_stat_ingest.window_reads IS 'Sensors whose window was read from the table.';
COMMENT ON COLUMN iot.iot_stat_ingest.largest_batch IS 'Readings of the largest batch.';
COMMENT ON COLUMN iot.iot_stat_ingest.look_up_milliseconds IS 'Time spent on sensors, calibrations and rules.';
COMMENT ON COLUMN iot.iot_stat_ingest.score_milliseconds IS 'Time spent on calibration, quality, duplicates, scores and rules.';
COMMENT ON COLUMN iot.iot_stat_ingest.store_milliseconds IS 'Time spent on rows and index entries.';
COMMENT ON COLUMN iot.iot_stat_ingest.alert_milliseconds IS 'Time spent on alerts.';
COMMENT ON COLUMN iot.iot_stat_ingest.is_whole_database IS 'False without preload: then the row counts this session alone.';
COMMENT ON COLUMN iot.iot_stat_ingest.stats_reset IS 'When the counters were last reset; NULL for never.';

CREATE VIEW iot.iot_stat_tracked_sensors AS SELECT * FROM iot.tracked_sensors_occupancy();
COMMENT ON VIEW iot.iot_stat_tracked_sensors IS 'The sensors whose statistics are in shared memory, over all databases of the server.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.capacity IS 'Sensors that have room: iot_ext.max_tracked_sensors, or 0 without preload.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.tracked IS 'Sensors tracked.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.evicted IS 'Sensors given up to make room.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.refused IS 'Times that a sensor found no room and was scored from its stored readings.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.rebuilt IS 'Times that statistics were built from stored readings.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.merged IS 'Commits that met another session''s on the same sensor.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.entry_bytes IS 'Shared memory for each sensor.';
