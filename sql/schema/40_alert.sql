-- Alert rules.

CREATE FUNCTION iot.evaluate_alert_condition(
    rule_conditions jsonb, sensor_value double precision, sensor_metadata jsonb DEFAULT '{}') RETURNS boolean
    STABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'evaluate_alert_condition_wrapper';
COMMENT ON FUNCTION iot.evaluate_alert_condition(jsonb, double precision, jsonb) IS
    'Whether all conditions hold: threshold_high, threshold_low, between, outside, metadata_check, time_window (clock: now()), and, or, not. NULL value gives NULL, unknown keys raise 22023.';

CREATE FUNCTION iot.check_alert_rules(
    sensor_uuid uuid, sensor_value double precision, sensor_metadata jsonb DEFAULT '{}') RETURNS uuid[]
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_alert_rules_wrapper';
COMMENT ON FUNCTION iot.check_alert_rules(uuid, double precision, jsonb) IS
    'Evaluates the active rules that cover the sensor and records the matches; returns the alerts opened or counted up.';

CREATE FUNCTION iot.validate_alert_rule(rule_conditions jsonb, message_template text, time_zone text) RETURNS void
    STABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'validate_alert_rule_wrapper';
COMMENT ON FUNCTION iot.validate_alert_rule(jsonb, text, text) IS
    'Raises 22023 unless the rule can be evaluated: known keys, numbers, time zones and message placeholders.';
