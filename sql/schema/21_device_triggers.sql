-- Triggers of the registry: organizations, device types and devices.
--
-- Trigger functions keep EXECUTE for PUBLIC: whoever calls iot.setup() creates the triggers and needs it. They cannot be
-- called directly and run with the rights of whoever writes the table.

CREATE FUNCTION iot.touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Compares images, so that columns of types without equality can be added to the table.
    IF NEW *<> OLD THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.touch_updated_at() IS 'Trigger: sets updated_at when the row really changes.';

-- Two moves that are each fine could close a cycle together. They go one after the other: the lock is taken before the
-- statement takes any row, and each later statement looks with a fresh snapshot.
CREATE FUNCTION iot.organizations_lock_tree() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The lock class of the extension ("IOT" in ASCII) and the table.
    PERFORM pg_advisory_xact_lock(4804436, TG_RELID::integer);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.organizations_lock_tree() IS 'Trigger: lets one transaction at a time move organizations.';

-- Runs after the rows are in place, so that one statement may rearrange several.
CREATE FUNCTION iot.organizations_refuse_cycle() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ancestor uuid := NEW.parent_organization_id;
    passed uuid[] := '{}';
BEGIN
    WHILE ancestor <> ALL (passed) LOOP
        IF ancestor = NEW.organization_id THEN
            RAISE EXCEPTION 'parent_organization_id "%" would make a cycle of organizations', NEW.parent_organization_id
                USING ERRCODE = 'check_violation',
                      DETAIL = format('Organization "%s" is the same as or above "%s".',
                                      NEW.organization_id, NEW.parent_organization_id),
                      HINT = 'Choose a parent that is not below the organization, or move that one away first.',
                      SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'parent_organization_id';
        END IF;
        passed := passed || ancestor;
        IF TG_OP = 'UPDATE' THEN
            -- The row lock makes a REPEATABLE READ transaction, whose snapshot is older than the lock on the tree, fail
            -- with 40001 where another one moved an organization on this path.
            SELECT o.parent_organization_id INTO ancestor
              FROM iot.organizations o WHERE o.organization_id = ancestor FOR SHARE;
        ELSE
            SELECT o.parent_organization_id INTO ancestor
              FROM iot.organizations o WHERE o.organization_id = ancestor;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.organizations_refuse_cycle() IS 'Trigger: refuses an organization that would be above itself.';

CREATE FUNCTION iot.device_types_refuse_delete_when_used() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM iot.devices d WHERE d.device_type_id = OLD.device_type_id) THEN
        RAISE EXCEPTION 'device type "%" is in use', OLD.device_type_name
            USING ERRCODE = 'foreign_key_violation',
                  DETAIL = format('Devices have device_type_id "%s".', OLD.device_type_id),
                  HINT = 'Set is_active = false to keep it from new devices.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION iot.device_types_refuse_delete_when_used() IS 'Trigger: refuses to delete a device type that devices have.';

CREATE FUNCTION iot.devices_before_insert() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.device_name := COALESCE(NULLIF(NEW.device_name, ''), NULLIF(NEW.device_serial_number, ''),
                                NULLIF(NEW.external_id, ''), 'Device ' || NEW.device_id);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.devices_before_insert() IS 'Trigger: names a device that was given no name.';

CREATE FUNCTION iot.devices_guard_status() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    allowed text;
BEGIN
    IF NOT iot.device_status_can_become(OLD.device_status, NEW.device_status) THEN
        allowed := array_to_string(iot.device_status_next(OLD.device_status), ', ');
        RAISE EXCEPTION 'device "%" cannot become "%"', OLD.device_id, NEW.device_status
            USING ERRCODE = 'IO001',
                  DETAIL = format('Its device_status is "%s".', OLD.device_status),
                  HINT = CASE WHEN allowed <> '' THEN format('From there it may become: %s.', allowed)
                              ELSE 'There is no way back from there; register the device anew.' END,
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'device_status';
    END IF;
    IF NEW.device_status_reason = OLD.device_status_reason THEN
        NEW.device_status_reason := NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION iot.devices_guard_status() IS 'Trigger: refuses a move that the lifecycle of devices does not have, and clears the reason of the state left.';

CREATE FUNCTION iot.devices_record_status() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO iot.device_status_history (device_id, from_status, to_status, reason)
    VALUES (NEW.device_id, CASE TG_OP WHEN 'UPDATE' THEN OLD.device_status END, NEW.device_status, NEW.device_status_reason);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION iot.devices_record_status() IS 'Trigger: writes each state of a device to device_status_history.';

-- row_security = off makes the query fail, rather than find nothing, where a policy hides readings from the caller.
CREATE FUNCTION iot.devices_refuse_delete() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF EXISTS (SELECT FROM iot.sensor_data) THEN
            RAISE EXCEPTION 'devices have readings'
                USING ERRCODE = 'foreign_key_violation',
                      DETAIL = 'Table iot.sensor_data is not empty.',
                      HINT = 'Truncate iot.sensor_data first, in a statement of its own.';
        END IF;
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM iot.sensor_data r WHERE r.device_id = OLD.device_id) THEN
        RAISE EXCEPTION 'device "%" has readings', OLD.device_id
            USING ERRCODE = 'foreign_key_violation',
                  DETAIL = 'Rows of iot.sensor_data refer to it.',
                  HINT = 'Set device_status = ''decommissioned'' instead of deleting it.',
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION iot.devices_refuse_delete() IS 'Trigger: refuses to delete a device that has readings.';
