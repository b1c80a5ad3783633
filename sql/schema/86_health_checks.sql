-- What the database finds wrong with itself, and the alerts that come of it.

-- In plpgsql, whose statements are parsed when they run: before setup() the tables are not there.
CREATE FUNCTION iot.health_checks()
    RETURNS TABLE (check_name text, subject text, status text, value double precision, threshold double precision, message text)
    VOLATILE PARALLEL RESTRICTED
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_set_up CONSTANT boolean := to_regclass('iot.rejected_readings') IS NOT NULL;
BEGIN
    RETURN QUERY
    SELECT 'failed_job', j.job_name, CASE WHEN j.consecutive_failures >= 3 THEN 'critical' ELSE 'warning' END,
           j.consecutive_failures::float8, 1::float8,
           format('Job "%s" failed %s time(s) in a row: %s', j.job_name, j.consecutive_failures,
                  COALESCE(j.last_error, j.last_outcome))
      FROM iot.jobs j WHERE j.consecutive_failures > 0 AND NOT j.is_paused;
    RETURN QUERY
    SELECT 'paused_job', j.job_name, 'warning', NULL::float8, NULL::float8,
           format('Job "%s" does not run: its owner does not exist any more', j.job_name)
      FROM iot.jobs j WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = j.owner::oid);
    RETURN QUERY
    SELECT 'late_job', j.job_name, 'warning', EXTRACT(EPOCH FROM now() - j.next_start)::float8, 900::float8,
           format('Job "%s" has been due since %s and was not started', j.job_name, to_char(j.next_start, 'YYYY-MM-DD HH24:MI TZH:TZM'))
      FROM iot.jobs j WHERE j.next_start < now() - interval '15 minutes';

    -- Rows of the next interval must find their partition even if upkeep fails once. What lies behind a gap is not ready.
    RETURN QUERY
    SELECT 'partition_runway', t.parent::text,
           CASE WHEN t.ready_until > now() THEN 'warning' ELSE 'critical' END,
           EXTRACT(EPOCH FROM t.ready_until - now())::float8, EXTRACT(EPOCH FROM t.partition_interval)::float8,
           CASE WHEN t.ready_until > now()
                THEN format('Partitions of %s are ready until %s only', t.parent, to_char(t.ready_until, 'YYYY-MM-DD HH24:MI TZH:TZM'))
                ELSE format('%s has no partition for now', t.parent) END
      FROM (SELECT s.parent, s.partition_interval,
                   CASE WHEN count(*) FILTER (WHERE p.range_start <= now() AND p.range_end > now()) = 0 THEN now()
                        ELSE min(p.range_end) FILTER (WHERE p.range_end > now() AND p.next_start IS DISTINCT FROM p.range_end)
                   END AS ready_until
              FROM iot.partition_settings s
              LEFT JOIN LATERAL (
                   SELECT r.range_start, r.range_end, lead(r.range_start) OVER (ORDER BY r.range_start) AS next_start
                     FROM (SELECT COALESCE(l.range_start, '-infinity') AS range_start, COALESCE(l.range_end, 'infinity') AS range_end
                             FROM iot.partitions l
                            WHERE l.parent = s.parent AND num_nonnulls(l.range_start, l.range_end) > 0) AS r) AS p ON true
             WHERE s.premake > 0 AND has_table_privilege(s.parent, 'SELECT')
             GROUP BY s.parent, s.partition_interval) AS t
     WHERE t.ready_until < now() + t.partition_interval;
    RETURN QUERY
    SELECT 'disk_budget', t.parent::text, CASE WHEN t.bytes > t.maximum_bytes THEN 'critical' ELSE 'warning' END,
           t.bytes::float8, t.maximum_bytes::float8,
           format('%s has %s of its budget of %s', t.parent, pg_size_pretty(t.bytes), pg_size_pretty(t.maximum_bytes))
      FROM (SELECT s.parent, s.maximum_bytes, sum(p.bytes)::bigint AS bytes
              FROM iot.partition_settings s JOIN iot.partitions p ON p.parent = s.parent
             WHERE s.maximum_bytes IS NOT NULL
             GROUP BY s.parent, s.maximum_bytes) AS t
     WHERE t.bytes > 0.9 * t.maximum_bytes;

    IF is_set_up AND has_table_privilege('iot.rejected_readings', 'SELECT') THEN
        RETURN QUERY
        SELECT 'rejected_readings', '', 'warning', t.last_hour::float8, GREATEST(100, 10 * t.usual)::float8,
               format('%s readings were rejected in the last hour, %s in a usual one; see iot.rejected_readings',
                      t.last_hour, round(t.usual, 1))
          FROM (SELECT count(*) FILTER (WHERE r.received_at >= now() - interval '1 hour') AS last_hour,
                       count(*) FILTER (WHERE r.received_at < now() - interval '1 hour') / 167.0 AS usual
                  FROM iot.rejected_readings r
                 WHERE r.received_at >= now() - interval '7 days' AND r.replayed_at IS NULL) AS t
         WHERE t.last_hour > GREATEST(100, 10 * t.usual);
    END IF;

    IF has_table_privilege('iot.iot_stat_tracked_sensors', 'SELECT') THEN
        RETURN QUERY
        SELECT 'tracked_sensors', '', 'warning', t.tracked::float8, t.capacity::float8,
               format('Shared memory has room for %s sensors, and is full: others are scored from the table. Raise iot_ext.max_tracked_sensors.',
                      t.capacity)
          FROM iot.iot_stat_tracked_sensors t WHERE t.capacity > 0 AND t.refused > 0 AND t.tracked >= t.capacity;
    END IF;
    RETURN QUERY
    SELECT 'transaction_ids', '', CASE WHEN h.transaction_id_age > 1500000000 THEN 'critical' ELSE 'warning' END,
           h.transaction_id_age::float8, 1000000000::float8,
           format('The oldest transaction id is %s transactions old: autovacuum does not keep up', h.transaction_id_age)
      FROM iot.db_health h WHERE h.transaction_id_age > 1000000000;
    RETURN QUERY
    SELECT 'connections', '', CASE WHEN c.used_percent >= 98 THEN 'critical' ELSE 'warning' END,
           c.used_percent::float8, 90::float8, format('%s %% of the connections are in use', c.used_percent)
      FROM iot.connection_usage c WHERE c.used_percent >= 90;
END
$$;
COMMENT ON FUNCTION iot.health_checks() IS
    'What is wrong with the database as it keeps itself, as far as the caller may see it: jobs, partitions, budgets, rejected readings, memory, transaction ids, connections. No row means nothing is.';

CREATE FUNCTION iot.health() RETURNS jsonb
    VOLATILE PARALLEL RESTRICTED
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
               'status', COALESCE((SELECT min(c.status) FROM iot.health_checks() c), 'ok'),
               'checked_at', clock_timestamp(),
               'version', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'iot_ext'),
               -- NULL for whom PostgreSQL does not tell.
               'is_preloaded', (SELECT EXISTS (SELECT FROM unnest(string_to_array(s.setting, ',')) l WHERE btrim(l, ' "') = 'iot_ext')
                                  FROM pg_settings s WHERE s.name = 'shared_preload_libraries'),
               'is_standby', pg_is_in_recovery(),
               'findings', COALESCE((SELECT jsonb_agg(to_jsonb(c) ORDER BY c.status, c.check_name, c.subject)
                                       FROM iot.health_checks() c), '[]'))
$$;
COMMENT ON FUNCTION iot.health() IS
    'The findings of iot.health_checks() as one document; status is the worst of them: critical, warning or ok.';

-- One open alert for each check and subject; it counts while the finding lasts, and is resolved when it is gone.
CREATE FUNCTION iot.check_health() RETURNS integer
    VOLATILE PARALLEL UNSAFE
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    finding record;
    found integer := 0;
    began CONSTANT timestamptz := clock_timestamp();
    caller CONSTANT name := current_user;
BEGIN
    IF to_regclass('iot.alerts') IS NULL THEN
        RAISE EXCEPTION 'the tables of iot_ext do not exist'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT iot.setup();';
    END IF;
    FOR finding IN SELECT * FROM iot.health_checks() c ORDER BY c.check_name, c.subject LOOP
        INSERT INTO iot.alerts AS a (alert_type, severity, message, threshold_value, actual_value, last_value, alert_metadata)
        VALUES ('system_health', finding.status, finding.message, finding.threshold, finding.value, finding.value,
                jsonb_build_object('check', finding.check_name, 'subject', finding.subject, 'found_by', caller))
            ON CONFLICT ((alert_metadata ->> 'check'), (alert_metadata ->> 'subject'))
                WHERE alert_type = 'system_health' AND alert_status <> 'resolved'
            DO UPDATE SET occurrences = a.occurrences + 1, last_value = EXCLUDED.last_value, severity = EXCLUDED.severity,
                          message = EXCLUDED.message, last_occurred_at = clock_timestamp();
        found := found + 1;
    END LOOP;
    -- Who sees less than whoever found it cannot know that it is gone.
    UPDATE iot.alerts a
       SET alert_status = 'resolved', resolved_at = clock_timestamp(), resolved_by = 'iot.check_health()'
     WHERE a.alert_type = 'system_health' AND a.alert_status <> 'resolved' AND a.last_occurred_at < began
       AND pg_has_role(COALESCE(to_regrole(quote_ident(a.alert_metadata ->> 'found_by'))::oid, 'pg_monitor'::regrole), 'USAGE');
    RETURN found;
END
$$;
COMMENT ON FUNCTION iot.check_health() IS
    'Turns the findings of iot.health_checks() into rows of iot.alerts with alert_type "system_health", and resolves those that are gone, if it was the caller, or a role that he is a member of, who found them; returns how many there are. The job kind health_check calls it. It does what its caller may do.';
