-- Views over what is newest. They show what the caller may see (security_invoker), not what their owner may, and are left
-- alone where they are there already.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
BEGIN
    -- Per sensor one backward scan of the primary key. Memory says where it starts: partitions after that time are pruned,
    -- those before it are never entered. Where memory cannot tell, the scan starts at the newest partition and finds the
    -- same row. The bound is computed once per sensor (OFFSET 0), so that pruning and index agree on it.
    IF to_regclass('iot.latest_readings') IS NULL THEN
        CREATE VIEW iot.latest_readings WITH (security_invoker = true) AS
        SELECT s.sensor_id,
               s.device_id,
               s.sensor_name,
               s.sensor_type,
               r.measurement_timestamp,
               r.measurement_value,
               r.text_value,
               r.boolean_value,
               r.json_value,
               r.measurement_unit,
               r.data_quality,
               r.is_anomaly,
               r.anomaly_score,
               r.received_at
          FROM iot.sensors s
         CROSS JOIN LATERAL (SELECT COALESCE(iot.latest_time_in_memory(s.sensor_id), 'infinity') OFFSET 0) AS b (newest)
         CROSS JOIN LATERAL (
               -- By name: the view must not keep the user's own columns from being dropped.
               SELECT c.measurement_timestamp, c.measurement_value, c.text_value, c.boolean_value, c.json_value,
                      c.measurement_unit, c.data_quality, c.is_anomaly, c.anomaly_score, c.received_at
                 FROM iot.sensor_data c
                WHERE c.sensor_id = s.sensor_id
                  AND c.measurement_timestamp <= b.newest
                  AND c.quality_flags & 64 = 0
                ORDER BY c.measurement_timestamp DESC
                LIMIT 1) AS r;
        COMMENT ON VIEW iot.latest_readings IS 'The newest reading of each sensor that has one, by time of measurement; readings flagged as from the future do not count.';
        COMMENT ON COLUMN iot.latest_readings.sensor_id IS 'The sensor.';
        COMMENT ON COLUMN iot.latest_readings.device_id IS 'Its device.';
        COMMENT ON COLUMN iot.latest_readings.sensor_name IS 'Its name.';
        COMMENT ON COLUMN iot.latest_readings.sensor_type IS 'What it measures.';
        COMMENT ON COLUMN iot.latest_readings.measurement_timestamp IS 'When it was measured.';
        COMMENT ON COLUMN iot.latest_readings.measurement_value IS 'Calibrated value; NULL for a reading that is not a number.';
        COMMENT ON COLUMN iot.latest_readings.text_value IS 'Value of a reading that is text.';
        COMMENT ON COLUMN iot.latest_readings.boolean_value IS 'Value of a reading that is yes or no.';
        COMMENT ON COLUMN iot.latest_readings.json_value IS 'Value of a reading that is a structure.';
        COMMENT ON COLUMN iot.latest_readings.measurement_unit IS 'Unit of measurement_value.';
        COMMENT ON COLUMN iot.latest_readings.data_quality IS 'valid, suspect or invalid.';
        COMMENT ON COLUMN iot.latest_readings.is_anomaly IS 'Whether it stands out of the sensor''s recent readings.';
        COMMENT ON COLUMN iot.latest_readings.anomaly_score IS 'How far it stands out, 0 to 5.';
        COMMENT ON COLUMN iot.latest_readings.received_at IS 'When it reached the server.';
    END IF;

    -- devices.last_seen_at is written down now and then, memory has what came since. Rows written past the engine are in
    -- neither: they are looked for where these two would call the device offline.
    IF to_regclass('iot.device_status') IS NULL THEN
        CREATE VIEW iot.device_status WITH (security_invoker = true) AS
        SELECT d.device_id,
               d.device_name,
               d.device_serial_number,
               t.device_type_name,
               d.organization_id,
               d.device_status,
               CASE WHEN GREATEST(heard.at, past.at) >= limits.since THEN 'online' ELSE 'offline' END AS connection,
               GREATEST(heard.at, past.at) AS last_seen_at,
               d.battery_level,
               d.firmware_version,
               sensor.sensors,
               (SELECT count(*) FROM iot.alerts a
                 WHERE a.device_id = d.device_id AND a.alert_status = 'active') AS active_alerts
          FROM iot.devices d
          LEFT JOIN iot.device_types t ON t.device_type_id = d.device_type_id
         CROSS JOIN LATERAL (
               SELECT count(*) AS sensors,
                      max(iot.last_received_in_memory(s.sensor_id)) AS received_at,
                      min(s.expected_interval) FILTER (WHERE s.sensor_status = 'active') AS expected_interval
                 FROM iot.sensors s
                WHERE s.device_id = d.device_id) AS sensor
         CROSS JOIN LATERAL (SELECT GREATEST(d.last_seen_at, sensor.received_at)) AS heard (at)
         CROSS JOIN LATERAL (
               SELECT now() - GREATEST(interval '1 hour', 3 * sensor.expected_interval)) AS limits (since)
          LEFT JOIN LATERAL (
               SELECT max(l.received_at)
                 FROM iot.latest_readings l
                WHERE l.device_id = d.device_id
                  AND (heard.at IS NULL OR heard.at < limits.since)) AS past (at) ON true;
        COMMENT ON VIEW iot.device_status IS 'How each device is now.';
        COMMENT ON COLUMN iot.device_status.device_id IS 'The device.';
        COMMENT ON COLUMN iot.device_status.device_name IS 'Display name.';
        COMMENT ON COLUMN iot.device_status.device_serial_number IS 'Serial number.';
        COMMENT ON COLUMN iot.device_status.device_type_name IS 'Model, if known.';
        COMMENT ON COLUMN iot.device_status.organization_id IS 'Tenant that owns it, if any.';
        COMMENT ON COLUMN iot.device_status.device_status IS 'Lifecycle: provisioning, active, maintenance, inactive or decommissioned.';
        COMMENT ON COLUMN iot.device_status.connection IS 'online: last seen within an hour, or within three times the shortest expected_interval of its active sensors; else offline, also when never seen.';
        COMMENT ON COLUMN iot.device_status.last_seen_at IS 'Last sign of life; NULL for none yet.';
        COMMENT ON COLUMN iot.device_status.battery_level IS 'Charge in percent.';
        COMMENT ON COLUMN iot.device_status.firmware_version IS 'Firmware that it runs.';
        COMMENT ON COLUMN iot.device_status.sensors IS 'Sensors that it carries.';
        COMMENT ON COLUMN iot.device_status.active_alerts IS 'Alerts about it whose alert_status is active.';
    END IF;
END
$$;
