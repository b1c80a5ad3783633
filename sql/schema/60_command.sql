-- Device commands.

CREATE FUNCTION iot.queue_device_command(
    device_uuid uuid, command_type_param varchar, command_params jsonb DEFAULT '{}',
    scheduled_time timestamptz DEFAULT pg_catalog.now()) RETURNS uuid
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'queue_device_command_wrapper';
COMMENT ON FUNCTION iot.queue_device_command(uuid, varchar, jsonb, timestamptz) IS
    'Queues a pending command for a device that is active or in maintenance and returns its id; at commit NOTIFY device_commands carries the id (unless iot_ext.notify_commands is off).';
