-- Triggers of alert rules.

CREATE FUNCTION iot.alert_rules_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    not_definition CONSTANT text[] := '{rule_version,is_active,description,created_by,created_at,updated_at}';
BEGIN
    IF num_nonnulls(NEW.sensor_id, NEW.device_id, NEW.sensor_type, NEW.device_type_id, NEW.group_id, NEW.organization_id) = 0
    THEN
        RAISE EXCEPTION 'alert rule "%" has no scope', NEW.rule_name
            USING ERRCODE = 'check_violation',
                  DETAIL = 'It does not say which sensors it watches.',
                  HINT = 'Set at least one of sensor_id, device_id, sensor_type, device_type_id, group_id and organization_id.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = 'alert_rules_scope_check';
    END IF;
    PERFORM iot.validate_alert_rule(NEW.rule_conditions, NEW.message_template, NEW.time_zone);
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - not_definition <> to_jsonb(OLD) - not_definition THEN
        NEW.rule_version := OLD.rule_version + 1;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.alert_rules_validate() IS 'Trigger: refuses a rule that could fail at ingest, and counts versions of its definition.';

CREATE FUNCTION iot.alerts_stamp_status() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    actor CONSTANT text := COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user);
BEGIN
    IF NEW.alert_status = 'acknowledged' AND NEW.acknowledged_at IS NULL THEN
        NEW.acknowledged_at := clock_timestamp();
        NEW.acknowledged_by := COALESCE(NEW.acknowledged_by, actor);
    ELSIF NEW.alert_status = 'resolved' AND NEW.resolved_at IS NULL THEN
        NEW.resolved_at := clock_timestamp();
        NEW.resolved_by := COALESCE(NEW.resolved_by, actor);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.alerts_stamp_status() IS 'Trigger: notes when and by whom an alert was acknowledged or resolved, where the statement does not say so.';
