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
