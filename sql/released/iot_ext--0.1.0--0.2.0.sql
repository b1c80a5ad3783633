\echo Use "ALTER EXTENSION iot_ext UPDATE" to load this file. \quit

-- schema/15_unit.sql
-- Units of measurement. Only units of the extension itself count, which never change their meaning: hence IMMUTABLE.

CREATE FUNCTION iot.convert_unit(value double precision, from_unit text, to_unit text) RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'convert_unit_wrapper';
COMMENT ON FUNCTION iot.convert_unit(double precision, text, text) IS
    'The value as a number of another unit of the same dimension; units are symbols such as degC or kWh, names, or expressions such as m3/h.';

CREATE FUNCTION iot.convert_unit_difference(difference double precision, from_unit text, to_unit text)
    RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'convert_unit_difference_wrapper';
COMMENT ON FUNCTION iot.convert_unit_difference(double precision, text, text) IS
    'As convert_unit() for a difference of two values: zero points do not count, 9 degF are 5 degC.';

CREATE FUNCTION iot.known_units() RETURNS TABLE (
    symbol text, aliases text[], dimension text, factor double precision, offset_value double precision,
    takes_prefixes boolean)
    IMMUTABLE STRICT PARALLEL SAFE ROWS 150
    LANGUAGE c AS 'MODULE_PATHNAME', 'known_units_wrapper';
COMMENT ON FUNCTION iot.known_units() IS 'The rows of iot.units.';

CREATE VIEW iot.units WITH (security_invoker = true) AS
SELECT u.symbol, u.aliases, u.dimension, u.factor, u.offset_value, u.takes_prefixes FROM iot.known_units() u;
COMMENT ON VIEW iot.units IS 'The units that iot.convert_unit() knows, without their combinations with prefixes and each other.';
COMMENT ON COLUMN iot.units.symbol IS 'How it is best written.';
COMMENT ON COLUMN iot.units.aliases IS 'Other ways to write it.';
COMMENT ON COLUMN iot.units.dimension IS 'What it measures; only units of the same dimension convert into each other.';
COMMENT ON COLUMN iot.units.factor IS 'How many SI units it is: SI value = value * factor + offset_value.';
COMMENT ON COLUMN iot.units.offset_value IS 'The SI value of its zero.';
COMMENT ON COLUMN iot.units.takes_prefixes IS 'Whether it may have prefixes, such as kilo.';
GRANT SELECT ON iot.units TO PUBLIC;

-- schema/24_quality_limits.sql
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

-- schema/31_duplicates.sql
-- Partition policy: which readings of the same sensor and time are kept. The view shows its columns in the same order.
ALTER TABLE iot.partition_policy
    ADD COLUMN duplicates text NOT NULL DEFAULT 'first'
    CHECK (duplicates OPERATOR(pg_catalog.=) ANY ('{first,last,both}'::pg_catalog.text[]));
COMMENT ON COLUMN iot.partition_policy.duplicates IS 'Which readings of the same sensor and time are kept: first, last or both.';

CREATE OR REPLACE VIEW iot.partition_settings WITH (security_invoker = true) AS
SELECT p.parent, p.time_column, p.partition_interval, p.premake, p.retention, p.index_policy, p.duplicates
  FROM iot.partition_policy p
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.parent);
COMMENT ON COLUMN iot.partition_settings.duplicates IS 'Which readings of the same sensor and time are kept: first, last or both.';

-- schema/45_processing.sql
-- Processing rules: checking them when they are written. They run in the ingest pipeline.

CREATE FUNCTION iot.validate_processing_rule(rule_name text, rule_type text, rule_definition jsonb) RETURNS void
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'validate_processing_rule_wrapper';
COMMENT ON FUNCTION iot.validate_processing_rule(text, text, jsonb) IS
    'Raises 22023 unless the definition can be run: known type and keys, numbers in range, an expression that compiles.';

CREATE FUNCTION iot.check_processing_rule(rule_uuid uuid) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_processing_rule_wrapper';
COMMENT ON FUNCTION iot.check_processing_rule(uuid) IS
    'Raises 22023 if the active rule is part of a loop, or its output collides with that of another, on one of up to 1000 devices in its scope; for a rule about one sensor also if something that it refers to is missing.';

CREATE FUNCTION iot.data_processing_rules_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    not_definition CONSTANT text[] := '{rule_version,is_active,description,created_by,created_at,updated_at}';
BEGIN
    PERFORM iot.validate_processing_rule(NEW.rule_name, NEW.rule_type, NEW.rule_definition);
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - not_definition <> to_jsonb(OLD) - not_definition THEN
        NEW.rule_version := OLD.rule_version + 1;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_validate() IS 'Trigger: refuses a processing rule that could not run, and counts versions of its definition.';

-- Runs after the rows are in place, so that one statement may write rules that read each other.
CREATE FUNCTION iot.data_processing_rules_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.check_processing_rule(NEW.processing_rule_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_check() IS 'Trigger: refuses processing rules that read each other in a loop.';

CREATE FUNCTION iot.data_processing_rules_forget() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM iot.processing_states;
    ELSE
        DELETE FROM iot.processing_states s WHERE s.processing_rule_id = OLD.processing_rule_id;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_forget() IS 'Trigger: deletes what a processing rule remembers together with the rule.';

-- schema/51_ingest_triggers.sql
-- Triggers that keep caches and states true to the tables. All are attached ENABLE ALWAYS: what replication applies counts.

CREATE FUNCTION iot.registry_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_registry_changed';
COMMENT ON FUNCTION iot.registry_changed() IS
    'Trigger: tells every session that what it keeps of this table is no longer true.';

CREATE FUNCTION iot.readings_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_readings_changed';
COMMENT ON FUNCTION iot.readings_changed() IS
    'Trigger: readings written by plain SQL make the statistics of their sensor be read anew.';

CREATE TRIGGER partition_policy_changed AFTER INSERT OR UPDATE OR DELETE ON iot.partition_policy
    FOR EACH ROW EXECUTE FUNCTION iot.registry_changed();
ALTER TABLE iot.partition_policy ENABLE ALWAYS TRIGGER partition_policy_changed;

CREATE FUNCTION iot.all_readings_changed() RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_all_readings_changed';
COMMENT ON FUNCTION iot.all_readings_changed() IS
    'Makes the statistics of every sensor be read anew from the stored readings.';

CREATE FUNCTION iot.partitions_changed() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_EVENT = 'sql_drop' THEN
        IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() o
                    WHERE o.object_type = 'table' AND o.schema_name = 'iot') THEN
            PERFORM iot.all_readings_changed();
        END IF;
    ELSIF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
                   WHERE c.classid = 'pg_class'::regclass AND c.objid = to_regclass('iot.sensor_data')) THEN
        PERFORM iot.all_readings_changed();
    END IF;
END
$$;
COMMENT ON FUNCTION iot.partitions_changed() IS
    'Event trigger: readings that come or go with a partition make statistics be read anew.';

CREATE EVENT TRIGGER iot_ext_partitions_dropped ON sql_drop WHEN TAG IN ('DROP TABLE')
    EXECUTE FUNCTION iot.partitions_changed();
COMMENT ON EVENT TRIGGER iot_ext_partitions_dropped IS 'Sees partitions of iot.sensor_data that are dropped.';
CREATE EVENT TRIGGER iot_ext_partitions_changed ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION iot.partitions_changed();
COMMENT ON EVENT TRIGGER iot_ext_partitions_changed IS 'Sees partitions of iot.sensor_data that are attached or detached.';

-- schema/52_statistics.sql
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
SELECT max(c.counter_value) FILTER (WHERE c.counter_name = 'batches') AS batches,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'offered') AS offered,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'stored') AS stored,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'duplicates') AS duplicates,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'rejected') AS rejected,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'late') AS late,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'anomalies') AS anomalies,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'onsets') AS onsets,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'alerts') AS alerts,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'conflicts') AS conflicts,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'window_reads') AS window_reads,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'largest_batch') AS largest_batch,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'look_up_nanoseconds') / 1e6 AS look_up_milliseconds,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'score_nanoseconds') / 1e6 AS score_milliseconds,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'store_nanoseconds') / 1e6 AS store_milliseconds,
       max(c.counter_value) FILTER (WHERE c.counter_name = 'alert_nanoseconds') / 1e6 AS alert_milliseconds,
       iot.ingest_counters_are_shared() AS is_whole_database,
       iot.ingest_counters_reset_at() AS stats_reset
  FROM iot.ingest_counters() c;
COMMENT ON VIEW iot.iot_stat_ingest IS 'What the ingest engine has done in this database since the server started or the counters were reset; without preload, in this session.';
COMMENT ON COLUMN iot.iot_stat_ingest.batches IS 'Batches: calls of an ingest function, and parts of a COPY.';
COMMENT ON COLUMN iot.iot_stat_ingest.offered IS 'Readings that reached the engine.';
COMMENT ON COLUMN iot.iot_stat_ingest.stored IS 'Readings stored.';
COMMENT ON COLUMN iot.iot_stat_ingest.duplicates IS 'Readings that were there already.';
COMMENT ON COLUMN iot.iot_stat_ingest.rejected IS 'Readings kept in iot.rejected_readings.';
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

-- schema/53_detector.sql
-- Detectors: a series scored without storing it, and which detectors there are.

CREATE FUNCTION iot.score_series(detector text, timestamps timestamptz[], measurement_values double precision[])
    RETURNS TABLE (measurement_timestamp timestamptz, measurement_value double precision, anomaly_score double precision,
                   is_anomaly boolean, is_onset boolean, is_learning boolean)
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'score_series_wrapper';
COMMENT ON FUNCTION iot.score_series(text, timestamptz[], double precision[]) IS
    'Scores a series with a detector of iot.detectors, each reading by those before it, and stores nothing. One row per reading, in the order of the arrays; none where an argument is NULL.';

CREATE FUNCTION iot.detector_kinds() RETURNS TABLE (detector text, description text, state_bytes integer)
    IMMUTABLE STRICT PARALLEL SAFE ROWS 5
    LANGUAGE c AS 'MODULE_PATHNAME', 'detector_kinds_wrapper';
COMMENT ON FUNCTION iot.detector_kinds() IS 'Rows behind iot.detectors.';

CREATE VIEW iot.detectors AS SELECT k.detector, k.description, k.state_bytes FROM iot.detector_kinds() k;
COMMENT ON VIEW iot.detectors IS 'The anomaly detectors: see docs/detectors.md.';
COMMENT ON COLUMN iot.detectors.detector IS 'Name, as in iot.sensors.detector.';
COMMENT ON COLUMN iot.detectors.description IS 'What its score measures.';
COMMENT ON COLUMN iot.detectors.state_bytes IS 'Bytes it keeps for a sensor, however many readings there are.';

-- schema/54_state.sql
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

-- schema/55_recalibration.sql
-- Recalibration: stored readings by the calibration history as it is now.

CREATE FUNCTION iot.begin_recalibration(sensor uuid, range_start timestamptz, range_end timestamptz, dry_run boolean)
    RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'begin_recalibration_wrapper';
COMMENT ON FUNCTION iot.begin_recalibration(uuid, timestamptz, timestamptz, boolean) IS
    'Step of iot.recalibrate(): checks the arguments and adds the row of iot.recalibrations, whose key it returns; NULL for a dry run.';

CREATE FUNCTION iot.recalibrate_batch(
    sensor uuid, range_end timestamptz, recalibration bigint, INOUT range_start timestamptz,
    INOUT rows_examined bigint, INOUT rows_changed bigint, INOUT minimum_difference double precision,
    INOUT maximum_difference double precision, INOUT mean_difference double precision) RETURNS SETOF record
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'recalibrate_batch_wrapper';
COMMENT ON FUNCTION iot.recalibrate_batch(
    uuid, timestamptz, bigint, timestamptz, bigint, bigint, double precision, double precision, double precision) IS
    'Step of iot.recalibrate(): the next batch. range_start becomes where to go on, NULL at the end; figures go on from those given. Without the key of a recalibration nothing is written.';

-- No SET clause and no SECURITY DEFINER, which would forbid COMMIT: hence every name below is qualified or a keyword, and
-- whatever needs an operator is left to the two functions.
CREATE PROCEDURE iot.recalibrate(
    sensor uuid, range_start timestamptz DEFAULT '-infinity', range_end timestamptz DEFAULT 'infinity',
    dry_run boolean DEFAULT false, INOUT rows_examined bigint DEFAULT NULL, INOUT rows_changed bigint DEFAULT NULL,
    INOUT minimum_difference double precision DEFAULT NULL, INOUT maximum_difference double precision DEFAULT NULL,
    INOUT mean_difference double precision DEFAULT NULL)
    LANGUAGE plpgsql AS $$
DECLARE
    recalibration bigint := iot.begin_recalibration(sensor, range_start, range_end, dry_run);
BEGIN
    rows_examined := NULL;
    rows_changed := NULL;
    minimum_difference := NULL;
    maximum_difference := NULL;
    mean_difference := NULL;
    WHILE range_start IS NOT NULL LOOP
        -- The first one fails at once where no COMMIT is possible, before any work is done.
        IF NOT dry_run THEN
            COMMIT;
        END IF;
        SELECT b.range_start, b.rows_examined, b.rows_changed, b.minimum_difference, b.maximum_difference, b.mean_difference
          INTO range_start, rows_examined, rows_changed, minimum_difference, maximum_difference, mean_difference
          FROM iot.recalibrate_batch(recalibrate.sensor, recalibrate.range_end, recalibration, recalibrate.range_start,
                   recalibrate.rows_examined, recalibrate.rows_changed, recalibrate.minimum_difference,
                   recalibrate.maximum_difference, recalibrate.mean_difference) b;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE iot.recalibrate(
    uuid, timestamptz, timestamptz, boolean, bigint, bigint, double precision, double precision, double precision) IS
    'Computes the values of a sensor''s stored readings anew from the raw ones, by the calibrations that hold at their times. Commits after each batch. A dry run writes nothing. Parameters after dry_run are results.';

-- schema/56_roads.sql
-- Further roads into the pipeline of process_sensor_data.

CREATE FUNCTION iot.process_sensor_data_ex(
    sensor_uuid uuid, measurement_value double precision, measurement_metadata jsonb DEFAULT '{}',
    measurement_timestamp timestamptz DEFAULT NULL)
    RETURNS TABLE (data_id uuid, measurement_timestamp timestamptz, measurement_value double precision,
                   data_quality text, quality_reasons text[], anomaly_score double precision, is_anomaly boolean,
                   is_onset boolean, is_duplicate boolean, alert_ids uuid[])
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'process_sensor_data_ex_wrapper';
COMMENT ON FUNCTION iot.process_sensor_data_ex(uuid, double precision, jsonb, timestamptz) IS
    'As process_sensor_data, and says what became of the reading. Of a duplicate it shows what was offered, with the data_id that is stored.';

CREATE FUNCTION iot.ingest(
    sensor_ids uuid[], timestamps timestamptz[], measurement_values double precision[], metadata jsonb[] DEFAULT NULL)
    RETURNS TABLE (accepted bigint, rejected bigint, duplicates bigint, anomalies bigint, alerts bigint)
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_arrays_wrapper';
COMMENT ON FUNCTION iot.ingest(uuid[], timestamptz[], double precision[], jsonb[]) IS
    'Takes many readings through the pipeline of process_sensor_data. What cannot be accepted goes to iot.rejected_readings.';

CREATE FUNCTION iot.ingest(readings jsonb, register_unknown boolean DEFAULT false)
    RETURNS TABLE (accepted bigint, rejected bigint, duplicates bigint, anomalies bigint, alerts bigint)
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_jsonb_wrapper';
COMMENT ON FUNCTION iot.ingest(jsonb, boolean) IS
    'Takes a reading, or an array of them, through the pipeline: sensors by key, or by device and name or type. register_unknown registers devices and sensors that are new.';

CREATE FUNCTION iot.replay_rejected(
    since timestamptz DEFAULT '-infinity', reason text DEFAULT NULL, maximum integer DEFAULT NULL,
    register_unknown boolean DEFAULT false)
    RETURNS TABLE (replayed bigint, accepted bigint, rejected bigint, duplicates bigint)
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'replay_rejected_wrapper';
COMMENT ON FUNCTION iot.replay_rejected(timestamptz, text, integer, boolean) IS
    'Offers iot.rejected_readings that wait (replayed_at IS NULL) again, in order of arrival: those received since then, kept for that reason, so many at most. Accepted ones and duplicates get replayed_at; the others keep waiting with the reason as it is now.';

-- schema/70_readings.sql
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

-- upgrade/changed_in_0.2.0.sql
-- What 0.1.0 has in another form.
COMMENT ON FUNCTION iot.process_sensor_data(uuid, double precision, jsonb, timestamptz) IS
    'Calibrates, checks, scores and stores one reading, then evaluates alert rules; returns its data_id. No time means the clock''s. Of a reading whose sensor has one of that time, setup(duplicates) decides; the data_id is that of the row which is stored.';

-- Has an argument more.
DROP FUNCTION iot.setup(interval, integer, interval, text[]);

-- schema/90_setup.sql
-- Making the user's tables.

CREATE FUNCTION iot.setup(
    partition_interval interval DEFAULT NULL, premake integer DEFAULT NULL, retention interval DEFAULT NULL,
    index_policy text[] DEFAULT NULL, duplicates text DEFAULT NULL) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'setup_wrapper';
COMMENT ON FUNCTION iot.setup(interval, integer, interval, text[], text) IS
    'Makes the iot tables, owned by the caller, or brings them forward; may be run again at any time. NULL keeps earlier choices: partitions of 1 month, 3 premade, readings accepted up to 10 years back, indexes device_time and time_brin, the first of readings of the same sensor and time (duplicates: first, last or both).';
