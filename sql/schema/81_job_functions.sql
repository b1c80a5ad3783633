-- Jobs: making, changing and running them.

CREATE FUNCTION iot.add_job(
    job_name text, schedule text, command text, job_kind text DEFAULT 'sql', target regclass DEFAULT NULL,
    parameters jsonb DEFAULT '{}', time_zone text DEFAULT 'UTC', jitter interval DEFAULT '0',
    first_start timestamptz DEFAULT NULL, timeout interval DEFAULT NULL, max_retries integer DEFAULT 5,
    retry_delay interval DEFAULT '1 minute', is_paused boolean DEFAULT false, owner regrole DEFAULT NULL,
    if_not_exists boolean DEFAULT false) RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'add_job_wrapper';
COMMENT ON FUNCTION iot.add_job(
    text, text, text, text, regclass, jsonb, text, interval, timestamptz, interval, integer, interval, boolean, regrole, boolean) IS
    'Makes a job and returns its number. schedule is an interval such as 10 minutes, which starts at once or at first_start, or a cron expression of five fields. command is the SQL of kind sql and NULL for the other kinds.';

CREATE FUNCTION iot.alter_job(
    job_id bigint, schedule text DEFAULT NULL, command text DEFAULT NULL, parameters jsonb DEFAULT NULL,
    time_zone text DEFAULT NULL, jitter interval DEFAULT NULL, first_start timestamptz DEFAULT NULL,
    timeout interval DEFAULT NULL, max_retries integer DEFAULT NULL, retry_delay interval DEFAULT NULL,
    is_paused boolean DEFAULT NULL, job_name text DEFAULT NULL, owner regrole DEFAULT NULL,
    next_start timestamptz DEFAULT NULL, if_exists boolean DEFAULT false) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'alter_job_wrapper';
COMMENT ON FUNCTION iot.alter_job(
    bigint, text, text, jsonb, text, interval, timestamptz, interval, integer, interval, boolean, text, regrole, timestamptz, boolean) IS
    'Changes what is given of a job, and keeps the rest. timeout 0 means no limit; next_start says when it is due next, once.';

CREATE FUNCTION iot.pause_job(job_id bigint, reason text DEFAULT NULL) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'pause_job_wrapper';
COMMENT ON FUNCTION iot.pause_job(bigint, text) IS 'Keeps a job from starting by itself. A run that goes on is not ended.';

CREATE FUNCTION iot.pause_job(job_name text, reason text DEFAULT NULL) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'pause_job_named_wrapper';
COMMENT ON FUNCTION iot.pause_job(text, text) IS 'The same by name.';

CREATE FUNCTION iot.resume_job(job_id bigint) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'resume_job_wrapper';
COMMENT ON FUNCTION iot.resume_job(bigint) IS 'Lets a paused job start by itself again, from its next planned start on.';

CREATE FUNCTION iot.resume_job(job_name text) RETURNS void
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'resume_job_named_wrapper';
COMMENT ON FUNCTION iot.resume_job(text) IS 'The same by name.';

CREATE FUNCTION iot.delete_job(job_id bigint, if_exists boolean DEFAULT false) RETURNS boolean
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'delete_job_wrapper';
COMMENT ON FUNCTION iot.delete_job(bigint, boolean) IS 'Deletes a job and its history; whether there was one. A run that goes on is not ended.';

CREATE FUNCTION iot.delete_job(job_name text, if_exists boolean DEFAULT false) RETURNS boolean
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'delete_job_named_wrapper';
COMMENT ON FUNCTION iot.delete_job(text, boolean) IS 'The same by name.';

-- No SET clause, which would forbid COMMIT.
CREATE PROCEDURE iot.run_job(job_id bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'run_job_wrapper';
COMMENT ON PROCEDURE iot.run_job(bigint) IS
    'Runs a job now, paused or not, in this session and as its owner; what needs the top level of a session is handed to a background worker that is waited for. Commits.';

CREATE PROCEDURE iot.run_job(job_name text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'run_job_named_wrapper';
COMMENT ON PROCEDURE iot.run_job(text) IS 'The same by name.';

CREATE FUNCTION iot.schedule_starts(
    schedule text, time_zone text DEFAULT 'UTC', after timestamptz DEFAULT pg_catalog.now(), count integer DEFAULT 5)
    RETURNS SETOF timestamptz
    STABLE STRICT PARALLEL SAFE ROWS 5
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'schedule_starts_wrapper';
COMMENT ON FUNCTION iot.schedule_starts(text, text, timestamptz, integer) IS
    'The first starts of a schedule after a time, by the clocks of a zone; an interval is counted from that time.';

CREATE FUNCTION iot.describe_cron(expression text) RETURNS text
    IMMUTABLE STRICT PARALLEL SAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'describe_cron_wrapper';
COMMENT ON FUNCTION iot.describe_cron(text) IS 'A cron expression in English; what is none comes back as it is.';

-- What a DBA wants to see. The catalogue itself is not for everybody: a command may hold secrets. Hence no security_invoker,
-- and a condition instead.
CREATE VIEW iot.jobs WITH (security_barrier = true) AS
SELECT j.job_id, j.job_name, j.job_kind, j.owner, j.target,
       COALESCE(j.schedule_cron, j.schedule_interval::pg_catalog.text) AS schedule,
       COALESCE(iot.describe_cron(j.schedule_cron), pg_catalog.concat('Every ', j.schedule_interval)) AS schedule_in_words,
       j.time_zone,
       CASE WHEN NOT j.is_paused AND s.running_pid IS NULL THEN s.next_start END AS next_start,
       j.is_paused, j.pause_reason, s.running_pid, s.last_started_at, s.last_finished_at, s.last_outcome, s.last_error,
       COALESCE(s.consecutive_failures, 0) AS consecutive_failures, COALESCE(s.total_runs, 0) AS total_runs,
       COALESCE(s.total_failures, 0) AS total_failures, j.command, j.parameters, j.jitter, j.first_start, j.timeout,
       j.max_retries, j.retry_delay, j.created_at
  FROM iot.job j
  LEFT JOIN iot.job_state s ON s.job_id OPERATOR(pg_catalog.=) j.job_id
 WHERE pg_catalog.pg_has_role(j.owner::pg_catalog.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW iot.jobs IS 'The jobs of the roles that one is a member of; all of them for superusers and members of pg_monitor.';
COMMENT ON COLUMN iot.jobs.job_id IS 'Number of the job.';
COMMENT ON COLUMN iot.jobs.job_name IS 'Name of the job.';
COMMENT ON COLUMN iot.jobs.job_kind IS 'What it does.';
COMMENT ON COLUMN iot.jobs.owner IS 'Role as which it runs.';
COMMENT ON COLUMN iot.jobs.target IS 'Relation that it works on.';
COMMENT ON COLUMN iot.jobs.schedule IS 'Interval or cron expression.';
COMMENT ON COLUMN iot.jobs.schedule_in_words IS 'The same in English.';
COMMENT ON COLUMN iot.jobs.time_zone IS 'Zone whose clocks the schedule goes by.';
COMMENT ON COLUMN iot.jobs.next_start IS 'When it is due; NULL while it runs or is paused.';
COMMENT ON COLUMN iot.jobs.is_paused IS 'Whether it does not start by itself.';
COMMENT ON COLUMN iot.jobs.pause_reason IS 'Why it is paused.';
COMMENT ON COLUMN iot.jobs.running_pid IS 'Process that runs it.';
COMMENT ON COLUMN iot.jobs.last_started_at IS 'When it last started.';
COMMENT ON COLUMN iot.jobs.last_finished_at IS 'When it last ended.';
COMMENT ON COLUMN iot.jobs.last_outcome IS 'How it last ended.';
COMMENT ON COLUMN iot.jobs.last_error IS 'Message of the last run, unless that succeeded.';
COMMENT ON COLUMN iot.jobs.consecutive_failures IS 'Runs that failed since the last one that did not.';
COMMENT ON COLUMN iot.jobs.total_runs IS 'Runs that were started.';
COMMENT ON COLUMN iot.jobs.total_failures IS 'Those among them that failed, timed out or were interrupted.';
COMMENT ON COLUMN iot.jobs.command IS 'SQL that it runs.';
COMMENT ON COLUMN iot.jobs.parameters IS 'Settings of its kind.';
COMMENT ON COLUMN iot.jobs.jitter IS 'Each start is put off by a time below this.';
COMMENT ON COLUMN iot.jobs.first_start IS 'From which an interval is counted.';
COMMENT ON COLUMN iot.jobs.timeout IS 'A run that takes longer is ended.';
COMMENT ON COLUMN iot.jobs.max_retries IS 'Attempts after a failed start.';
COMMENT ON COLUMN iot.jobs.retry_delay IS 'Wait before the first of them.';
COMMENT ON COLUMN iot.jobs.created_at IS 'When it was made.';
GRANT SELECT ON iot.jobs TO PUBLIC;

CREATE VIEW iot.job_runs WITH (security_barrier = true) AS
SELECT r.run_id, r.job_id, j.job_name, j.job_kind, j.owner, r.started_at, r.finished_at,
       COALESCE(r.finished_at, pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.-) r.started_at AS duration,
       r.outcome, r.sqlstate, r.message, r.detail, r.pid
  FROM iot.job_run r
  JOIN iot.job j ON j.job_id OPERATOR(pg_catalog.=) r.job_id
 WHERE pg_catalog.pg_has_role(j.owner::pg_catalog.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW iot.job_runs IS 'The last 100 runs of each job that iot.jobs shows, and none older than 30 days.';
COMMENT ON COLUMN iot.job_runs.run_id IS 'Number of the run.';
COMMENT ON COLUMN iot.job_runs.job_id IS 'Number of the job.';
COMMENT ON COLUMN iot.job_runs.job_name IS 'Name of the job.';
COMMENT ON COLUMN iot.job_runs.job_kind IS 'What the job does.';
COMMENT ON COLUMN iot.job_runs.owner IS 'Role as which the job runs.';
COMMENT ON COLUMN iot.job_runs.started_at IS 'When it started.';
COMMENT ON COLUMN iot.job_runs.finished_at IS 'When it ended.';
COMMENT ON COLUMN iot.job_runs.duration IS 'How long it took, or has taken so far.';
COMMENT ON COLUMN iot.job_runs.outcome IS 'running, succeeded, failed, deferred, timed_out, cancelled or interrupted.';
COMMENT ON COLUMN iot.job_runs.sqlstate IS 'SQLSTATE of what went wrong.';
COMMENT ON COLUMN iot.job_runs.message IS 'Message of what went wrong.';
COMMENT ON COLUMN iot.job_runs.detail IS 'What was done, in the terms of the job''s kind.';
COMMENT ON COLUMN iot.job_runs.pid IS 'Process that ran it.';
GRANT SELECT ON iot.job_runs TO PUBLIC;
