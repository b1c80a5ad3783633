-- What devices and their agents say of themselves: many lines, wanted for days.
SET LOCAL search_path = pg_catalog, pg_temp;

-- No foreign key, as with readings: a line of a device that is gone still tells something, and each key costs locks.
CREATE TABLE iot.device_logs (
    log_timestamp   timestamptz NOT NULL DEFAULT clock_timestamp(),
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    log_id          uuid        NOT NULL,
    device_id       uuid        NOT NULL,
    organization_id uuid,
    log_level       text        NOT NULL DEFAULT 'info',
    service_name    text,
    message         text        NOT NULL,
    log_metadata    jsonb,
    PRIMARY KEY (device_id, log_timestamp, log_id),
    CONSTRAINT device_logs_level_check CHECK (log_level IN ('debug', 'info', 'warning', 'error', 'critical'))
) PARTITION BY RANGE (log_timestamp);
CREATE INDEX idx_device_logs_level ON iot.device_logs (log_level, log_timestamp DESC);
COMMENT ON TABLE iot.device_logs IS 'Log lines of devices, in daily partitions. How long they are kept is for a retention policy to say, for each level if you like.';
COMMENT ON COLUMN iot.device_logs.log_timestamp IS 'When the device wrote the line.';
COMMENT ON COLUMN iot.device_logs.received_at IS 'When it arrived.';
COMMENT ON COLUMN iot.device_logs.log_id IS 'Tells lines of the same moment apart.';
COMMENT ON COLUMN iot.device_logs.device_id IS 'The device.';
COMMENT ON COLUMN iot.device_logs.organization_id IS 'Tenant of the device then.';
COMMENT ON COLUMN iot.device_logs.log_level IS 'debug, info, warning, error or critical.';
COMMENT ON COLUMN iot.device_logs.service_name IS 'Program or part of the device that speaks.';
COMMENT ON COLUMN iot.device_logs.message IS 'The line.';
COMMENT ON COLUMN iot.device_logs.log_metadata IS 'Whatever came with it.';
COMMENT ON INDEX iot.idx_device_logs_level IS 'The errors of the last hours.';
COMMENT ON CONSTRAINT device_logs_level_check ON iot.device_logs IS 'Levels that retention and dashboards can count on.';

SELECT iot.manage_partitions('iot.device_logs', '1 day', premake => 7);
