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
