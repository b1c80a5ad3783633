-- What processing rules make of readings, and what they remember between them.
SET LOCAL search_path = pg_catalog, pg_temp;

COMMENT ON TABLE iot.data_processing_rules IS 'Rules that derive values from readings as they are stored; see iot.processed_data.';
COMMENT ON COLUMN iot.data_processing_rules.organization_id IS 'Scope: sensors of devices of this organization and those below it. All that is set must match; a rule without any scope covers every sensor.';
COMMENT ON COLUMN iot.data_processing_rules.sensor_id IS 'Scope: this sensor.';
COMMENT ON COLUMN iot.data_processing_rules.sensor_type IS 'Scope: sensors of this type.';
COMMENT ON COLUMN iot.data_processing_rules.device_type_id IS 'Scope: sensors of devices of this type.';
COMMENT ON COLUMN iot.data_processing_rules.rule_type IS 'scale, clamp, moving_average, difference or expression.';
COMMENT ON COLUMN iot.data_processing_rules.rule_definition IS 'Its parameters, as docs/processing.md lists them; checked when the rule is written.';
COMMENT ON COLUMN iot.data_processing_rules.execution_order IS 'Rules of the same reading run in this order, as far as they do not read each other.';
COMMENT ON COLUMN iot.data_processing_rules.rule_version IS 'Counts changes to what the rule does: description, is_active, created_by and times do not count. Kept by a trigger.';

-- Derived readings. Partitioned as the readings are, because they grow and are dropped as those are; the partition of a
-- new month is made on demand. The key is a natural one: a series has one value for a time, and the last result for it
-- wins (of two sensors that a rule reads at the same time, the second completes the picture). It begins with the device,
-- so that it serves "this output of this device over time" as well; the other index serves the same for a sensor.
-- As with readings there is no foreign key: results outlive their rule, and each key would cost locks on the way in.
CREATE TABLE iot.processed_data (
    measurement_timestamp timestamptz      NOT NULL,
    processed_at          timestamptz      NOT NULL DEFAULT clock_timestamp(),
    processed_value       double precision,
    device_id             uuid             NOT NULL,
    series_id             uuid             GENERATED ALWAYS AS (COALESCE(sensor_id, device_id)) STORED,
    processing_rule_id    uuid             NOT NULL,
    data_id               uuid             NOT NULL,
    rule_version          integer          NOT NULL,
    output_name           text             NOT NULL CHECK (output_name <> ''),
    sensor_id             uuid,
    organization_id       uuid,
    unit                  text,
    evaluation_error      text,
    PRIMARY KEY (device_id, output_name, measurement_timestamp, series_id),
    CONSTRAINT processed_data_result_check CHECK (num_nonnulls(processed_value, evaluation_error) = 1)
) PARTITION BY RANGE (measurement_timestamp);
CREATE INDEX idx_processed_data_sensor ON iot.processed_data (sensor_id, output_name, measurement_timestamp DESC)
    WHERE sensor_id IS NOT NULL;
COMMENT ON TABLE iot.processed_data IS 'What processing rules made of readings, partitioned by time of measurement.';
COMMENT ON COLUMN iot.processed_data.measurement_timestamp IS 'Time of the reading that the rule was run for.';
COMMENT ON COLUMN iot.processed_data.processed_at IS 'When it was computed.';
COMMENT ON COLUMN iot.processed_data.processed_value IS 'The result; NULL where the rule failed on this reading.';
COMMENT ON COLUMN iot.processed_data.device_id IS 'The device.';
COMMENT ON COLUMN iot.processed_data.series_id IS 'What the series is about: sensor_id, or device_id for one about the device as a whole. Computed; part of the key.';
COMMENT ON COLUMN iot.processed_data.processing_rule_id IS 'The rule; kept when the rule is deleted.';
COMMENT ON COLUMN iot.processed_data.data_id IS 'The reading that the rule was run for.';
COMMENT ON COLUMN iot.processed_data.rule_version IS 'Version of the rule then.';
COMMENT ON COLUMN iot.processed_data.output_name IS 'Name of the series: the key output of the rule, else the name of the rule.';
COMMENT ON COLUMN iot.processed_data.sensor_id IS 'The sensor; NULL for a result about the device as a whole.';
COMMENT ON COLUMN iot.processed_data.organization_id IS 'Tenant of the device then.';
COMMENT ON COLUMN iot.processed_data.unit IS 'Unit that the rule names; NULL where it names none.';
COMMENT ON COLUMN iot.processed_data.evaluation_error IS 'Why there is no value, such as a division by zero; NULL where there is one.';

-- What rules remember: one row per series, locked by the transaction that runs the rule until it ends. No foreign key: a
-- rule that is deleted at the moment of a reading must not cost the reading. Rows of deleted rules go by a trigger.
-- Half-empty pages keep updates, of which there is one per batch and series, off the index.
CREATE TABLE iot.processing_states (
    processing_rule_id uuid             NOT NULL,
    device_id          uuid             NOT NULL,
    sensor_id          uuid,
    series_id          uuid             GENERATED ALWAYS AS (COALESCE(sensor_id, device_id)) STORED,
    rule_version       integer          NOT NULL,
    state              bytea,
    last_output_at     timestamptz,
    last_output_value  double precision,
    updated_at         timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (processing_rule_id, device_id, series_id),
    CONSTRAINT processing_states_last_output_check CHECK (num_nonnulls(last_output_at, last_output_value) <> 1)
) WITH (fillfactor = 50);
COMMENT ON TABLE iot.processing_states IS 'What processing rules remember between readings. Deleting a row makes its series begin anew.';
COMMENT ON COLUMN iot.processing_states.processing_rule_id IS 'The rule.';
COMMENT ON COLUMN iot.processing_states.device_id IS 'The device.';
COMMENT ON COLUMN iot.processing_states.sensor_id IS 'The sensor; NULL for a series about the device as a whole.';
COMMENT ON COLUMN iot.processing_states.series_id IS 'sensor_id, or device_id for a series about the device as a whole. Computed; part of the key.';
COMMENT ON COLUMN iot.processing_states.rule_version IS 'Version of the rule that wrote it; another version begins anew.';
COMMENT ON COLUMN iot.processing_states.state IS 'Window of a moving average or last value of a difference, in a form of the extension''s own.';
COMMENT ON COLUMN iot.processing_states.last_output_at IS 'Time of the newest result, kept where rules of other sensors'' readings use it.';
COMMENT ON COLUMN iot.processing_states.last_output_value IS 'That result.';
COMMENT ON COLUMN iot.processing_states.updated_at IS 'When it was last written.';
