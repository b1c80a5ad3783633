-- Device commands.
SET LOCAL search_path = pg_catalog, pg_temp;

-- The queue of commands, and what became of them.
CREATE TABLE iot.device_commands (
    command_id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    device_id          uuid        NOT NULL REFERENCES iot.devices,
    command_type       text        NOT NULL CHECK (btrim(command_type) <> ''),
    command_parameters jsonb       NOT NULL DEFAULT '{}',
    scheduled_at       timestamptz NOT NULL DEFAULT now(),
    execution_status   text        NOT NULL DEFAULT 'pending'
                                   CHECK (execution_status IN ('pending', 'sent', 'acknowledged', 'completed', 'failed', 'expired', 'cancelled')),
    priority           integer     NOT NULL DEFAULT 0,
    attempts           integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    result             jsonb,
    error_message      text,
    created_by         text        NOT NULL DEFAULT COALESCE(NULLIF(current_setting('app.user_id', true), ''), session_user),
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at            timestamptz,
    acknowledged_at    timestamptz,
    completed_at       timestamptz,
    expires_at         timestamptz,
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_device_commands_pending ON iot.device_commands (scheduled_at) WHERE execution_status = 'pending';
CREATE INDEX idx_device_commands_device ON iot.device_commands (device_id, created_at DESC);
COMMENT ON TABLE iot.device_commands IS 'Commands for devices, and what became of them.';
COMMENT ON COLUMN iot.device_commands.command_id IS 'Key; the payload of NOTIFY device_commands.';
COMMENT ON COLUMN iot.device_commands.device_id IS 'Device that shall carry it out.';
COMMENT ON COLUMN iot.device_commands.command_type IS 'What it shall do, such as restart.';
COMMENT ON COLUMN iot.device_commands.command_parameters IS 'Parameters of the command.';
COMMENT ON COLUMN iot.device_commands.scheduled_at IS 'Not to be sent before.';
COMMENT ON COLUMN iot.device_commands.execution_status IS 'pending, sent, acknowledged, completed, failed, expired or cancelled.';
COMMENT ON COLUMN iot.device_commands.priority IS 'Of commands that are due, the one with the highest goes first.';
COMMENT ON COLUMN iot.device_commands.attempts IS 'How often it was sent.';
COMMENT ON COLUMN iot.device_commands.result IS 'What the device answered.';
COMMENT ON COLUMN iot.device_commands.error_message IS 'Why it failed.';
COMMENT ON COLUMN iot.device_commands.created_by IS 'Setting app.user_id, or the session user where it is not set.';
COMMENT ON COLUMN iot.device_commands.created_at IS 'When it was queued.';
COMMENT ON COLUMN iot.device_commands.sent_at IS 'When it was last sent.';
COMMENT ON COLUMN iot.device_commands.acknowledged_at IS 'When the device said that it has it.';
COMMENT ON COLUMN iot.device_commands.completed_at IS 'When it was done or given up.';
COMMENT ON COLUMN iot.device_commands.expires_at IS 'Not to be sent after; NULL for no limit.';
COMMENT ON COLUMN iot.device_commands.updated_at IS 'When the row last changed; kept by a trigger.';
