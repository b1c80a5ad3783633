-- Processing rules: checking them when they are written. They run in the ingest pipeline.

CREATE FUNCTION iot.validate_processing_rule(rule_name text, rule_type text, rule_definition jsonb) RETURNS void
    IMMUTABLE PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'validate_processing_rule_wrapper';
COMMENT ON FUNCTION iot.validate_processing_rule(text, text, jsonb) IS
    'Raises 22023 unless the definition can be run: known type and keys, numbers in range, an expression that compiles.';

CREATE FUNCTION iot.check_processing_rule(rule_uuid uuid) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_processing_rule_wrapper';
COMMENT ON FUNCTION iot.check_processing_rule(uuid) IS
    'Raises 22023 if the active rule is part of a loop, or its output collides with that of another, on one of up to 1000 devices in its scope; for a rule about one sensor also if something that it refers to is missing.';

CREATE FUNCTION iot.data_processing_rules_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    not_definition CONSTANT text[] := '{rule_version,is_active,description,created_by,created_at,updated_at}';
BEGIN
    PERFORM iot.validate_processing_rule(NEW.rule_name, NEW.rule_type, NEW.rule_definition);
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - not_definition <> to_jsonb(OLD) - not_definition THEN
        NEW.rule_version := OLD.rule_version + 1;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_validate() IS 'Trigger: refuses a processing rule that could not run, and counts versions of its definition.';

-- Runs after the rows are in place, so that one statement may write rules that read each other.
CREATE FUNCTION iot.data_processing_rules_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.check_processing_rule(NEW.processing_rule_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_check() IS 'Trigger: refuses processing rules that read each other in a loop.';

CREATE FUNCTION iot.data_processing_rules_forget() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM iot.processing_states;
    ELSE
        DELETE FROM iot.processing_states s WHERE s.processing_rule_id = OLD.processing_rule_id;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.data_processing_rules_forget() IS 'Trigger: deletes what a processing rule remembers together with the rule.';
