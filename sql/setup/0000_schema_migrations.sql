-- Which migrations have run in this database: written by iot.setup(), read before anything else.
CREATE TABLE iot.schema_migrations (
    version           integer     PRIMARY KEY,
    migration_name    text        NOT NULL,
    extension_version text        NOT NULL,
    applied_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    applied_by        text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE iot.schema_migrations IS 'Migrations of the iot tables that have run in this database, one row each.';
COMMENT ON COLUMN iot.schema_migrations.version IS 'Number of the migration; they run in this order, one way.';
COMMENT ON COLUMN iot.schema_migrations.migration_name IS 'Name of the migration.';
COMMENT ON COLUMN iot.schema_migrations.extension_version IS 'Version of iot_ext that ran it.';
COMMENT ON COLUMN iot.schema_migrations.applied_at IS 'When it ran.';
COMMENT ON COLUMN iot.schema_migrations.applied_by IS 'Session user who called iot.setup().';
