-- Jobs under the name of what they are for.

CREATE FUNCTION iot.add_retention_policy(
    relation regclass, drop_after interval, if_not_exists boolean DEFAULT false, schedule_interval interval DEFAULT '1 day',
    initial_start timestamptz DEFAULT NULL, timezone text DEFAULT 'UTC', time_column text DEFAULT NULL,
    condition text DEFAULT NULL, batch_size integer DEFAULT NULL, job_name text DEFAULT NULL, owner regrole DEFAULT NULL)
    RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'add_retention_policy_wrapper';
COMMENT ON FUNCTION iot.add_retention_policy(
    regclass, interval, boolean, interval, timestamptz, text, text, text, integer, text, regrole) IS
    'Makes a job that lets go of what is older than drop_after: whole partitions, or rows of a plain table (of any, with a condition or a time_column) in batches. Returns its number.';

CREATE FUNCTION iot.remove_retention_policy(relation regclass, if_exists boolean DEFAULT false) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'remove_retention_policy_wrapper';
COMMENT ON FUNCTION iot.remove_retention_policy(regclass, boolean) IS 'Deletes the retention jobs of a table.';

CREATE FUNCTION iot.add_refresh_policy(
    relation regclass, schedule_interval interval DEFAULT '1 hour', if_not_exists boolean DEFAULT false,
    initial_start timestamptz DEFAULT NULL, timezone text DEFAULT 'UTC', job_name text DEFAULT NULL,
    owner regrole DEFAULT NULL) RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'add_refresh_policy_wrapper';
COMMENT ON FUNCTION iot.add_refresh_policy(regclass, interval, boolean, timestamptz, text, text, regrole) IS
    'Makes a job that refreshes a materialized view, while it is read where a unique index allows it. Returns its number.';

CREATE FUNCTION iot.remove_refresh_policy(relation regclass, if_exists boolean DEFAULT false) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'remove_refresh_policy_wrapper';
COMMENT ON FUNCTION iot.remove_refresh_policy(regclass, boolean) IS 'Deletes the refresh jobs of a materialized view.';

-- As in TimescaleDB: a procedure or function that takes the number of the job and its settings.
CREATE FUNCTION iot.add_job(
    proc regproc, schedule_interval interval, config jsonb DEFAULT NULL, initial_start timestamptz DEFAULT NULL,
    scheduled boolean DEFAULT true, timezone text DEFAULT 'UTC', job_name text DEFAULT NULL) RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
    called text;
BEGIN
    SELECT format('%s %I.%I', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, n.nspname, p.proname)
      INTO called FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = proc;
    IF called IS NULL OR schedule_interval IS NULL THEN
        RAISE EXCEPTION 'argument "%" must not be null', CASE WHEN called IS NULL THEN 'proc' ELSE 'schedule_interval' END
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass a procedure or function, and the time between its starts.';
    END IF;
    -- The command names the job's number: paused, it cannot start without it.
    number := iot.add_job(
        coalesce(job_name, proc::text), schedule_interval::text, 'SELECT', parameters => coalesce(config, '{}'),
        time_zone => timezone, first_start => initial_start, is_paused => true);
    PERFORM iot.alter_job(number, command => format('%s(%s, %L::pg_catalog.jsonb)', called, number, config),
        is_paused => NOT scheduled, next_start => coalesce(initial_start, now()));
    RETURN number;
END
$$;
COMMENT ON FUNCTION iot.add_job(regproc, interval, jsonb, timestamptz, boolean, text, text) IS
    'Makes a job that calls proc(job_id, config), as TimescaleDB does; returns its number.';

CREATE FUNCTION iot.add_maintenance_jobs(
    time_zone text DEFAULT 'UTC', readings_kept interval DEFAULT '90 days', resolved_alerts_kept interval DEFAULT '30 days',
    delete_old_data boolean DEFAULT false, owner regrole DEFAULT NULL)
    RETURNS TABLE (job_id bigint, job_name text, schedule text, is_paused boolean)
    VOLATILE PARALLEL UNSAFE ROWS 5
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers bigint[] := '{}';
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('nightly vacuum analyze', '0 2 * * *', 'vacuum_analyze', NULL, '{}'::jsonb, false),
            ('weekly clean-up of readings', '0 3 * * 0', 'retention', 'iot.sensor_data',
                jsonb_build_object('drop_after', readings_kept::text), NOT delete_old_data),
            ('weekly clean-up of resolved alerts', '0 3 * * 0', 'retention', 'iot.alerts',
                jsonb_build_object('drop_after', resolved_alerts_kept::text, 'time_column', 'resolved_at',
                    'condition', 'alert_status = ''resolved'''), NOT delete_old_data),
            ('monthly reindex', '0 4 1 * *', 'reindex', NULL, '{}'::jsonb, false),
            ('hourly refresh of materialized views', '0 * * * *', 'refresh_materialized_view', NULL, '{}'::jsonb, false)
        ) AS jobs (name, cron, kind, target, parameters, paused)
        WHERE jobs.target IS NULL OR to_regclass(jobs.target) IS NOT NULL
    LOOP
        numbers := numbers || iot.add_job(
            wanted.name, wanted.cron, NULL, job_kind => wanted.kind, target => wanted.target::regclass,
            parameters => wanted.parameters, time_zone => add_maintenance_jobs.time_zone, is_paused => wanted.paused,
            owner => add_maintenance_jobs.owner, if_not_exists => true);
    END LOOP;
    RETURN QUERY SELECT j.job_id, j.job_name, j.schedule, j.is_paused FROM iot.jobs j
        WHERE j.job_id = ANY (numbers) ORDER BY j.job_id;
END
$$;
COMMENT ON FUNCTION iot.add_maintenance_jobs(text, interval, interval, boolean, regrole) IS
    'Makes the usual jobs of a database: VACUUM and ANALYZE every night, a clean-up on Sundays (paused, unless delete_old_data), REINDEX every month, a refresh of materialized views every hour. Those that exist stay as they are.';
