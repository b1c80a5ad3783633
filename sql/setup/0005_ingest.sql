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

-- What the engine remembers of a sensor, as last written down. The truth is iot.sensor_data: this can be dropped and comes
-- back. It changes often and in place, so pages keep room.
CREATE TABLE iot.sensor_state (
    sensor_id        uuid             PRIMARY KEY REFERENCES iot.sensors ON DELETE CASCADE,
    device_id        uuid             NOT NULL,
    latest_timestamp timestamptz,
    latest_value     double precision,
    last_received_at timestamptz,
    is_checkpoint    boolean          NOT NULL DEFAULT false,
    state            bytea,
    detector_state   bytea,
    flushed_at       timestamptz      NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
ALTER TABLE iot.sensor_state ALTER COLUMN state SET STORAGE EXTERNAL, ALTER COLUMN detector_state SET STORAGE EXTERNAL;
COMMENT ON TABLE iot.sensor_state IS 'What the ingest engine remembers of each sensor, written now and then by iot.flush_state(); may be emptied at any time.';
COMMENT ON COLUMN iot.sensor_state.sensor_id IS 'The sensor.';
COMMENT ON COLUMN iot.sensor_state.device_id IS 'Its device.';
COMMENT ON COLUMN iot.sensor_state.latest_timestamp IS 'Time of its newest reading when this was written.';
COMMENT ON COLUMN iot.sensor_state.latest_value IS 'Value of that reading; NULL for one that is not a number.';
COMMENT ON COLUMN iot.sensor_state.last_received_at IS 'When its last reading reached the server.';
COMMENT ON COLUMN iot.sensor_state.is_checkpoint IS 'Whether state holds every reading up to latest_timestamp, so that a restart needs only those since.';
COMMENT ON COLUMN iot.sensor_state.state IS 'Statistics, quality context and episode, in the engine''s own format.';
COMMENT ON COLUMN iot.sensor_state.detector_state IS 'State of the sensor''s detector where that is not zscore, in the engine''s own format.';
COMMENT ON COLUMN iot.sensor_state.flushed_at IS 'When this was written.';
