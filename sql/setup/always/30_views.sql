-- Views over the tables. They show what the caller may see (security_invoker), not what their owner may.
--
-- A view that is there already is left alone: whatever replaces one in a later version is a migration. Those that ask no
-- function of the extension stay when it goes; the others come back here.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
BEGIN
    -- Who is in which group, computed. The document is built once per device (OFFSET 0), then held against each predicate.
    IF to_regclass('iot.device_group_membership') IS NULL THEN
        CREATE VIEW iot.device_group_membership WITH (security_invoker = true) AS
        SELECT m.group_id, m.device_id, m.is_dynamic
          FROM iot.device_group_members m
         WHERE NOT m.is_dynamic
        UNION ALL
        SELECT g.group_id, d.device_id, true
          FROM iot.devices d
         CROSS JOIN LATERAL (SELECT iot.device_document(d.device_id) OFFSET 0) AS described (document)
          JOIN iot.device_groups g
            ON described.document @> g.group_predicate
           AND (g.organization_id IS NULL OR g.organization_id = d.organization_id)
         WHERE NOT EXISTS (SELECT FROM iot.device_group_members m
                            WHERE m.group_id = g.group_id AND m.device_id = d.device_id AND NOT m.is_dynamic);
        -- The stored form may have missed something while the triggers were away.
        PERFORM iot.sync_devices_of_group(g.group_id) FROM iot.device_groups g;
        COMMENT ON VIEW iot.device_group_membership IS 'Members of device groups, dynamic ones computed from the predicates; iot.device_group_members is its stored form.';
        COMMENT ON COLUMN iot.device_group_membership.group_id IS 'The group.';
        COMMENT ON COLUMN iot.device_group_membership.device_id IS 'The device.';
        COMMENT ON COLUMN iot.device_group_membership.is_dynamic IS 'Whether the predicate makes it a member, not someone by name.';
    END IF;

    IF to_regclass('iot.sensor_hourly_aggregates') IS NULL THEN
        CREATE VIEW iot.sensor_hourly_aggregates WITH (security_invoker = true) AS
        SELECT r.sensor_id,
               r.hour_bucket,
               count(*) AS measurement_count,
               -- Sums and squares of values beyond this leave double precision, which PostgreSQL answers with an ERROR.
               avg(r.measurement_value) FILTER (WHERE r.measurement_value BETWEEN -1e150 AND 1e150) AS avg_value,
               min(r.measurement_value) AS min_value,
               max(r.measurement_value) AS max_value,
               stddev_samp(r.measurement_value) FILTER (WHERE r.measurement_value BETWEEN -1e150 AND 1e150) AS value_stddev,
               avg((r.data_quality = 'valid')::integer) AS data_quality_ratio,
               count(*) FILTER (WHERE r.is_anomaly) AS anomaly_count
          FROM iot.sensor_data r
         GROUP BY r.sensor_id, r.hour_bucket;
        COMMENT ON VIEW iot.sensor_hourly_aggregates IS 'Readings of each sensor by the hour, over all that is stored.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.sensor_id IS 'The sensor.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.hour_bucket IS 'Start of the hour (UTC).';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.measurement_count IS 'Readings.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.avg_value IS 'Mean of the values between -1e150 and 1e150.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.min_value IS 'Least value.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.max_value IS 'Greatest value.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.value_stddev IS 'Sample standard deviation of the values between -1e150 and 1e150; NULL for a single one.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.data_quality_ratio IS 'Share of readings whose data_quality is valid, 0 to 1.';
        COMMENT ON COLUMN iot.sensor_hourly_aggregates.anomaly_count IS 'Readings flagged as anomalies.';
    END IF;

    -- Days are those of the session's time zone.
    IF to_regclass('iot.iot_operations_dashboard') IS NULL THEN
        CREATE VIEW iot.iot_operations_dashboard WITH (security_invoker = true) AS
        SELECT device.active_devices,
               -- Readings do not write last_seen_at each time: a recent one is a sign of life as well.
               (SELECT count(*)
                  FROM iot.devices d
                 WHERE d.device_status IN ('active', 'maintenance')
                   AND (d.last_seen_at IS NULL OR d.last_seen_at < now() - interval '1 hour')
                   AND NOT EXISTS (SELECT FROM iot.sensor_data r
                                    WHERE r.device_id = d.device_id
                                      AND r.measurement_timestamp >= now() - interval '1 hour'
                                      AND r.received_at >= now() - interval '1 hour')) AS offline_devices,
               device.avg_battery_level,
               today.todays_measurements,
               today.todays_anomalies,
               alert.active_alerts,
               alert.todays_alerts,
               alert.avg_resolution_hours,
               (SELECT count(*) FROM iot.device_commands c WHERE c.execution_status = 'pending') AS pending_commands,
               (SELECT count(*) FROM iot.data_processing_rules p WHERE p.is_active) AS active_processing_rules
          FROM (SELECT count(*) FILTER (WHERE d.device_status = 'active') AS active_devices,
                       avg(d.battery_level) AS avg_battery_level
                  FROM iot.devices d) AS device,
               (SELECT count(*) AS todays_measurements,
                       count(*) FILTER (WHERE r.is_anomaly) AS todays_anomalies
                  FROM iot.sensor_data r
                 WHERE r.measurement_timestamp >= date_trunc('day', now())
                   AND r.measurement_timestamp < date_trunc('day', now()) + interval '1 day') AS today,
               (SELECT count(*) FILTER (WHERE a.alert_status = 'active') AS active_alerts,
                       count(*) FILTER (WHERE a.alert_timestamp >= date_trunc('day', now())) AS todays_alerts,
                       avg(EXTRACT(epoch FROM a.resolved_at - a.alert_timestamp) / 3600)
                           FILTER (WHERE a.alert_timestamp >= date_trunc('day', now())) AS avg_resolution_hours
                  FROM iot.alerts a
                 WHERE a.alert_status = 'active' OR a.alert_timestamp >= date_trunc('day', now())) AS alert;
        COMMENT ON VIEW iot.iot_operations_dashboard IS 'The state of things in one row; days are those of the session''s time zone.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.active_devices IS 'Devices whose device_status is active.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.offline_devices IS 'Devices active or in maintenance without a sign of life (last_seen_at or a reading) for an hour, or ever.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.avg_battery_level IS 'Mean charge in percent of devices that report one.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.todays_measurements IS 'Readings measured today.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.todays_anomalies IS 'Those among them flagged as anomalies.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.active_alerts IS 'Alerts whose alert_status is active.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.todays_alerts IS 'Alerts raised today.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.avg_resolution_hours IS 'Mean time from raising to resolving today''s alerts that are resolved; NULL without any.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.pending_commands IS 'Commands that wait to be sent.';
        COMMENT ON COLUMN iot.iot_operations_dashboard.active_processing_rules IS 'Data processing rules in force.';
    END IF;
END
$$;
