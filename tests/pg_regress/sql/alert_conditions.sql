-- Conditions of alert rules, by themselves.
CREATE EXTENSION iot_ext;
SET TimeZone = 'UTC';

-- All keys of an object must hold.
SELECT value, iot.evaluate_alert_condition('{"threshold_high": 80}', value) AS high,
       iot.evaluate_alert_condition('{"threshold_low": 20}', value) AS low,
       iot.evaluate_alert_condition('{"between": [20, 80]}', value) AS between,
       iot.evaluate_alert_condition('{"outside": {"low": 20, "high": 80}}', value) AS outside
  FROM unnest(ARRAY[19.9, 20, 50, 80, 80.1, NULL]) AS value;

-- Nesting; numbers may be strings.
SELECT value, running, iot.evaluate_alert_condition(
           '{"or": [{"threshold_high": "90"}, {"and": [{"threshold_high": 70}, {"metadata_check": {"running": true}}]}],
             "not": {"metadata_check": {"muted": true}}}', value, jsonb_build_object('running', running)) AS matches
  FROM (VALUES (95, false), (75, false), (75, true), (60, true)) AS t (value, running);

-- No condition holds always; NULL says nothing; NULL metadata are empty.
SELECT iot.evaluate_alert_condition('{}', 1) AS nothing_asked, iot.evaluate_alert_condition('{}', NULL) AS no_value,
       iot.evaluate_alert_condition(NULL, 1) AS no_condition,
       iot.evaluate_alert_condition('{"metadata_check": {"a": 1}}', 1, NULL) AS no_metadata;

-- metadata_check is the operator @>.
SELECT metadata, iot.evaluate_alert_condition('{"metadata_check": {"fw": "1.4", "tags": ["a"]}}', 0, metadata) AS matches,
       metadata @> '{"fw": "1.4", "tags": ["a"]}' AS contains
  FROM unnest(ARRAY['{"fw": "1.4", "tags": ["b", "a"], "x": 1}', '{"fw": "1.5", "tags": ["a"]}', '{"fw": "1.4"}']::jsonb[]) AS metadata;

-- Refused, with what is known.
\set SHOW_CONTEXT never
SELECT iot.evaluate_alert_condition('{"treshold_high": 80}', 1);
SELECT iot.evaluate_alert_condition('{"or": [{"threshold_high": 80}, {"threshold_low": "cold"}]}', 1);
SELECT iot.evaluate_alert_condition('{"between": [80, 20]}', 1);
SELECT iot.evaluate_alert_condition('{"time_window": {"start": "8 o''clock", "end": "17:00"}}', 1);
SELECT iot.evaluate_alert_condition('{"time_window": {"start": "08:00", "end": "17:00", "timezone": "Mars/Base"}}', 1);
SELECT iot.evaluate_alert_condition('{"and": []}', 1);
SELECT iot.evaluate_alert_condition('[]', 1);
SELECT iot.evaluate_alert_condition('{"threshold_high": 1}', 'NaN');
