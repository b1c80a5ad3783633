-- Dynamic device groups: the document that predicates ask, and the triggers that keep iot.device_group_members, the
-- stored membership, equal to the view iot.device_group_membership, the computed one.
--
-- Locks: whoever changes what belongs to one device (the device, its tags, its memberships) takes the membership lock
-- shared, and whoever changes what concerns many (groups, names of device types) takes it exclusive, both before the
-- statement takes any row. So neither side computes with rows that the other has not committed. Changes to the same
-- device wait for each other at its row.

CREATE FUNCTION iot.device_document(device_uuid uuid) RETURNS jsonb
    STABLE STRICT PARALLEL SAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
                   'device_type', t.device_type_name,
                   'device_status', d.device_status,
                   'firmware_version', d.firmware_version,
                   'hardware_version', d.hardware_version,
                   'location', d.location,
                   'organization_id', d.organization_id,
                   'tags', COALESCE((SELECT jsonb_object_agg(g.tag_key, g.tag_value)
                                       FROM iot.device_tags g WHERE g.device_id = d.device_id), '{}'))
          FROM iot.devices d
          LEFT JOIN iot.device_types t ON t.device_type_id = d.device_type_id
         WHERE d.device_id = device_uuid);
END
$$;
COMMENT ON FUNCTION iot.device_document(uuid) IS
    'What a group predicate can ask of a device: device_type (name), device_status, firmware_version, hardware_version, location, organization_id and tags; NULL for an unknown device.';

CREATE FUNCTION iot.sync_groups_of_device(device_uuid uuid) RETURNS void
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT v.group_id FROM iot.device_group_membership v WHERE v.device_id = device_uuid AND v.is_dynamic
    ), gone AS (
        DELETE FROM iot.device_group_members m
         WHERE m.device_id = device_uuid AND m.is_dynamic AND m.group_id NOT IN (SELECT f.group_id FROM found f)
    )
    INSERT INTO iot.device_group_members (group_id, device_id, is_dynamic)
    SELECT f.group_id, device_uuid, true FROM found f
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION iot.sync_groups_of_device(uuid) IS 'Brings the stored dynamic memberships of a device in line with the computed ones; called by triggers.';

CREATE FUNCTION iot.sync_devices_of_group(group_uuid uuid) RETURNS void
    VOLATILE STRICT PARALLEL UNSAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT v.device_id FROM iot.device_group_membership v WHERE v.group_id = group_uuid AND v.is_dynamic
    ), gone AS (
        DELETE FROM iot.device_group_members m
         WHERE m.group_id = group_uuid AND m.is_dynamic AND m.device_id NOT IN (SELECT f.device_id FROM found f)
    )
    INSERT INTO iot.device_group_members (group_id, device_id, is_dynamic)
    SELECT group_uuid, f.device_id, true FROM found f
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION iot.sync_devices_of_group(uuid) IS 'Brings the stored dynamic members of a group in line with the computed ones; called by triggers.';

CREATE FUNCTION iot.lock_group_membership() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The lock class of the extension ("IOT" in ASCII) and the table that the lock is about.
    lock_class CONSTANT integer := 4804436;
    lock_key CONSTANT integer := 'iot.device_group_members'::regclass::integer;
BEGIN
    IF TG_TABLE_NAME IN ('device_groups', 'device_types') THEN
        PERFORM pg_advisory_xact_lock(lock_class, lock_key);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(lock_class, lock_key);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.lock_group_membership() IS 'Trigger: takes the lock under which dynamic groups are computed: exclusive for groups and device types, else shared.';

CREATE FUNCTION iot.devices_sync_groups() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.sync_groups_of_device(NEW.device_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.devices_sync_groups() IS 'Trigger: a device that changed enters and leaves dynamic groups.';

CREATE FUNCTION iot.device_tags_sync_groups() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    device uuid;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM iot.sync_devices_of_group(g.group_id) FROM iot.device_groups g WHERE g.group_predicate IS NOT NULL;
        RETURN NULL;
    END IF;
    FOR device IN
        SELECT DISTINCT touched.device_id
          FROM (VALUES (OLD.device_id), (NEW.device_id)) AS touched (device_id)
         WHERE touched.device_id IS NOT NULL
         ORDER BY touched.device_id
    LOOP
        PERFORM FROM iot.devices d WHERE d.device_id = device FOR NO KEY UPDATE;
        PERFORM iot.sync_groups_of_device(device);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.device_tags_sync_groups() IS 'Trigger: a device whose tags changed enters and leaves dynamic groups.';

CREATE FUNCTION iot.device_types_sync_groups() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.sync_groups_of_device(d.device_id) FROM iot.devices d WHERE d.device_type_id = NEW.device_type_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.device_types_sync_groups() IS 'Trigger: devices of a type that was renamed enter and leave dynamic groups.';

CREATE FUNCTION iot.device_groups_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known CONSTANT text[] := '{device_type,device_status,firmware_version,hardware_version,location,organization_id,tags}';
    unknown text;
    wrong text;
BEGIN
    IF jsonb_typeof(NEW.group_predicate) IS DISTINCT FROM 'object' THEN
        RETURN NEW; -- A static group, or the table's CHECK refuses it.
    END IF;
    SELECT string_agg(format('"%s"', k), ', ') INTO unknown
      FROM jsonb_object_keys(NEW.group_predicate - known) AS k;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'group_predicate of group "%" has unknown key %', NEW.group_name, unknown
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Such a group would never have a member.',
                  HINT = format('Known keys: %s.', array_to_string(known, ', '));
    END IF;
    SELECT string_agg(format('"%s"', p.key), ', ') INTO wrong
      FROM jsonb_each(NEW.group_predicate) AS p
     WHERE CASE p.key
               WHEN 'tags' THEN jsonb_typeof(p.value) <> 'object'
                                OR jsonb_path_exists(p.value, 'strict $.* ? (@.type() != "string")')
               ELSE jsonb_typeof(p.value) NOT IN ('string', 'null')
           END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'group_predicate of group "%" has a value of the wrong type at key %', NEW.group_name, wrong
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Such a group would never have a member.',
                  HINT = 'Give a string, for tags an object of strings: {"device_type": "pump", "tags": {"floor": "3"}}.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.device_groups_validate() IS 'Trigger: refuses a group predicate that no device can fulfil.';

CREATE FUNCTION iot.device_groups_sync_devices() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM iot.sync_devices_of_group(NEW.group_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.device_groups_sync_devices() IS 'Trigger: finds the members of a dynamic group whose predicate changed.';

-- Members named by hand come and go as they like. Dynamic ones are what the predicate says: this refuses others, and
-- puts back as dynamic a member by name that was taken away though the predicate finds it.
CREATE FUNCTION iot.device_group_members_guard() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM iot.sync_devices_of_group(g.group_id) FROM iot.device_groups g WHERE g.group_predicate IS NOT NULL;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.is_dynamic AND NOT EXISTS (
        SELECT FROM iot.device_group_membership v
         WHERE v.group_id = NEW.group_id AND v.device_id = NEW.device_id AND v.is_dynamic)
    THEN
        RAISE EXCEPTION 'device "%" cannot be a dynamic member of group "%"', NEW.device_id, NEW.group_id
            USING ERRCODE = 'check_violation',
                  DETAIL = 'The group''s group_predicate does not find it.',
                  HINT = 'Add it with is_dynamic = false, or change group_predicate.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'is_dynamic';
    END IF;
    IF TG_OP = 'INSERT' OR NOT EXISTS (
        SELECT FROM iot.device_groups g WHERE g.group_id = OLD.group_id AND g.group_predicate IS NOT NULL)
    THEN
        RETURN NULL;
    END IF;
    IF NOT OLD.is_dynamic THEN
        PERFORM FROM iot.devices d WHERE d.device_id = OLD.device_id FOR NO KEY UPDATE;
        PERFORM iot.sync_groups_of_device(OLD.device_id);
    ELSIF EXISTS (
        SELECT FROM iot.device_group_membership v
         WHERE v.group_id = OLD.group_id AND v.device_id = OLD.device_id AND v.is_dynamic)
      AND NOT EXISTS (
        SELECT FROM iot.device_group_members m WHERE m.group_id = OLD.group_id AND m.device_id = OLD.device_id)
    THEN
        RAISE EXCEPTION 'device "%" is a dynamic member of group "%"', OLD.device_id, OLD.group_id
            USING ERRCODE = 'check_violation',
                  DETAIL = 'The group''s group_predicate finds it.',
                  HINT = 'Change group_predicate, or what it asks of the device.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.device_group_members_guard() IS 'Trigger: keeps dynamic members what the group''s predicate says.';
