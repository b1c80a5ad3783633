-- Alerts about the database itself: one open alert for each finding.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE UNIQUE INDEX idx_alerts_system_health ON iot.alerts ((alert_metadata ->> 'check'), (alert_metadata ->> 'subject'))
    WHERE alert_type = 'system_health' AND alert_status <> 'resolved';
COMMENT ON INDEX iot.idx_alerts_system_health IS 'One open alert for each check and subject; see iot.check_health().';
