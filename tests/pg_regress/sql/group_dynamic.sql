-- Groups by name and by predicate.
CREATE EXTENSION iot_ext;
SELECT iot.setup() IS NOT NULL AS ready;
INSERT INTO iot.device_types (device_type_name) VALUES ('pump'), ('oven');
INSERT INTO iot.devices (device_serial_number, device_type_id, firmware_version)
SELECT v.serial, t.device_type_id, v.firmware
  FROM (VALUES ('P-1', 'pump', '1.4'), ('P-2', 'pump', '1.5'), ('O-1', 'oven', '1.4')) AS v (serial, kind, firmware)
  JOIN iot.device_types t ON t.device_type_name = v.kind;

-- A predicate is contained in the device's document.
SELECT iot.device_document(device_id) FROM iot.devices WHERE device_serial_number = 'P-1';
INSERT INTO iot.device_groups (group_name, group_predicate) VALUES
    ('pumps', '{"device_type": "pump"}'), ('line 3', '{"tags": {"line": "3"}}'), ('old pumps', '{"device_type": "pump", "firmware_version": "1.4"}');
INSERT INTO iot.device_groups (group_name) VALUES ('by hand');
CREATE VIEW members AS
SELECT g.group_name, string_agg(d.device_serial_number || CASE WHEN m.is_dynamic THEN '' ELSE ' (by name)' END, ', ' ORDER BY d.device_serial_number) AS devices
  FROM iot.device_group_members m JOIN iot.device_groups g USING (group_id) JOIN iot.devices d USING (device_id)
 GROUP BY g.group_name;
SELECT * FROM members ORDER BY 1;

-- Members follow every change.
INSERT INTO iot.device_tags (device_id, tag_key, tag_value) SELECT device_id, 'line', '3' FROM iot.devices WHERE device_serial_number IN ('P-2', 'O-1');
UPDATE iot.devices SET firmware_version = '1.5' WHERE device_serial_number = 'P-1';
INSERT INTO iot.device_group_members (group_id, device_id)
SELECT group_id, device_id FROM iot.device_groups, iot.devices WHERE group_name = 'by hand' AND device_serial_number = 'O-1';
SELECT * FROM members ORDER BY 1;
UPDATE iot.device_groups SET group_predicate = '{"firmware_version": "1.5"}' WHERE group_name = 'old pumps';
DELETE FROM iot.device_tags;
SELECT * FROM members ORDER BY 1;

-- The stored members are always those computed from the predicates.
SELECT count(*) AS differences FROM (
    (TABLE iot.device_group_membership EXCEPT SELECT group_id, device_id, is_dynamic FROM iot.device_group_members)
    UNION ALL
    (SELECT group_id, device_id, is_dynamic FROM iot.device_group_members EXCEPT TABLE iot.device_group_membership)) AS d;

\set SHOW_CONTEXT never
INSERT INTO iot.device_groups (group_name, group_predicate) VALUES ('typo', '{"device_typ": "pump"}');
