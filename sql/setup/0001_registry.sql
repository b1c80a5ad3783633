-- The registry: organizations and the people in them, devices, and the sensors they carry.
--
-- Types, CHECKs and defaults use core functions only, so that the tables outlive the extension. What needs a function of
-- the extension (triggers, some defaults, views) is attached by the files in always/.
-- A foreign key without ON DELETE clause refuses the deletion. RESTRICT would do the same, but PostgreSQL 18 gave it
-- another SQLSTATE.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Tenants, as a tree.
CREATE TABLE iot.organizations (
    organization_id        uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    parent_organization_id uuid        REFERENCES iot.organizations,
    organization_name      text        NOT NULL,
    external_id            text        UNIQUE,
    settings               jsonb       NOT NULL DEFAULT '{}',
    is_active              boolean     NOT NULL DEFAULT true,
    created_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at             timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_organizations_parent ON iot.organizations (parent_organization_id);
COMMENT ON TABLE iot.organizations IS 'Tenants, as a tree.';
COMMENT ON COLUMN iot.organizations.organization_id IS 'Key; policies compare it with the setting app.organization_id.';
COMMENT ON COLUMN iot.organizations.parent_organization_id IS 'Organization above this one; NULL at the top. Cycles are refused.';
COMMENT ON COLUMN iot.organizations.organization_name IS 'Display name.';
COMMENT ON COLUMN iot.organizations.external_id IS 'Key of the organization in the application.';
COMMENT ON COLUMN iot.organizations.settings IS 'Free settings of the organization.';
COMMENT ON COLUMN iot.organizations.is_active IS 'False for one that is no longer served.';
COMMENT ON COLUMN iot.organizations.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.organizations.updated_at IS 'When the row last changed; kept by a trigger.';

-- Who the application's users are here. Logging in stays the application's business: no passwords, no hashes.
CREATE TABLE iot.principals (
    user_id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id  uuid        REFERENCES iot.organizations,
    application_role text        NOT NULL DEFAULT 'user' CHECK (application_role <> ''),
    database_role    name        UNIQUE,
    display_name     text,
    is_active        boolean     NOT NULL DEFAULT true,
    last_login_at    timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_principals_organization ON iot.principals (organization_id);
COMMENT ON TABLE iot.principals IS 'Organization and roles of the application''s users; never passwords.';
COMMENT ON COLUMN iot.principals.user_id IS 'Key of the user in the application; policies compare it with the setting app.user_id.';
COMMENT ON COLUMN iot.principals.organization_id IS 'Organization of the user; NULL for one that belongs to none.';
COMMENT ON COLUMN iot.principals.application_role IS 'Role in the application, such as admin; policies compare it with the setting app.user_role.';
COMMENT ON COLUMN iot.principals.database_role IS 'PostgreSQL role that stands for this user alone, if there is one.';
COMMENT ON COLUMN iot.principals.display_name IS 'Name for people.';
COMMENT ON COLUMN iot.principals.is_active IS 'False for one who may no longer log in.';
COMMENT ON COLUMN iot.principals.last_login_at IS 'Last login, written by the application.';
COMMENT ON COLUMN iot.principals.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.principals.updated_at IS 'When the row last changed; kept by a trigger.';

-- The catalogue of device models.
CREATE TABLE iot.device_types (
    device_type_id        uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    device_type_name      text        NOT NULL UNIQUE,
    manufacturer          text,
    model                 text,
    description           text,
    specifications        jsonb       NOT NULL DEFAULT '{}',
    capabilities          jsonb       NOT NULL DEFAULT '{}',
    default_configuration jsonb       NOT NULL DEFAULT '{}',
    sensor_templates      jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(sensor_templates) = 'array'),
    is_active             boolean     NOT NULL DEFAULT true,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE iot.device_types IS 'Catalogue of device models.';
COMMENT ON COLUMN iot.device_types.device_type_id IS 'Key.';
COMMENT ON COLUMN iot.device_types.device_type_name IS 'Unique name.';
COMMENT ON COLUMN iot.device_types.manufacturer IS 'Who makes it.';
COMMENT ON COLUMN iot.device_types.model IS 'The manufacturer''s name of the model.';
COMMENT ON COLUMN iot.device_types.description IS 'Text for people.';
COMMENT ON COLUMN iot.device_types.specifications IS 'Technical data.';
COMMENT ON COLUMN iot.device_types.capabilities IS 'What devices of this type can do.';
COMMENT ON COLUMN iot.device_types.default_configuration IS 'Configuration that a new device of this type starts with.';
COMMENT ON COLUMN iot.device_types.sensor_templates IS 'Array with the sensors that a new device of this type starts with.';
COMMENT ON COLUMN iot.device_types.is_active IS 'False for a type that is no longer given to new devices; one in use cannot be deleted.';
COMMENT ON COLUMN iot.device_types.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.device_types.updated_at IS 'When the row last changed; kept by a trigger.';

-- Devices. A device needs nothing but an INSERT: its name follows from what is known of it.
CREATE TABLE iot.devices (
    device_id               uuid             PRIMARY KEY DEFAULT gen_random_uuid(),
    external_id             text,
    device_serial_number    text             UNIQUE,
    device_name             text             NOT NULL,
    description             text,
    device_type_id          uuid             REFERENCES iot.device_types,
    organization_id         uuid             REFERENCES iot.organizations,
    parent_device_id        uuid             REFERENCES iot.devices
                                             CHECK (parent_device_id <> device_id),
    location                text,
    latitude                double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude               double precision CHECK (longitude BETWEEN -180 AND 180),
    device_status           text             NOT NULL DEFAULT 'active'
                                             CHECK (device_status IN ('provisioning', 'active', 'maintenance', 'inactive', 'decommissioned')),
    device_status_reason    text,
    connection_status       text             NOT NULL DEFAULT 'unknown'
                                             CHECK (connection_status IN ('unknown', 'online', 'offline')),
    configuration           jsonb            NOT NULL DEFAULT '{}',
    firmware_version        text,
    hardware_version        text,
    battery_level           double precision CHECK (battery_level BETWEEN 0 AND 100),
    user_id                 uuid,
    authentication_key_hash text,
    device_metadata         jsonb            NOT NULL DEFAULT '{}',
    last_seen_at            timestamptz,
    created_at              timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at              timestamptz      NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX idx_devices_external_id ON iot.devices (organization_id, external_id) NULLS NOT DISTINCT
    WHERE external_id IS NOT NULL;
CREATE INDEX idx_devices_active ON iot.devices (device_id) WHERE device_status = 'active';
CREATE INDEX idx_devices_type ON iot.devices (device_type_id);
CREATE INDEX idx_devices_organization ON iot.devices (organization_id);
CREATE INDEX idx_devices_parent ON iot.devices (parent_device_id);
CREATE INDEX idx_devices_user ON iot.devices (user_id);
CREATE INDEX idx_devices_status ON iot.devices (device_status);
CREATE INDEX idx_devices_location ON iot.devices (location);
CREATE INDEX idx_devices_last_seen ON iot.devices (last_seen_at);
COMMENT ON TABLE iot.devices IS 'Devices: gateways and what carries sensors.';
COMMENT ON COLUMN iot.devices.device_id IS 'Key.';
COMMENT ON COLUMN iot.devices.external_id IS 'Key of the device in the application, unique within its organization.';
COMMENT ON COLUMN iot.devices.device_serial_number IS 'Serial number, unique.';
COMMENT ON COLUMN iot.devices.device_name IS 'Display name; not given, a trigger takes the serial number, the external id or ''Device <device_id>''.';
COMMENT ON COLUMN iot.devices.description IS 'Text for people.';
COMMENT ON COLUMN iot.devices.device_type_id IS 'Model, if known.';
COMMENT ON COLUMN iot.devices.organization_id IS 'Tenant that owns the device, if any.';
COMMENT ON COLUMN iot.devices.parent_device_id IS 'Gateway through which the device is reached.';
COMMENT ON COLUMN iot.devices.location IS 'Where it is, in words.';
COMMENT ON COLUMN iot.devices.latitude IS 'Degrees north (WGS 84).';
COMMENT ON COLUMN iot.devices.longitude IS 'Degrees east (WGS 84).';
COMMENT ON COLUMN iot.devices.device_status IS 'Lifecycle: provisioning, active, maintenance, inactive or decommissioned; moves between them are checked.';
COMMENT ON COLUMN iot.devices.device_status_reason IS 'Why it is in this state; cleared when the state changes without a new reason.';
COMMENT ON COLUMN iot.devices.connection_status IS 'Whether it is reachable: unknown, online or offline.';
COMMENT ON COLUMN iot.devices.configuration IS 'Current configuration.';
COMMENT ON COLUMN iot.devices.firmware_version IS 'Firmware that it runs.';
COMMENT ON COLUMN iot.devices.hardware_version IS 'Revision of its hardware.';
COMMENT ON COLUMN iot.devices.battery_level IS 'Charge in percent.';
COMMENT ON COLUMN iot.devices.user_id IS 'User of the application who owns it.';
COMMENT ON COLUMN iot.devices.authentication_key_hash IS 'Hash of the key with which the device proves itself; never the key.';
COMMENT ON COLUMN iot.devices.device_metadata IS 'Anything else known of it.';
COMMENT ON COLUMN iot.devices.last_seen_at IS 'Last sign of life that was written down.';
COMMENT ON COLUMN iot.devices.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.devices.updated_at IS 'When the row last changed; kept by a trigger.';

-- Every state a device has been in; written by a trigger.
CREATE TABLE iot.device_status_history (
    history_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id   uuid        NOT NULL REFERENCES iot.devices ON DELETE CASCADE,
    from_status text,
    to_status   text        NOT NULL,
    reason      text,
    changed_by  text        NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_device_status_history_device ON iot.device_status_history (device_id, changed_at);
COMMENT ON TABLE iot.device_status_history IS 'Lifecycle of each device, one row per state entered; written by a trigger.';
COMMENT ON COLUMN iot.device_status_history.history_id IS 'Key; orders the moves.';
COMMENT ON SEQUENCE iot.device_status_history_history_id_seq IS 'Numbers of the moves.';
COMMENT ON COLUMN iot.device_status_history.device_id IS 'The device.';
COMMENT ON COLUMN iot.device_status_history.from_status IS 'State left; NULL when the device was registered.';
COMMENT ON COLUMN iot.device_status_history.to_status IS 'State entered.';
COMMENT ON COLUMN iot.device_status_history.reason IS 'devices.device_status_reason at that time.';
COMMENT ON COLUMN iot.device_status_history.changed_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.device_status_history.changed_at IS 'When.';

-- Labels of a device, which group predicates can ask for.
CREATE TABLE iot.device_tags (
    device_id uuid NOT NULL REFERENCES iot.devices ON DELETE CASCADE,
    tag_key   text NOT NULL CHECK (tag_key <> ''),
    tag_value text NOT NULL DEFAULT '',
    PRIMARY KEY (device_id, tag_key)
);
CREATE INDEX idx_device_tags_key_value ON iot.device_tags (tag_key, tag_value);
COMMENT ON TABLE iot.device_tags IS 'Labels of devices.';
COMMENT ON COLUMN iot.device_tags.device_id IS 'The device.';
COMMENT ON COLUMN iot.device_tags.tag_key IS 'Name of the label.';
COMMENT ON COLUMN iot.device_tags.tag_value IS 'Value of the label; empty for one that only stands or does not.';

-- Groups of devices: members named one by one, or found by a predicate.
CREATE TABLE iot.device_groups (
    group_id        uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid        REFERENCES iot.organizations,
    group_name      text        NOT NULL CHECK (group_name <> ''),
    description     text,
    group_predicate jsonb       CHECK (jsonb_typeof(group_predicate) = 'object'),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE NULLS NOT DISTINCT (organization_id, group_name)
);
COMMENT ON TABLE iot.device_groups IS 'Groups of devices.';
COMMENT ON COLUMN iot.device_groups.group_id IS 'Key.';
COMMENT ON COLUMN iot.device_groups.organization_id IS 'Tenant that owns the group: its predicate then finds that tenant''s devices only. NULL for a group across tenants.';
COMMENT ON COLUMN iot.device_groups.group_name IS 'Name, unique within the organization.';
COMMENT ON COLUMN iot.device_groups.description IS 'Text for people.';
COMMENT ON COLUMN iot.device_groups.group_predicate IS 'NULL for a static group. An object makes the group dynamic: every device whose iot.device_document() contains it is a member.';
COMMENT ON COLUMN iot.device_groups.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.device_groups.updated_at IS 'When the row last changed; kept by a trigger.';

-- Who is in a group. Dynamic rows are the stored form of iot.device_group_membership, kept in step by triggers.
CREATE TABLE iot.device_group_members (
    group_id   uuid        NOT NULL REFERENCES iot.device_groups ON DELETE CASCADE,
    device_id  uuid        NOT NULL REFERENCES iot.devices ON DELETE CASCADE,
    is_dynamic boolean     NOT NULL DEFAULT false,
    added_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_id, device_id)
);
CREATE INDEX idx_device_group_members_device ON iot.device_group_members (device_id);
COMMENT ON TABLE iot.device_group_members IS 'Members of device groups.';
COMMENT ON COLUMN iot.device_group_members.group_id IS 'The group.';
COMMENT ON COLUMN iot.device_group_members.device_id IS 'The device.';
COMMENT ON COLUMN iot.device_group_members.is_dynamic IS 'True: member by the group''s predicate, written by triggers. False: named by someone, and stays whatever the predicate says.';
COMMENT ON COLUMN iot.device_group_members.added_at IS 'When it became a member.';

-- Which users see a group's devices. Users are the application's: no foreign key to principals.
CREATE TABLE iot.user_group_members (
    user_id  uuid NOT NULL,
    group_id uuid NOT NULL REFERENCES iot.device_groups ON DELETE CASCADE,
    PRIMARY KEY (user_id, group_id)
);
CREATE INDEX idx_user_group_members_group ON iot.user_group_members (group_id);
COMMENT ON TABLE iot.user_group_members IS 'Users who see the devices of a group.';
COMMENT ON COLUMN iot.user_group_members.user_id IS 'Key of the user in the application.';
COMMENT ON COLUMN iot.user_group_members.group_id IS 'The group.';

-- Sensors: one measured quantity of one device each.
CREATE TABLE iot.sensors (
    sensor_id         uuid             PRIMARY KEY DEFAULT gen_random_uuid(),
    device_id         uuid             NOT NULL REFERENCES iot.devices,
    sensor_name       text             NOT NULL CHECK (sensor_name <> ''),
    sensor_type       text             NOT NULL CHECK (sensor_type <> ''),
    unit_of_measure   text             NOT NULL,
    sensor_status     text             NOT NULL DEFAULT 'active'
                                       CHECK (sensor_status IN ('provisioning', 'active', 'maintenance', 'inactive', 'decommissioned')),
    calibration_data  jsonb            NOT NULL DEFAULT '{}',
    physical_minimum  double precision CHECK (physical_minimum <> 'NaN'),
    physical_maximum  double precision CHECK (physical_maximum <> 'NaN'),
    expected_interval interval         CHECK (expected_interval > '0'),
    description       text,
    sensor_metadata   jsonb            NOT NULL DEFAULT '{}',
    created_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (device_id, sensor_name),
    CHECK (physical_minimum <= physical_maximum)
);
CREATE INDEX idx_sensors_active ON iot.sensors (sensor_id) WHERE sensor_status = 'active';
CREATE INDEX idx_sensors_type ON iot.sensors (sensor_type);
COMMENT ON TABLE iot.sensors IS 'Sensors: one measured quantity of one device each.';
COMMENT ON COLUMN iot.sensors.sensor_id IS 'Key.';
COMMENT ON COLUMN iot.sensors.device_id IS 'Device that carries it; fixed once there are readings.';
COMMENT ON COLUMN iot.sensors.sensor_name IS 'Name, unique on the device.';
COMMENT ON COLUMN iot.sensors.sensor_type IS 'What it measures, such as temperature; fixed once there are readings.';
COMMENT ON COLUMN iot.sensors.unit_of_measure IS 'Unit of the calibrated value.';
COMMENT ON COLUMN iot.sensors.sensor_status IS 'Lifecycle: provisioning, active, maintenance, inactive or decommissioned; only an active sensor is read.';
COMMENT ON COLUMN iot.sensors.calibration_data IS 'Current calibration. A change holds from then on, up to the next one planned in sensor_calibrations; what held before stays in history.';
COMMENT ON COLUMN iot.sensors.physical_minimum IS 'Least value that is physically possible; a reading below it is not valid.';
COMMENT ON COLUMN iot.sensors.physical_maximum IS 'Greatest value that is physically possible; a reading above it is not valid.';
COMMENT ON COLUMN iot.sensors.expected_interval IS 'How often it should report.';
COMMENT ON COLUMN iot.sensors.description IS 'Text for people.';
COMMENT ON COLUMN iot.sensors.sensor_metadata IS 'Anything else known of it.';
COMMENT ON COLUMN iot.sensors.created_at IS 'When the row was made.';
COMMENT ON COLUMN iot.sensors.updated_at IS 'When the row last changed; kept by a trigger.';

-- Which calibration held when: a late reading is corrected by the one of its own time.
CREATE TABLE iot.sensor_calibrations (
    calibration_id   uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    sensor_id        uuid        NOT NULL REFERENCES iot.sensors ON DELETE CASCADE,
    calibration_data jsonb       NOT NULL,
    valid_from       timestamptz NOT NULL,
    valid_to         timestamptz NOT NULL DEFAULT 'infinity',
    calibrated_by    text        NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    reason           text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (sensor_id, valid_from),
    CHECK (valid_from < valid_to)
);
COMMENT ON TABLE iot.sensor_calibrations IS 'History of each sensor''s calibration; no two of a sensor overlap.';
COMMENT ON COLUMN iot.sensor_calibrations.calibration_id IS 'Key.';
COMMENT ON COLUMN iot.sensor_calibrations.sensor_id IS 'The sensor.';
COMMENT ON COLUMN iot.sensor_calibrations.calibration_data IS 'The calibration, as in sensors.calibration_data.';
COMMENT ON COLUMN iot.sensor_calibrations.valid_from IS 'Time of the first reading that it applies to; -infinity for a sensor''s first.';
COMMENT ON COLUMN iot.sensor_calibrations.valid_to IS 'Time from which it no longer applies; infinity for the current one.';
COMMENT ON COLUMN iot.sensor_calibrations.calibrated_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.sensor_calibrations.reason IS 'Why it was calibrated anew.';
COMMENT ON COLUMN iot.sensor_calibrations.created_at IS 'When the row was made.';
