-- Readings, those that were refused, and the rules that transform them.
SET LOCAL search_path = pg_catalog, pg_temp;

-- The readings. Partitions are made by iot.setup() and on demand, other indexes by iot.setup() as its index policy says.
-- No foreign key and no default partition: each costs exclusive locks and rows on the way in. Columns are ordered for
-- size (fixed width first, in falling alignment): name them in every INSERT and COPY.
CREATE TABLE iot.sensor_data (
    measurement_timestamp timestamptz      NOT NULL DEFAULT clock_timestamp(),
    received_at           timestamptz      NOT NULL DEFAULT clock_timestamp(),
    hour_bucket           timestamptz      GENERATED ALWAYS AS
                                           (date_bin('1 hour', measurement_timestamp, timestamptz '2000-01-01 00:00+00')) STORED,
    anomaly_score         double precision NOT NULL DEFAULT 0,
    data_id               uuid             NOT NULL,
    sensor_id             uuid             NOT NULL,
    device_id             uuid             NOT NULL,
    quality_flags         integer          NOT NULL DEFAULT 0,
    is_anomaly            boolean          NOT NULL DEFAULT false,
    is_onset              boolean          NOT NULL DEFAULT false,
    boolean_value         boolean,
    measurement_value     double precision,
    raw_value             double precision,
    organization_id       uuid,
    data_quality          text             NOT NULL DEFAULT 'valid' CHECK (data_quality IN ('valid', 'suspect', 'invalid')),
    measurement_unit      text,
    sensor_type           text,
    measurement_metadata  jsonb            NOT NULL DEFAULT '{}',
    text_value            text,
    json_value            jsonb,
    PRIMARY KEY (sensor_id, measurement_timestamp)
) PARTITION BY RANGE (measurement_timestamp);
COMMENT ON TABLE iot.sensor_data IS 'Readings, partitioned by time of measurement.';
COMMENT ON COLUMN iot.sensor_data.data_id IS 'Identifies the reading; increases with time.';
COMMENT ON COLUMN iot.sensor_data.sensor_id IS 'The sensor.';
COMMENT ON COLUMN iot.sensor_data.device_id IS 'The sensor''s device.';
COMMENT ON COLUMN iot.sensor_data.measurement_timestamp IS 'When it was measured.';
COMMENT ON COLUMN iot.sensor_data.measurement_value IS 'Calibrated value; NULL for a reading that is not a number.';
COMMENT ON COLUMN iot.sensor_data.measurement_unit IS 'Unit of measurement_value.';
COMMENT ON COLUMN iot.sensor_data.data_quality IS 'valid, suspect or invalid.';
COMMENT ON COLUMN iot.sensor_data.is_anomaly IS 'Whether it stands out of the sensor''s recent readings.';
COMMENT ON COLUMN iot.sensor_data.anomaly_score IS 'How far it stands out, 0 to 5.';
COMMENT ON COLUMN iot.sensor_data.measurement_metadata IS 'What the device said beside the value.';
COMMENT ON COLUMN iot.sensor_data.hour_bucket IS 'Start of the hour (UTC) of measurement_timestamp.';
COMMENT ON COLUMN iot.sensor_data.received_at IS 'When it reached the server.';
COMMENT ON COLUMN iot.sensor_data.raw_value IS 'Value as the device sent it, where calibration changed it.';
COMMENT ON COLUMN iot.sensor_data.quality_flags IS 'Reasons for data_quality as bits; iot.quality_reasons() spells them out.';
COMMENT ON COLUMN iot.sensor_data.organization_id IS 'Tenant of the device when it was received.';
COMMENT ON COLUMN iot.sensor_data.sensor_type IS 'What the sensor measures.';
COMMENT ON COLUMN iot.sensor_data.is_onset IS 'Whether an anomaly begins here.';
COMMENT ON COLUMN iot.sensor_data.text_value IS 'Value of a reading that is text.';
COMMENT ON COLUMN iot.sensor_data.boolean_value IS 'Value of a reading that is yes or no.';
COMMENT ON COLUMN iot.sensor_data.json_value IS 'Value of a reading that is a structure.';

-- Readings that could not be accepted, with everything needed to mend and replay them.
CREATE TABLE iot.rejected_readings (
    rejection_id          uuid             PRIMARY KEY,
    received_at           timestamptz      NOT NULL DEFAULT clock_timestamp(),
    sensor_id             uuid,
    device_id             uuid,
    measurement_timestamp timestamptz,
    measurement_value     double precision,
    reading               jsonb            NOT NULL,
    reason                text             NOT NULL,
    sqlstate              text             NOT NULL CHECK (char_length(sqlstate) = 5),
    message               text             NOT NULL,
    replayed_at           timestamptz
);
CREATE INDEX idx_rejected_readings_received ON iot.rejected_readings (received_at);
CREATE INDEX idx_rejected_readings_sensor ON iot.rejected_readings (sensor_id, received_at);
COMMENT ON TABLE iot.rejected_readings IS 'Readings that could not be accepted.';
COMMENT ON COLUMN iot.rejected_readings.rejection_id IS 'Key; increases with time.';
COMMENT ON COLUMN iot.rejected_readings.received_at IS 'When it reached the server.';
COMMENT ON COLUMN iot.rejected_readings.sensor_id IS 'Sensor that it named, registered or not.';
COMMENT ON COLUMN iot.rejected_readings.device_id IS 'Device that it named or that carries the sensor.';
COMMENT ON COLUMN iot.rejected_readings.measurement_timestamp IS 'Time that it named, where it could be read.';
COMMENT ON COLUMN iot.rejected_readings.measurement_value IS 'Value that it named, where it could be read.';
COMMENT ON COLUMN iot.rejected_readings.reading IS 'The reading as it came.';
COMMENT ON COLUMN iot.rejected_readings.reason IS 'Why, in one word, such as too_old.';
COMMENT ON COLUMN iot.rejected_readings.sqlstate IS 'SQLSTATE that a single call would have raised.';
COMMENT ON COLUMN iot.rejected_readings.message IS 'Message that a single call would have raised.';
COMMENT ON COLUMN iot.rejected_readings.replayed_at IS 'When it was offered again; NULL for one that was not.';

-- Rules that transform readings on their way in. A rule about a sensor goes with it, other scopes must be freed first.
CREATE TABLE iot.data_processing_rules (
    processing_rule_id uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    rule_name          text        NOT NULL CHECK (rule_name <> ''),
    description        text,
    organization_id    uuid        REFERENCES iot.organizations,
    sensor_id          uuid        REFERENCES iot.sensors ON DELETE CASCADE,
    sensor_type        text,
    device_type_id     uuid        REFERENCES iot.device_types,
    rule_type          text        NOT NULL CHECK (rule_type <> ''),
    rule_definition    jsonb       NOT NULL CHECK (jsonb_typeof(rule_definition) = 'object'),
    execution_order    integer     NOT NULL DEFAULT 0,
    rule_version       integer     NOT NULL DEFAULT 1,
    is_active          boolean     NOT NULL DEFAULT true,
    created_by         text        NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_data_processing_rules_organization ON iot.data_processing_rules (organization_id);
CREATE INDEX idx_data_processing_rules_sensor ON iot.data_processing_rules (sensor_id);
CREATE INDEX idx_data_processing_rules_sensor_type ON iot.data_processing_rules (sensor_type);
CREATE INDEX idx_data_processing_rules_device_type ON iot.data_processing_rules (device_type_id);
COMMENT ON TABLE iot.data_processing_rules IS 'Rules that transform readings on their way in.';
COMMENT ON COLUMN iot.data_processing_rules.processing_rule_id IS 'Key.';
COMMENT ON COLUMN iot.data_processing_rules.rule_name IS 'Display name.';
COMMENT ON COLUMN iot.data_processing_rules.description IS 'Text for people.';
COMMENT ON COLUMN iot.data_processing_rules.organization_id IS 'Scope: readings of this organization. All that is set must match.';
COMMENT ON COLUMN iot.data_processing_rules.sensor_id IS 'Scope: readings of this sensor.';
COMMENT ON COLUMN iot.data_processing_rules.sensor_type IS 'Scope: readings of sensors of this type.';
COMMENT ON COLUMN iot.data_processing_rules.device_type_id IS 'Scope: readings of devices of this type.';
COMMENT ON COLUMN iot.data_processing_rules.rule_type IS 'Kind of transformation.';
COMMENT ON COLUMN iot.data_processing_rules.rule_definition IS 'Its parameters.';
COMMENT ON COLUMN iot.data_processing_rules.execution_order IS 'Rules of the same reading run in this order.';
COMMENT ON COLUMN iot.data_processing_rules.rule_version IS 'Version of the definition.';
COMMENT ON COLUMN iot.data_processing_rules.is_active IS 'Whether the rule is applied.';
COMMENT ON COLUMN iot.data_processing_rules.created_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.data_processing_rules.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.data_processing_rules.updated_at IS 'When the row last changed; kept by a trigger.';
