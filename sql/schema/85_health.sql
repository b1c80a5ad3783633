-- What a DBA looks at: the server, its connections, tables, indexes, slow statements, replicas.
-- Views show what PostgreSQL's own statistics views show the reader: membership in pg_monitor shows everything.

CREATE VIEW iot.db_health WITH (security_invoker = true) AS
SELECT d.datname AS database_name,
       pg_catalog.pg_database_size(d.oid) AS database_bytes,
       pg_catalog.pg_size_pretty(pg_catalog.pg_database_size(d.oid)) AS db_size,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
         WHERE a.datid OPERATOR(pg_catalog.=) d.oid AND a.state OPERATOR(pg_catalog.=) 'active') AS active_connections,
       s.numbackends AS connections,
       CASE WHEN (s.blks_hit OPERATOR(pg_catalog.+) s.blks_read) OPERATOR(pg_catalog.>) 0
            THEN pg_catalog.round(100.0 OPERATOR(pg_catalog.*) s.blks_hit
                     OPERATOR(pg_catalog./) (s.blks_hit OPERATOR(pg_catalog.+) s.blks_read), 2) END AS cache_hit_percent,
       s.xact_commit AS transactions_committed,
       s.xact_rollback AS transactions_rolled_back,
       s.deadlocks,
       s.temp_bytes,
       pg_catalog.age(d.datfrozenxid) AS transaction_id_age,
       (SELECT pg_catalog.max(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.xact_start)
          FROM pg_catalog.pg_stat_activity a
         WHERE a.datid OPERATOR(pg_catalog.=) d.oid AND a.backend_type OPERATOR(pg_catalog.=) 'client backend')
           AS longest_transaction,
       pg_catalog.pg_is_in_recovery() AS is_standby,
       pg_catalog.pg_postmaster_start_time() AS server_started_at,
       s.stats_reset AS statistics_since
  FROM pg_catalog.pg_database d
  JOIN pg_catalog.pg_stat_database s ON s.datid OPERATOR(pg_catalog.=) d.oid
 WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
COMMENT ON VIEW iot.db_health IS 'The current database at a glance, in one row.';
COMMENT ON COLUMN iot.db_health.database_name IS 'Its name.';
COMMENT ON COLUMN iot.db_health.database_bytes IS 'Its size on disk.';
COMMENT ON COLUMN iot.db_health.db_size IS 'The same for people.';
COMMENT ON COLUMN iot.db_health.active_connections IS 'Sessions that run a statement.';
COMMENT ON COLUMN iot.db_health.connections IS 'Sessions.';
COMMENT ON COLUMN iot.db_health.cache_hit_percent IS 'Part of the pages that were found in shared buffers.';
COMMENT ON COLUMN iot.db_health.transactions_committed IS 'Transactions that were committed.';
COMMENT ON COLUMN iot.db_health.transactions_rolled_back IS 'Transactions that were rolled back.';
COMMENT ON COLUMN iot.db_health.deadlocks IS 'Deadlocks found.';
COMMENT ON COLUMN iot.db_health.temp_bytes IS 'Written to temporary files.';
COMMENT ON COLUMN iot.db_health.transaction_id_age IS 'Transactions since the oldest row that is not frozen; autovacuum acts at autovacuum_freeze_max_age, the server stops before 2 billion.';
COMMENT ON COLUMN iot.db_health.longest_transaction IS 'Age of the oldest transaction of a client: it keeps dead rows from being vacuumed away.';
COMMENT ON COLUMN iot.db_health.is_standby IS 'Whether the server replays another one.';
COMMENT ON COLUMN iot.db_health.server_started_at IS 'When the server started.';
COMMENT ON COLUMN iot.db_health.statistics_since IS 'Since when the counters count.';
GRANT SELECT ON iot.db_health TO PUBLIC;

CREATE VIEW iot.connection_usage WITH (security_invoker = true) AS
SELECT c.max_connections,
       c.reserved_connections,
       a.total_connections,
       a.active_connections,
       a.idle_connections,
       a.idle_in_transaction,
       a.waiting_for_locks,
       pg_catalog.round(100.0 OPERATOR(pg_catalog.*) a.total_connections
           OPERATOR(pg_catalog./) (c.max_connections OPERATOR(pg_catalog.-) c.reserved_connections), 1) AS used_percent,
       a.longest_idle_in_transaction
  FROM (SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4 AS max_connections,
               pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4
                   OPERATOR(pg_catalog.+) COALESCE(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int4
                   AS reserved_connections) AS c,
       (SELECT pg_catalog.count(*) AS total_connections,
               pg_catalog.count(*) FILTER (WHERE s.state OPERATOR(pg_catalog.=) 'active') AS active_connections,
               pg_catalog.count(*) FILTER (WHERE s.state OPERATOR(pg_catalog.=) 'idle') AS idle_connections,
               pg_catalog.count(*) FILTER (WHERE s.state OPERATOR(pg_catalog.~~) 'idle in transaction%') AS idle_in_transaction,
               pg_catalog.count(*) FILTER (WHERE s.wait_event_type OPERATOR(pg_catalog.=) 'Lock') AS waiting_for_locks,
               pg_catalog.max(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.state_change)
                   FILTER (WHERE s.state OPERATOR(pg_catalog.~~) 'idle in transaction%') AS longest_idle_in_transaction
          FROM pg_catalog.pg_stat_activity s
         WHERE s.backend_type OPERATOR(pg_catalog.=) 'client backend') AS a;
COMMENT ON VIEW iot.connection_usage IS 'Connections of clients to the whole server against what it takes.';
COMMENT ON COLUMN iot.connection_usage.max_connections IS 'Setting of that name.';
COMMENT ON COLUMN iot.connection_usage.reserved_connections IS 'Kept for superusers and roles with that privilege.';
COMMENT ON COLUMN iot.connection_usage.total_connections IS 'Connections of clients.';
COMMENT ON COLUMN iot.connection_usage.active_connections IS 'Those that run a statement.';
COMMENT ON COLUMN iot.connection_usage.idle_connections IS 'Those that wait for their client.';
COMMENT ON COLUMN iot.connection_usage.idle_in_transaction IS 'Those that wait for their client with a transaction open.';
COMMENT ON COLUMN iot.connection_usage.waiting_for_locks IS 'Those that wait for a lock.';
COMMENT ON COLUMN iot.connection_usage.used_percent IS 'Connections against those that ordinary roles may have.';
COMMENT ON COLUMN iot.connection_usage.longest_idle_in_transaction IS 'How long the longest of these has been waiting.';
GRANT SELECT ON iot.connection_usage TO PUBLIC;

-- Partitions count with their topmost table.
CREATE VIEW iot.table_stats WITH (security_invoker = true) AS
SELECT n.nspname AS schemaname,
       c.relname,
       c.relname AS tablename,
       t.partitions,
       t.inserts,
       t.updates,
       t.deletes,
       t.live_tuples,
       t.dead_tuples,
       t.sequential_scans,
       t.index_scans,
       t.table_bytes,
       t.index_bytes,
       t.total_bytes,
       pg_catalog.pg_size_pretty(t.total_bytes) AS total_size,
       t.last_vacuum,
       t.last_analyze
  FROM (SELECT COALESCE(pg_catalog.pg_partition_root(s.relid), s.relid::pg_catalog.regclass) AS relid,
               pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_partition_root(s.relid) IS NOT NULL) AS partitions,
               pg_catalog.sum(s.n_tup_ins)::pg_catalog.int8 AS inserts,
               pg_catalog.sum(s.n_tup_upd)::pg_catalog.int8 AS updates,
               pg_catalog.sum(s.n_tup_del)::pg_catalog.int8 AS deletes,
               pg_catalog.sum(s.n_live_tup)::pg_catalog.int8 AS live_tuples,
               pg_catalog.sum(s.n_dead_tup)::pg_catalog.int8 AS dead_tuples,
               pg_catalog.sum(s.seq_scan)::pg_catalog.int8 AS sequential_scans,
               pg_catalog.sum(s.idx_scan)::pg_catalog.int8 AS index_scans,
               pg_catalog.sum(pg_catalog.pg_table_size(s.relid))::pg_catalog.int8 AS table_bytes,
               pg_catalog.sum(pg_catalog.pg_indexes_size(s.relid))::pg_catalog.int8 AS index_bytes,
               pg_catalog.sum(pg_catalog.pg_total_relation_size(s.relid))::pg_catalog.int8 AS total_bytes,
               pg_catalog.max(GREATEST(s.last_vacuum, s.last_autovacuum)) AS last_vacuum,
               pg_catalog.max(GREATEST(s.last_analyze, s.last_autoanalyze)) AS last_analyze
          FROM pg_catalog.pg_stat_user_tables s
         GROUP BY 1) AS t
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace;
COMMENT ON VIEW iot.table_stats IS 'Traffic and size of each table; partitions count with their topmost table.';
COMMENT ON COLUMN iot.table_stats.schemaname IS 'Schema.';
COMMENT ON COLUMN iot.table_stats.relname IS 'Table.';
COMMENT ON COLUMN iot.table_stats.tablename IS 'The same, under its name in pg_tables.';
COMMENT ON COLUMN iot.table_stats.partitions IS 'Partitions that are counted with it.';
COMMENT ON COLUMN iot.table_stats.inserts IS 'Rows inserted.';
COMMENT ON COLUMN iot.table_stats.updates IS 'Rows updated.';
COMMENT ON COLUMN iot.table_stats.deletes IS 'Rows deleted.';
COMMENT ON COLUMN iot.table_stats.live_tuples IS 'Rows, estimated.';
COMMENT ON COLUMN iot.table_stats.dead_tuples IS 'Dead rows that VACUUM has not removed yet, estimated.';
COMMENT ON COLUMN iot.table_stats.sequential_scans IS 'Scans of whole tables.';
COMMENT ON COLUMN iot.table_stats.index_scans IS 'Scans by index.';
COMMENT ON COLUMN iot.table_stats.table_bytes IS 'Size without indexes.';
COMMENT ON COLUMN iot.table_stats.index_bytes IS 'Size of the indexes.';
COMMENT ON COLUMN iot.table_stats.total_bytes IS 'Size of everything.';
COMMENT ON COLUMN iot.table_stats.total_size IS 'The same for people.';
COMMENT ON COLUMN iot.table_stats.last_vacuum IS 'Last time that it, or one of its partitions, was vacuumed.';
COMMENT ON COLUMN iot.table_stats.last_analyze IS 'Last time that it, or one of its partitions, was analyzed.';
GRANT SELECT ON iot.table_stats TO PUBLIC;

CREATE VIEW iot.index_usage WITH (security_invoker = true) AS
SELECT n.nspname AS schemaname,
       t.relname AS tablename,
       c.relname AS index_name,
       u.index_scans,
       u.index_reads,
       u.index_fetches,
       u.index_bytes,
       i.indisunique AS is_unique,
       u.index_scans OPERATOR(pg_catalog.=) 0 AND NOT i.indisunique AS is_unused
  FROM (SELECT COALESCE(pg_catalog.pg_partition_root(s.indexrelid), s.indexrelid::pg_catalog.regclass) AS indexrelid,
               pg_catalog.sum(s.idx_scan)::pg_catalog.int8 AS index_scans,
               pg_catalog.sum(s.idx_tup_read)::pg_catalog.int8 AS index_reads,
               pg_catalog.sum(s.idx_tup_fetch)::pg_catalog.int8 AS index_fetches,
               pg_catalog.sum(pg_catalog.pg_relation_size(s.indexrelid))::pg_catalog.int8 AS index_bytes
          FROM pg_catalog.pg_stat_user_indexes s
         GROUP BY 1) AS u
  JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) u.indexrelid
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace;
COMMENT ON VIEW iot.index_usage IS 'Use and size of each index; those of partitions count with the topmost one.';
COMMENT ON COLUMN iot.index_usage.schemaname IS 'Schema.';
COMMENT ON COLUMN iot.index_usage.tablename IS 'Table.';
COMMENT ON COLUMN iot.index_usage.index_name IS 'Index.';
COMMENT ON COLUMN iot.index_usage.index_scans IS 'Scans of it.';
COMMENT ON COLUMN iot.index_usage.index_reads IS 'Index entries that scans returned.';
COMMENT ON COLUMN iot.index_usage.index_fetches IS 'Table rows fetched by plain scans of it.';
COMMENT ON COLUMN iot.index_usage.index_bytes IS 'Its size.';
COMMENT ON COLUMN iot.index_usage.is_unique IS 'Whether it keeps a key unique.';
COMMENT ON COLUMN iot.index_usage.is_unused IS 'Whether nothing was found by it since the counters began, and it keeps nothing unique.';
GRANT SELECT ON iot.index_usage TO PUBLIC;

-- pg_stat_statements may be in any schema, or nowhere; the query is made when it is known where.
CREATE FUNCTION iot.slow_statements(minimum_milliseconds double precision DEFAULT 1000, maximum_rows integer DEFAULT 10)
    RETURNS TABLE (query text, calls bigint, total_time double precision, mean_time double precision,
                   max_time double precision, rows bigint)
    STABLE STRICT PARALLEL RESTRICTED
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                    WHERE e.extname = 'pg_stat_statements');
BEGIN
    IF place IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT s.query, s.calls, s.total_exec_time, s.mean_exec_time, s.max_exec_time, s.rows
           FROM %I.pg_stat_statements s
          WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND s.mean_exec_time > $1
          ORDER BY s.mean_exec_time DESC LIMIT $2', place)
      USING minimum_milliseconds, maximum_rows;
EXCEPTION
    -- Created, and not preloaded.
    WHEN object_not_in_prerequisite_state THEN
        RETURN;
END
$$;
COMMENT ON FUNCTION iot.slow_statements(double precision, integer) IS
    'Statements of this database that take longer than that on average, slowest first; none without the extension pg_stat_statements.';

CREATE VIEW iot.slow_queries WITH (security_invoker = true) AS
SELECT s.query, s.calls, s.total_time, s.mean_time, s.max_time, s.rows FROM iot.slow_statements() s;
COMMENT ON VIEW iot.slow_queries IS 'The ten statements that take longest on average, of those above a second; none without the extension pg_stat_statements.';
COMMENT ON COLUMN iot.slow_queries.query IS 'The statement, constants replaced.';
COMMENT ON COLUMN iot.slow_queries.calls IS 'How often it ran.';
COMMENT ON COLUMN iot.slow_queries.total_time IS 'Milliseconds of all runs.';
COMMENT ON COLUMN iot.slow_queries.mean_time IS 'Milliseconds of a run.';
COMMENT ON COLUMN iot.slow_queries.max_time IS 'Milliseconds of the longest run.';
COMMENT ON COLUMN iot.slow_queries.rows IS 'Rows returned or changed.';
GRANT SELECT ON iot.slow_queries TO PUBLIC;

-- On a standby the position of the server is what it has received.
CREATE VIEW iot.replication_lag WITH (security_invoker = true) AS
SELECT r.client_addr AS replica,
       r.application_name,
       r.state,
       r.sync_state,
       pg_catalog.pg_wal_lsn_diff(w.position, r.sent_lsn)::pg_catalog.int8 AS lag_bytes,
       pg_catalog.pg_wal_lsn_diff(w.position, r.replay_lsn)::pg_catalog.int8 AS replay_lag_bytes,
       COALESCE(EXTRACT(EPOCH FROM r.replay_lag), 0)::pg_catalog.float8 AS lag_seconds
  FROM pg_catalog.pg_stat_replication r
 CROSS JOIN (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                         ELSE pg_catalog.pg_current_wal_lsn() END AS position) AS w
UNION ALL
SELECT NULL, 'this standby', 'replaying', NULL,
       0,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::pg_catalog.int8,
       CASE WHEN pg_catalog.pg_last_wal_receive_lsn() OPERATOR(pg_catalog.=) pg_catalog.pg_last_wal_replay_lsn() THEN 0
            ELSE EXTRACT(EPOCH FROM pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp())::pg_catalog.float8 END
 WHERE pg_catalog.pg_is_in_recovery();
COMMENT ON VIEW iot.replication_lag IS 'How far the replicas of this server are behind, and, on a standby, how far it is itself.';
COMMENT ON COLUMN iot.replication_lag.replica IS 'Address of the replica; NULL for a local socket, and for this standby.';
COMMENT ON COLUMN iot.replication_lag.application_name IS 'Its name; "this standby" for the server itself.';
COMMENT ON COLUMN iot.replication_lag.state IS 'What it does.';
COMMENT ON COLUMN iot.replication_lag.sync_state IS 'Whether commits wait for it.';
COMMENT ON COLUMN iot.replication_lag.lag_bytes IS 'Write-ahead log not sent to it yet.';
COMMENT ON COLUMN iot.replication_lag.replay_lag_bytes IS 'Write-ahead log that it has not replayed yet.';
COMMENT ON COLUMN iot.replication_lag.lag_seconds IS 'Seconds by which what it shows is old.';
GRANT SELECT ON iot.replication_lag TO PUBLIC;
