-- How far back readings are accepted depends on retention rules, too.

CREATE TRIGGER retention_rule_changed AFTER INSERT OR UPDATE OR DELETE ON iot.retention_rule
    FOR EACH ROW EXECUTE FUNCTION iot.registry_changed();
ALTER TABLE iot.retention_rule ENABLE ALWAYS TRIGGER retention_rule_changed;
COMMENT ON TRIGGER retention_rule_changed ON iot.retention_rule IS 'Has every session read again how long readings are kept.';
