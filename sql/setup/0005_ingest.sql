-- The ingest engine: what sensors declare of their readings, and the state that outlives a restart.
SET LOCAL search_path = pg_catalog, pg_temp;

ALTER TABLE iot.sensors
    ADD COLUMN value_type     text  NOT NULL DEFAULT 'numeric'
                              CHECK (value_type IN ('numeric', 'text', 'boolean', 'json')),
    ADD COLUMN detector       text  NOT NULL DEFAULT 'zscore'
                              CHECK (detector IN ('zscore', 'robust', 'ewma', 'seasonal', 'adaptive')),
    ADD COLUMN quality_limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quality_limits) = 'object');
COMMENT ON COLUMN iot.sensors.value_type IS 'Type of its readings: numeric, text, boolean or json. Only numbers are calibrated and scored.';
COMMENT ON COLUMN iot.sensors.detector IS 'How readings are scored: zscore (deviation from the last 24 hours), robust, ewma, seasonal or adaptive.';
COMMENT ON COLUMN iot.sensors.quality_limits IS 'Limits beside the physical range, such as {"maximum_rate": 2}: see docs/ingest.md.';
