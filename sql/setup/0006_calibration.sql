-- Recalibration of stored readings: who did it, and what it changed.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Raw values stay with the readings, so a run is undone by putting the calibrations back and running again.
CREATE TABLE iot.recalibrations (
    recalibration_id   bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sensor_id          uuid             NOT NULL REFERENCES iot.sensors ON DELETE CASCADE,
    range_start        timestamptz      NOT NULL,
    range_end          timestamptz      NOT NULL,
    progressed_to      timestamptz,
    rows_examined      bigint           NOT NULL DEFAULT 0,
    rows_changed       bigint           NOT NULL DEFAULT 0,
    minimum_difference double precision,
    maximum_difference double precision,
    mean_difference    double precision,
    started_by         text             NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    started_at         timestamptz      NOT NULL DEFAULT clock_timestamp(),
    finished_at        timestamptz,
    CHECK (range_start < range_end)
);
CREATE INDEX idx_recalibrations_sensor ON iot.recalibrations (sensor_id, started_at);
COMMENT ON TABLE iot.recalibrations IS 'Runs of iot.recalibrate(), which writes them.';
COMMENT ON COLUMN iot.recalibrations.recalibration_id IS 'Key; orders the runs.';
COMMENT ON SEQUENCE iot.recalibrations_recalibration_id_seq IS 'Numbers of the runs.';
COMMENT ON COLUMN iot.recalibrations.sensor_id IS 'The sensor.';
COMMENT ON COLUMN iot.recalibrations.range_start IS 'Time of the first reading that was meant.';
COMMENT ON COLUMN iot.recalibrations.range_end IS 'Time from which readings were not meant.';
COMMENT ON COLUMN iot.recalibrations.progressed_to IS 'Readings before it are done; NULL before the first batch.';
COMMENT ON COLUMN iot.recalibrations.rows_examined IS 'Readings looked at.';
COMMENT ON COLUMN iot.recalibrations.rows_changed IS 'Readings that changed.';
COMMENT ON COLUMN iot.recalibrations.minimum_difference IS 'Least difference of new and old value among those that changed.';
COMMENT ON COLUMN iot.recalibrations.maximum_difference IS 'Greatest difference.';
COMMENT ON COLUMN iot.recalibrations.mean_difference IS 'Mean difference.';
COMMENT ON COLUMN iot.recalibrations.started_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.recalibrations.started_at IS 'When it began.';
COMMENT ON COLUMN iot.recalibrations.finished_at IS 'When it ended; NULL while it runs, and for one that was interrupted.';
