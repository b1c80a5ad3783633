-- How the parts that keep the database are doing, in one row each: for dashboards and monitoring.

CREATE VIEW iot.iot_stat_jobs WITH (security_barrier = true) AS
SELECT j.job_id, j.job_name, j.job_kind, j.owner, j.running_pid IS NOT NULL AS is_running, j.is_paused, j.total_runs,
       j.total_failures, j.consecutive_failures, j.last_started_at, j.last_finished_at, j.last_outcome, j.next_start,
       CASE WHEN j.next_start OPERATOR(pg_catalog.<) pg_catalog.now() THEN pg_catalog.now() OPERATOR(pg_catalog.-) j.next_start END AS late_by,
       r.runs_kept, r.average_duration, r.longest_duration, r.last_duration
  FROM iot.jobs j
  LEFT JOIN LATERAL (
       SELECT pg_catalog.count(*) AS runs_kept, pg_catalog.avg(k.duration) AS average_duration, pg_catalog.max(k.duration) AS longest_duration,
              (pg_catalog.array_agg(k.duration ORDER BY k.run_id DESC))[1] AS last_duration
         FROM iot.job_runs k
        WHERE k.job_id OPERATOR(pg_catalog.=) j.job_id AND k.finished_at IS NOT NULL) r ON true;
COMMENT ON VIEW iot.iot_stat_jobs IS 'Runs, failures and durations of the jobs that iot.jobs shows; durations are those of the runs that are kept.';
COMMENT ON COLUMN iot.iot_stat_jobs.job_id IS 'Number of the job.';
COMMENT ON COLUMN iot.iot_stat_jobs.job_name IS 'Name of the job.';
COMMENT ON COLUMN iot.iot_stat_jobs.job_kind IS 'What it does.';
COMMENT ON COLUMN iot.iot_stat_jobs.owner IS 'Role as which it runs.';
COMMENT ON COLUMN iot.iot_stat_jobs.is_running IS 'Whether it runs now.';
COMMENT ON COLUMN iot.iot_stat_jobs.is_paused IS 'Whether it does not start by itself.';
COMMENT ON COLUMN iot.iot_stat_jobs.total_runs IS 'Runs that were started.';
COMMENT ON COLUMN iot.iot_stat_jobs.total_failures IS 'Those among them that failed, timed out or were interrupted.';
COMMENT ON COLUMN iot.iot_stat_jobs.consecutive_failures IS 'Runs that failed since the last one that did not.';
COMMENT ON COLUMN iot.iot_stat_jobs.last_started_at IS 'When it last started.';
COMMENT ON COLUMN iot.iot_stat_jobs.last_finished_at IS 'When it last ended.';
COMMENT ON COLUMN iot.iot_stat_jobs.last_outcome IS 'How it last ended.';
COMMENT ON COLUMN iot.iot_stat_jobs.next_start IS 'When it is due; NULL while it runs or is paused.';
COMMENT ON COLUMN iot.iot_stat_jobs.late_by IS 'For how long it has been due; NULL for what is not.';
COMMENT ON COLUMN iot.iot_stat_jobs.runs_kept IS 'Finished runs of iot.job_runs, from which the durations come.';
COMMENT ON COLUMN iot.iot_stat_jobs.average_duration IS 'Their mean duration.';
COMMENT ON COLUMN iot.iot_stat_jobs.longest_duration IS 'The longest.';
COMMENT ON COLUMN iot.iot_stat_jobs.last_duration IS 'That of the last one.';
GRANT SELECT ON iot.iot_stat_jobs TO PUBLIC;

CREATE VIEW iot.iot_stat_partitions WITH (security_invoker = true) AS
SELECT p.parent, pg_catalog.count(*) AS partitions,
       pg_catalog.sum(p.row_estimate)::pg_catalog.int8 AS row_estimate, pg_catalog.sum(p.bytes)::pg_catalog.int8 AS bytes,
       pg_catalog.min(p.range_start) AS oldest, pg_catalog.max(p.range_end) AS newest_end,
       pg_catalog.count(*) FILTER (WHERE p.range_start OPERATOR(pg_catalog.>) pg_catalog.now()) AS premade,
       pg_catalog.count(*) FILTER (WHERE p.tier OPERATOR(pg_catalog.=) 'hot') AS hot,
       pg_catalog.count(*) FILTER (WHERE p.tier OPERATOR(pg_catalog.=) 'warm') AS warm,
       pg_catalog.count(*) FILTER (WHERE p.tier OPERATOR(pg_catalog.=) 'cold') AS cold,
       pg_catalog.count(*) FILTER (WHERE p.next_action_at OPERATOR(pg_catalog.<=) pg_catalog.now()
                                     AND p.next_action OPERATOR(pg_catalog.<>) 'blocked') AS due,
       pg_catalog.count(*) FILTER (WHERE p.next_action OPERATOR(pg_catalog.=) 'blocked') AS blocked
  FROM iot.partitions p
 GROUP BY p.parent;
COMMENT ON VIEW iot.iot_stat_partitions IS 'Partitions of each managed table that the reader may read: how many, how large, from when to when, and what is due.';
COMMENT ON COLUMN iot.iot_stat_partitions.parent IS 'The partitioned table.';
COMMENT ON COLUMN iot.iot_stat_partitions.partitions IS 'How many it has.';
COMMENT ON COLUMN iot.iot_stat_partitions.row_estimate IS 'Rows, as of the last ANALYZE or VACUUM.';
COMMENT ON COLUMN iot.iot_stat_partitions.bytes IS 'Size with indexes and TOAST.';
COMMENT ON COLUMN iot.iot_stat_partitions.oldest IS 'First time inside.';
COMMENT ON COLUMN iot.iot_stat_partitions.newest_end IS 'First time after the last one.';
COMMENT ON COLUMN iot.iot_stat_partitions.premade IS 'Those that begin in the future.';
COMMENT ON COLUMN iot.iot_stat_partitions.hot IS 'Those with every index.';
COMMENT ON COLUMN iot.iot_stat_partitions.warm IS 'Those with the indexes of the middle tier.';
COMMENT ON COLUMN iot.iot_stat_partitions.cold IS 'Those with the indexes of the last tier.';
COMMENT ON COLUMN iot.iot_stat_partitions.due IS 'Those for which something is to be done now.';
COMMENT ON COLUMN iot.iot_stat_partitions.blocked IS 'Those that a guard keeps from being dropped.';
GRANT SELECT ON iot.iot_stat_partitions TO PUBLIC;
