-- Alert rules, and the alerts they raise.
SET LOCAL search_path = pg_catalog, pg_temp;

-- What is watched. A rule goes with the sensor or device it is about: left without that scope it would match more than
-- it was written for. Types, groups and organizations are shared, so rules about them must be dealt with first. The
-- indexes are for finding rules at ingest; rules are few enough to check the foreign keys without more.
CREATE TABLE iot.alert_rules (
    rule_id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    rule_name        text        NOT NULL CHECK (rule_name <> ''),
    description      text,
    sensor_id        uuid        REFERENCES iot.sensors ON DELETE CASCADE,
    device_id        uuid        REFERENCES iot.devices ON DELETE CASCADE,
    sensor_type      text,
    device_type_id   uuid        REFERENCES iot.device_types,
    group_id         uuid        REFERENCES iot.device_groups,
    organization_id  uuid        REFERENCES iot.organizations,
    rule_conditions  jsonb       NOT NULL,
    severity         text        NOT NULL CHECK (severity IN ('info', 'low', 'medium', 'warning', 'high', 'critical')),
    alert_type       text        NOT NULL DEFAULT 'threshold' CHECK (alert_type <> ''),
    message_template text        NOT NULL DEFAULT '{rule_name}: {sensor_name} is {value} {unit}',
    time_zone        text,
    is_active        boolean     NOT NULL DEFAULT true,
    rule_version     integer     NOT NULL DEFAULT 1,
    created_by       text        NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT alert_rules_scope_check
        CHECK (num_nonnulls(sensor_id, device_id, sensor_type, device_type_id, group_id, organization_id) >= 1)
);
CREATE INDEX idx_alert_rules_sensor ON iot.alert_rules (sensor_id) WHERE is_active;
CREATE INDEX idx_alert_rules_device ON iot.alert_rules (device_id) WHERE is_active;
CREATE INDEX idx_alert_rules_sensor_type ON iot.alert_rules (sensor_type) WHERE is_active;
CREATE INDEX idx_alert_rules_device_type ON iot.alert_rules (device_type_id) WHERE is_active;
CREATE INDEX idx_alert_rules_group ON iot.alert_rules (group_id) WHERE is_active;
CREATE INDEX idx_alert_rules_organization ON iot.alert_rules (organization_id) WHERE is_active;
COMMENT ON TABLE iot.alert_rules IS 'Alert rules: which readings raise an alert.';
COMMENT ON COLUMN iot.alert_rules.rule_id IS 'Key.';
COMMENT ON COLUMN iot.alert_rules.rule_name IS 'Display name.';
COMMENT ON COLUMN iot.alert_rules.description IS 'Text for people.';
COMMENT ON COLUMN iot.alert_rules.sensor_id IS 'Scope: this sensor. At least one scope is set, and all that are set must match.';
COMMENT ON COLUMN iot.alert_rules.device_id IS 'Scope: sensors of this device.';
COMMENT ON COLUMN iot.alert_rules.sensor_type IS 'Scope: sensors of this type.';
COMMENT ON COLUMN iot.alert_rules.device_type_id IS 'Scope: sensors of devices of this type.';
COMMENT ON COLUMN iot.alert_rules.group_id IS 'Scope: sensors of devices in this group.';
COMMENT ON COLUMN iot.alert_rules.organization_id IS 'Scope: sensors of devices of this organization and those below it.';
COMMENT ON COLUMN iot.alert_rules.rule_conditions IS 'What must hold, as iot.evaluate_alert_condition() takes it; checked when the rule is written.';
COMMENT ON COLUMN iot.alert_rules.severity IS 'info, low, medium, warning, high or critical.';
COMMENT ON COLUMN iot.alert_rules.alert_type IS 'Kind of alert that it raises.';
COMMENT ON COLUMN iot.alert_rules.message_template IS 'Message of its alerts, with placeholders in braces such as {value}.';
COMMENT ON COLUMN iot.alert_rules.time_zone IS 'Zone of time windows that name none; NULL means the database''s.';
COMMENT ON COLUMN iot.alert_rules.is_active IS 'Whether readings are matched against it.';
COMMENT ON COLUMN iot.alert_rules.rule_version IS 'Counts changes to what the rule does: created_by, description, is_active and times do not count. Kept by a trigger.';
COMMENT ON COLUMN iot.alert_rules.created_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.alert_rules.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.alert_rules.updated_at IS 'When the row last changed; kept by a trigger.';

-- What was found: one open alert per rule and sensor, on which repeated matches count.
-- An alert is history and outlives what it is about. Its rule, sensor, device, organization and reading are therefore
-- plain values without foreign key: RESTRICT would tie up the registry, SET NULL would erase what the alert was about, and
-- a rule that is deleted at the moment of a match must not cost the reading.
CREATE TABLE iot.alerts (
    alert_id              uuid             PRIMARY KEY DEFAULT gen_random_uuid(),
    rule_id               uuid,
    rule_version          integer,
    sensor_id             uuid,
    device_id             uuid,
    organization_id       uuid,
    alert_type            text             NOT NULL DEFAULT 'threshold',
    severity              text             NOT NULL CHECK (severity IN ('info', 'low', 'medium', 'warning', 'high', 'critical')),
    alert_status          text             NOT NULL DEFAULT 'active'
                                           CHECK (alert_status IN ('active', 'acknowledged', 'resolved', 'suppressed')),
    message               text             NOT NULL,
    threshold_value       double precision,
    actual_value          double precision,
    last_value            double precision,
    occurrences           bigint           NOT NULL DEFAULT 1 CHECK (occurrences >= 1),
    alert_timestamp       timestamptz      NOT NULL DEFAULT clock_timestamp(),
    last_occurred_at      timestamptz      NOT NULL DEFAULT clock_timestamp(),
    measurement_timestamp timestamptz,
    data_id               uuid,
    acknowledged_at       timestamptz,
    acknowledged_by       text,
    resolved_at           timestamptz,
    resolved_by           text,
    alert_metadata        jsonb            NOT NULL DEFAULT '{}',
    created_at            timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at            timestamptz      NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX idx_alerts_open ON iot.alerts (rule_id, sensor_id) WHERE alert_status <> 'resolved';
CREATE INDEX idx_alerts_rule_id ON iot.alerts (rule_id);
CREATE INDEX idx_alerts_sensor_id ON iot.alerts (sensor_id, alert_timestamp DESC);
CREATE INDEX idx_alerts_device_id ON iot.alerts (device_id, alert_timestamp DESC);
CREATE INDEX idx_alerts_organization_id ON iot.alerts (organization_id, alert_timestamp DESC);
CREATE INDEX idx_alerts_status ON iot.alerts (alert_status) WHERE alert_status <> 'resolved';
CREATE INDEX idx_alerts_severity ON iot.alerts (severity);
CREATE INDEX idx_alerts_alert_timestamp ON iot.alerts (alert_timestamp DESC);
CREATE INDEX idx_alerts_metadata ON iot.alerts USING gin (alert_metadata);
COMMENT ON TABLE iot.alerts IS 'Alerts: what the rules found.';
COMMENT ON COLUMN iot.alerts.alert_id IS 'Key.';
COMMENT ON COLUMN iot.alerts.rule_id IS 'Rule that raised it; kept when the rule is deleted.';
COMMENT ON COLUMN iot.alerts.rule_version IS 'Version of the rule then.';
COMMENT ON COLUMN iot.alerts.sensor_id IS 'Sensor whose reading matched.';
COMMENT ON COLUMN iot.alerts.device_id IS 'Device of that sensor.';
COMMENT ON COLUMN iot.alerts.organization_id IS 'Tenant of that device then.';
COMMENT ON COLUMN iot.alerts.alert_type IS 'Kind of alert, from the rule.';
COMMENT ON COLUMN iot.alerts.severity IS 'info, low, medium, warning, high or critical, from the rule.';
COMMENT ON COLUMN iot.alerts.alert_status IS 'active, acknowledged, resolved or suppressed; all but resolved are open.';
COMMENT ON COLUMN iot.alerts.message IS 'Text for people.';
COMMENT ON COLUMN iot.alerts.threshold_value IS 'Bound that the value crossed, where the rule has one.';
COMMENT ON COLUMN iot.alerts.actual_value IS 'Value that raised it.';
COMMENT ON COLUMN iot.alerts.last_value IS 'Value that last matched.';
COMMENT ON COLUMN iot.alerts.occurrences IS 'How often it matched since it was raised.';
COMMENT ON COLUMN iot.alerts.alert_timestamp IS 'When it was raised.';
COMMENT ON COLUMN iot.alerts.last_occurred_at IS 'Time of the newest reading that matched.';
COMMENT ON COLUMN iot.alerts.measurement_timestamp IS 'Time of the reading that raised it.';
COMMENT ON COLUMN iot.alerts.data_id IS 'The reading that raised it, where one was stored.';
COMMENT ON COLUMN iot.alerts.acknowledged_at IS 'When someone took it on.';
COMMENT ON COLUMN iot.alerts.acknowledged_by IS 'Who took it on.';
COMMENT ON COLUMN iot.alerts.resolved_at IS 'When it was over.';
COMMENT ON COLUMN iot.alerts.resolved_by IS 'Who declared it over.';
COMMENT ON COLUMN iot.alerts.alert_metadata IS 'Metadata of the reading that raised it, and what the application adds.';
COMMENT ON COLUMN iot.alerts.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.alerts.updated_at IS 'When the row last changed; kept by a trigger.';
