-- From rule to alert.
CREATE EXTENSION iot_ext;
SELECT iot.setup() IS NOT NULL AS ready;
INSERT INTO iot.devices (device_id, device_serial_number) VALUES ('00000000-0000-0000-0000-0000000000d1', 'OVEN-07');
INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)
VALUES ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-0000000000d1', 'chamber', 'temperature', 'degC');

INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity, message_template)
VALUES ('hot', 'temperature', '{"threshold_high": 200}', 'high', '{device_name}/{sensor_name}: {value} {unit} > {threshold} ({severity})'),
       ('night', 'temperature', '{"time_window": {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin"}}', 'info', '{rule_name} at {time}');

-- 20:30 UTC is 22:30 in Berlin in summer, 21:30 in winter.
SELECT count(iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', value, '{"door": "shut"}', at)) AS readings
  FROM (VALUES (180, timestamptz '2026-07-01 20:30+00'), (210, '2026-07-02 12:00+00'), (220.5, '2026-07-02 12:01+00'),
               (150, '2026-01-10 20:30+00')) AS t (value, at);
SELECT r.rule_name, a.severity, a.alert_status, a.message, a.threshold_value, a.actual_value, a.last_value, a.occurrences,
       a.measurement_timestamp, a.last_occurred_at, a.alert_metadata
  FROM iot.alerts a JOIN iot.alert_rules r USING (rule_id) ORDER BY r.rule_name;

-- The same reading again is a duplicate: nothing is stored, nothing counts.
SELECT count(iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', 999, measurement_timestamp => '2026-07-02 12:00+00'));
SELECT count(*) AS readings, max(measurement_value) FROM iot.sensor_data;
SELECT sum(occurrences) FROM iot.alerts;

-- An acknowledged alert is still open; a resolved one is history, and the next match is a new incident.
UPDATE iot.alerts SET alert_status = 'acknowledged', acknowledged_at = now() WHERE severity = 'high';
SELECT array_length(iot.check_alert_rules('00000000-0000-0000-0000-0000000000a1', 230, '{}'), 1) >= 1 AS matched;
UPDATE iot.alerts SET alert_status = 'resolved', resolved_at = now() WHERE severity = 'high';
SELECT array_length(iot.check_alert_rules('00000000-0000-0000-0000-0000000000a1', 240, '{}'), 1) >= 1 AS matched;
SELECT alert_status, actual_value, last_value, occurrences FROM iot.alerts WHERE severity = 'high' ORDER BY alert_timestamp;

-- A rule without scope, condition or meaning is refused when it is written.
\set SHOW_CONTEXT never
INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity) VALUES ('all', 'temperature', '{}', 'low');
INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity) VALUES ('typo', 'temperature', '{"treshold": 1}', 'low');
INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity, message_template)
VALUES ('words', 'temperature', '{"threshold_low": 1}', 'low', '{colour}');
\set VERBOSITY terse
INSERT INTO iot.alert_rules (rule_name, rule_conditions, severity) VALUES ('everywhere', '{"threshold_low": 1}', 'low');
INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity) VALUES ('loud', 'temperature', '{"threshold_low": 1}', 'deafening');
