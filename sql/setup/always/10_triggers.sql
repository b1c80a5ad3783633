-- Attaches the trigger functions of the extension to the tables, where DROP EXTENSION ... CASCADE took them away.
--
-- A trigger that is there already with its function is left alone, disabled or not, for CREATE TRIGGER locks out writers.
-- Hence a trigger whose clauses change in a later version is dropped by the migration that changes it, and made anew here.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    wanted record;
    history_was_kept boolean := true;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        -- Every table with updated_at.
        ('organizations', 'organizations_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('principals', 'principals_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('device_types', 'device_types_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('devices', 'devices_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('device_groups', 'device_groups_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('sensors', 'sensors_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('data_processing_rules', 'data_processing_rules_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('alert_rules', 'alert_rules_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('alerts', 'alerts_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),
        ('device_commands', 'device_commands_touch_updated_at', 'BEFORE UPDATE', 'FOR EACH ROW', 'touch_updated_at'),

        -- Organizations are a tree.
        ('organizations', 'organizations_lock_tree',
         'BEFORE UPDATE OF organization_id, parent_organization_id', 'FOR EACH STATEMENT', 'organizations_lock_tree'),
        ('organizations', 'organizations_refuse_cycle',
         'AFTER INSERT OR UPDATE OF organization_id, parent_organization_id', 'FOR EACH ROW', 'organizations_refuse_cycle'),

        -- Devices: types in use, names, the lifecycle, readings.
        ('device_types', 'device_types_refuse_delete_when_used',
         'BEFORE DELETE', 'FOR EACH ROW', 'device_types_refuse_delete_when_used'),
        ('devices', 'devices_before_insert',
         'BEFORE INSERT', 'FOR EACH ROW', 'devices_before_insert'),
        ('devices', 'devices_guard_status',
         'BEFORE UPDATE OF device_status', 'FOR EACH ROW WHEN (OLD.device_status IS DISTINCT FROM NEW.device_status)',
         'devices_guard_status'),
        ('devices', 'devices_record_first_status',
         'AFTER INSERT', 'FOR EACH ROW', 'devices_record_status'),
        ('devices', 'devices_record_status',
         'AFTER UPDATE OF device_status', 'FOR EACH ROW WHEN (OLD.device_status IS DISTINCT FROM NEW.device_status)',
         'devices_record_status'),
        ('devices', 'devices_refuse_delete',
         'BEFORE DELETE', 'FOR EACH ROW', 'devices_refuse_delete'),
        ('devices', 'devices_refuse_truncate',
         'BEFORE TRUNCATE', 'FOR EACH STATEMENT', 'devices_refuse_delete'),

        -- Sensors: readings, calibrations and their history.
        ('sensors', 'sensors_refuse_delete',
         'BEFORE DELETE', 'FOR EACH ROW', 'sensors_refuse_delete'),
        ('sensors', 'sensors_refuse_truncate',
         'BEFORE TRUNCATE', 'FOR EACH STATEMENT', 'sensors_refuse_delete'),
        ('sensors', 'sensors_refuse_identity_change',
         'BEFORE UPDATE OF sensor_id, device_id, sensor_type',
         'FOR EACH ROW WHEN (OLD.sensor_id <> NEW.sensor_id OR OLD.device_id <> NEW.device_id OR OLD.sensor_type <> NEW.sensor_type)',
         'sensors_refuse_identity_change'),
        ('sensors', 'sensors_validate',
         'BEFORE INSERT OR UPDATE OF calibration_data', 'FOR EACH ROW', 'sensors_validate'),
        ('sensors', 'sensors_validate_quality_limits',
         'BEFORE INSERT OR UPDATE OF quality_limits', 'FOR EACH ROW', 'sensors_validate_quality_limits'),
        ('sensors', 'sensors_validate_detector',
         'BEFORE INSERT OR UPDATE OF detector', 'FOR EACH ROW', 'sensors_validate_detector'),
        ('sensors', 'sensors_record_first_calibration',
         'AFTER INSERT', 'FOR EACH ROW', 'sensors_record_calibration'),
        ('sensors', 'sensors_record_calibration',
         'AFTER UPDATE OF calibration_data', 'FOR EACH ROW WHEN (OLD.calibration_data IS DISTINCT FROM NEW.calibration_data)',
         'sensors_record_calibration'),
        ('sensor_calibrations', 'sensor_calibrations_validate',
         'BEFORE INSERT OR UPDATE', 'FOR EACH ROW', 'sensor_calibrations_validate'),
        ('sensor_calibrations', 'sensor_calibrations_guard',
         'AFTER INSERT OR UPDATE', 'FOR EACH ROW', 'sensor_calibrations_guard'),

        -- Alert rules.
        ('alert_rules', 'alert_rules_validate',
         'BEFORE INSERT OR UPDATE', 'FOR EACH ROW', 'alert_rules_validate'),

        ('alerts', 'alerts_stamp_status',
         'BEFORE INSERT OR UPDATE OF alert_status', 'FOR EACH ROW', 'alerts_stamp_status'),

        -- Processing rules.
        ('data_processing_rules', 'data_processing_rules_validate',
         'BEFORE INSERT OR UPDATE', 'FOR EACH ROW', 'data_processing_rules_validate'),
        ('data_processing_rules', 'data_processing_rules_check',
         'AFTER INSERT OR UPDATE', 'FOR EACH ROW WHEN (NEW.is_active)', 'data_processing_rules_check'),
        ('data_processing_rules', 'data_processing_rules_forget',
         'AFTER DELETE', 'FOR EACH ROW', 'data_processing_rules_forget'),
        ('data_processing_rules', 'data_processing_rules_forget_truncate',
         'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'data_processing_rules_forget'),

        -- What every session keeps of the registry. Columns that change with each reading do not count.
        ('sensors', 'sensors_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('devices', 'devices_changed',
         'AFTER INSERT OR DELETE OR UPDATE OF device_id, device_type_id, organization_id, device_name, device_status',
         'FOR EACH ROW', 'registry_changed'),
        ('sensor_calibrations', 'sensor_calibrations_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('alert_rules', 'alert_rules_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('data_processing_rules', 'data_processing_rules_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('device_groups', 'device_groups_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('device_group_members', 'device_group_members_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'registry_changed'),
        ('organizations', 'organizations_changed',
         'AFTER INSERT OR DELETE OR UPDATE OF organization_id, parent_organization_id', 'FOR EACH ROW', 'registry_changed'),
        ('sensor_calibrations', 'sensor_calibrations_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'registry_changed'),
        ('alert_rules', 'alert_rules_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'registry_changed'),
        ('data_processing_rules', 'data_processing_rules_truncated',
         'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'registry_changed'),
        ('device_groups', 'device_groups_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'registry_changed'),
        ('device_group_members', 'device_group_members_truncated',
         'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'registry_changed'),

        -- Readings that did not come through the engine.
        ('sensor_data', 'sensor_data_changed',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'readings_changed'),
        ('sensor_data', 'sensor_data_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'readings_changed'),

        -- Dynamic groups: the lock, then what changes who is in them.
        ('devices', 'devices_lock_group_membership',
         'BEFORE INSERT OR DELETE OR UPDATE OF device_id, device_type_id, device_status, firmware_version, hardware_version, location, organization_id',
         'FOR EACH STATEMENT', 'lock_group_membership'),
        ('device_tags', 'device_tags_lock_group_membership',
         'BEFORE INSERT OR DELETE OR UPDATE', 'FOR EACH STATEMENT', 'lock_group_membership'),
        ('device_group_members', 'device_group_members_lock_group_membership',
         'BEFORE DELETE OR UPDATE', 'FOR EACH STATEMENT', 'lock_group_membership'),
        ('device_types', 'device_types_lock_group_membership',
         'BEFORE UPDATE OF device_type_name', 'FOR EACH STATEMENT', 'lock_group_membership'),
        ('device_groups', 'device_groups_lock_group_membership',
         'BEFORE INSERT OR DELETE OR UPDATE OF group_id, organization_id, group_predicate',
         'FOR EACH STATEMENT', 'lock_group_membership'),
        ('devices', 'devices_join_groups',
         'AFTER INSERT', 'FOR EACH ROW', 'devices_sync_groups'),
        ('devices', 'devices_sync_groups',
         'AFTER UPDATE OF device_type_id, device_status, firmware_version, hardware_version, location, organization_id',
         'FOR EACH ROW WHEN (OLD.device_type_id IS DISTINCT FROM NEW.device_type_id
                             OR OLD.device_status IS DISTINCT FROM NEW.device_status
                             OR OLD.firmware_version IS DISTINCT FROM NEW.firmware_version
                             OR OLD.hardware_version IS DISTINCT FROM NEW.hardware_version
                             OR OLD.location IS DISTINCT FROM NEW.location
                             OR OLD.organization_id IS DISTINCT FROM NEW.organization_id)',
         'devices_sync_groups'),
        ('device_tags', 'device_tags_sync_groups',
         'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'device_tags_sync_groups'),
        ('device_tags', 'device_tags_sync_groups_truncate',
         'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'device_tags_sync_groups'),
        ('device_types', 'device_types_sync_groups',
         'AFTER UPDATE OF device_type_name', 'FOR EACH ROW WHEN (OLD.device_type_name IS DISTINCT FROM NEW.device_type_name)',
         'device_types_sync_groups'),
        ('device_groups', 'device_groups_validate',
         'BEFORE INSERT OR UPDATE OF group_predicate', 'FOR EACH ROW', 'device_groups_validate'),
        ('device_groups', 'device_groups_find_devices',
         'AFTER INSERT', 'FOR EACH ROW WHEN (NEW.group_predicate IS NOT NULL)', 'device_groups_sync_devices'),
        ('device_groups', 'device_groups_sync_devices',
         'AFTER UPDATE OF organization_id, group_predicate',
         'FOR EACH ROW WHEN (OLD.organization_id IS DISTINCT FROM NEW.organization_id
                             OR OLD.group_predicate IS DISTINCT FROM NEW.group_predicate)',
         'device_groups_sync_devices'),
        ('device_group_members', 'device_group_members_guard_insert',
         'AFTER INSERT', 'FOR EACH ROW WHEN (NEW.is_dynamic)', 'device_group_members_guard'),
        ('device_group_members', 'device_group_members_guard',
         'AFTER DELETE OR UPDATE', 'FOR EACH ROW', 'device_group_members_guard'),
        ('device_group_members', 'device_group_members_guard_truncate',
         'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'device_group_members_guard')
    ) AS listed (table_name, trigger_name, event, level, function_name)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_trigger t
             WHERE t.tgrelid = format('iot.%I', wanted.table_name)::regclass
               AND t.tgname = wanted.trigger_name
               AND t.tgfoid = format('iot.%I()', wanted.function_name)::regprocedure);
        EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON iot.%I %s EXECUTE FUNCTION iot.%I()',
                       wanted.trigger_name, wanted.event, wanted.table_name, wanted.level, wanted.function_name);
        -- What replication applies makes caches and states untrue as well.
        IF wanted.function_name IN ('registry_changed', 'readings_changed') THEN
            EXECUTE format('ALTER TABLE iot.%I ENABLE ALWAYS TRIGGER %I', wanted.table_name, wanted.trigger_name);
        END IF;
        history_was_kept := history_was_kept AND wanted.trigger_name <> 'sensors_record_calibration';
    END LOOP;

    -- A TRUNCATE trigger of the parent does not see a TRUNCATE of a partition: each has its own.
    FOR wanted IN
        SELECT i.inhrelid::regclass AS partition FROM pg_inherits i
         WHERE i.inhparent = 'iot.sensor_data'::regclass
           AND NOT EXISTS (SELECT FROM pg_trigger t
                            WHERE t.tgrelid = i.inhrelid AND t.tgname = 'sensor_data_truncated')
    LOOP
        EXECUTE format('CREATE TRIGGER sensor_data_truncated AFTER TRUNCATE ON %s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION iot.readings_changed()', wanted.partition);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER sensor_data_truncated', wanted.partition);
    END LOOP;

    -- Calibrations that were changed while the triggers were away hold from now on.
    IF NOT history_was_kept THEN
        PERFORM iot.record_calibration(s.sensor_id, s.calibration_data)
           FROM iot.sensors s
           LEFT JOIN iot.sensor_calibrations c
             ON c.sensor_id = s.sensor_id AND c.valid_from <= clock_timestamp() AND c.valid_to > clock_timestamp()
          WHERE c.calibration_data IS DISTINCT FROM s.calibration_data;
    END IF;
END
$$;
