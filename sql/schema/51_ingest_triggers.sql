-- Triggers that keep caches and states true to the tables. All are attached ENABLE ALWAYS: what replication applies counts.

CREATE FUNCTION iot.registry_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_registry_changed';
COMMENT ON FUNCTION iot.registry_changed() IS
    'Trigger: tells every session that what it keeps of this table is no longer true.';

CREATE FUNCTION iot.readings_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'iot_readings_changed';
COMMENT ON FUNCTION iot.readings_changed() IS
    'Trigger: readings written by plain SQL make the statistics of their sensor be read anew.';

CREATE TRIGGER partition_policy_changed AFTER INSERT OR UPDATE OR DELETE ON iot.partition_policy
    FOR EACH ROW EXECUTE FUNCTION iot.registry_changed();
ALTER TABLE iot.partition_policy ENABLE ALWAYS TRIGGER partition_policy_changed;
