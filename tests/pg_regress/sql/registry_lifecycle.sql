-- Devices, their lifecycle and its history.
CREATE EXTENSION iot_ext;
SELECT iot.setup() -> 'migrations_applied' ->> 0 AS first_migration;

-- A device needs no name: the serial number serves, else the external id.
INSERT INTO iot.devices (device_serial_number) VALUES ('PUMP-01');
INSERT INTO iot.devices (external_id) VALUES ('erp-4711');
SELECT device_name, device_status, connection_status FROM iot.devices ORDER BY device_name;

-- Serial numbers are unique, and so are external ids within an organization.
\set VERBOSITY terse
INSERT INTO iot.devices (device_serial_number) VALUES ('PUMP-01');
INSERT INTO iot.devices (external_id) VALUES ('erp-4711');

-- It may start in any state; after that it moves along its lifecycle.
\set VERBOSITY default
\set SHOW_CONTEXT never
UPDATE iot.devices SET device_status = 'maintenance', device_status_reason = 'belt change' WHERE device_serial_number = 'PUMP-01';
UPDATE iot.devices SET device_status = 'active' WHERE device_serial_number = 'PUMP-01';
SELECT from_status, to_status, reason FROM iot.device_status_history JOIN iot.devices USING (device_id)
 WHERE device_serial_number = 'PUMP-01' ORDER BY history_id;
SELECT iot.device_status_next('inactive') AS from_inactive, iot.device_status_next('decommissioned') AS from_decommissioned;

-- The actor is the application's user, where it says so; '' counts as unset.
SET app.user_id = '7a1e0000-0000-0000-0000-000000000001';
UPDATE iot.devices SET device_status = 'inactive' WHERE device_serial_number = 'PUMP-01';
SET app.user_id = '';
UPDATE iot.devices SET device_status = 'decommissioned' WHERE device_serial_number = 'PUMP-01';
SELECT to_status, changed_by FROM iot.device_status_history ORDER BY history_id DESC LIMIT 2;

-- Values outside their range are refused.
\set VERBOSITY terse
INSERT INTO iot.devices (device_serial_number, battery_level) VALUES ('x', 101);
INSERT INTO iot.devices (device_serial_number, latitude, longitude) VALUES ('x', 91, 0);
INSERT INTO iot.devices (device_serial_number, device_status) VALUES ('x', 'broken');

-- A type in use is retired, not deleted.
\set VERBOSITY default
INSERT INTO iot.device_types (device_type_name) VALUES ('pump'), ('unused');
UPDATE iot.devices SET device_type_id = (SELECT device_type_id FROM iot.device_types WHERE device_type_name = 'pump');
DELETE FROM iot.device_types WHERE device_type_name = 'unused';
\set VERBOSITY terse
DELETE FROM iot.device_types WHERE device_type_name = 'pump';

-- Organizations form a tree.
INSERT INTO iot.organizations (organization_id, organization_name) VALUES
    ('00000000-0000-0000-0000-00000000000a', 'group'), ('00000000-0000-0000-0000-00000000000b', 'plant');
UPDATE iot.organizations SET parent_organization_id = '00000000-0000-0000-0000-00000000000a' WHERE organization_name = 'plant';
UPDATE iot.organizations SET parent_organization_id = '00000000-0000-0000-0000-00000000000b' WHERE organization_name = 'group';
UPDATE iot.organizations SET parent_organization_id = organization_id WHERE organization_name = 'group';
