-- A table of the user, from its first partition to its last row. Times long past and ages of many years keep the output the
-- same whenever this runs.
CREATE EXTENSION iot_ext;
SET TimeZone = 'Asia/Kathmandu';
\set SHOW_CONTEXT never
CREATE TABLE measured (at timestamp NOT NULL, device text, load integer) PARTITION BY RANGE (at);
CREATE INDEX ON measured (device, at);

-- Partitions on the UTC grid, made by hand and by month: what is there is read from the catalogue.
CREATE TABLE first_days PARTITION OF measured FOR VALUES FROM ('2001-01-01') TO ('2001-01-10');
SELECT iot.create_monthly_partition('measured', 2001, 1);
SELECT iot.create_monthly_partition('measured', 2001, 2);
SELECT iot.create_monthly_partition('measured', 2001, 2) AS again;
INSERT INTO measured SELECT day, 'pump', 1 FROM generate_series(timestamp '2001-01-01', '2001-02-28', '1 day') day;
INSERT INTO measured VALUES ('2001-01-20', 'fan', 2), ('2001-02-20', 'fan', 2);

-- From now on it is managed: by year, and nothing made ahead but the current year.
SELECT count(*) FROM iot.manage_partitions('measured', '1 year', premake => 0, dry_run => true);
SELECT count(*) FROM iot.partition_settings;
SELECT action, range_end - range_start >= '365 days' AS a_year, reason, outcome
  FROM iot.manage_partitions('measured', '1 year', premake => 0);
SELECT parent, time_column, partition_interval, premake, drop_after FROM iot.partition_settings;
SELECT partition, range_start AT TIME ZONE 'UTC' AS range_start, range_end AT TIME ZONE 'UTC' AS range_end, tier, next_action
  FROM iot.partitions WHERE range_start < '2002-01-01' ORDER BY range_start;

-- Cold partitions carry an index of their own.
SELECT partition_name, reason, outcome
  FROM iot.manage_partitions('measured', warm_after => '3 years', cold_after => '10 years', cold_indexes => ARRAY['USING brin (at)'])
 ORDER BY range_start;
SELECT indexdef FROM pg_indexes WHERE tablename = 'first_days' ORDER BY 1;

-- A hold on the readings of one device keeps them when everything else is too old.
SELECT iot.add_legal_hold('measured', 'the fan caught fire', 'device', 'fan');
SELECT next_action, reason FROM iot.partitions WHERE partition = 'measured_2001_02'::regclass;
SELECT action, partition_name, reason, outcome FROM iot.manage_partitions('measured', retention => '15 years', dry_run => true) ORDER BY range_start;
SELECT action, partition_name, reason, outcome FROM iot.manage_partitions('measured', retention => '15 years') ORDER BY range_start;
SELECT * FROM measured ORDER BY at;
SELECT action, partition_name, outcome FROM iot.manage_partitions('measured');

-- Without it they go as well, once nothing depends on them any more.
SELECT iot.remove_retention_rule(1);
INSERT INTO iot.retention_guard (parent, guard_name, complete_until) VALUES ('measured', 'roll-up of months', '2001-02-10 00:00+00');
SET TimeZone = 'UTC';
SELECT action, partition_name, reason, outcome FROM iot.manage_partitions('measured') ORDER BY range_start;
SELECT iot.drop_old_partitions('measured', 5000);
SELECT iot.drop_old_partitions('measured', interval '5 years', force => true);
SELECT * FROM measured;

-- What cannot be.
SELECT iot.manage_partitions('measured', '2 months');
SELECT iot.manage_partitions('measured', subpartition_by => 'list', subpartition_column => 'device');
SELECT iot.drop_old_partitions('measured', 0);
SELECT iot.drop_old_partitions('measured', '1 year');
CREATE TABLE plain (at timestamptz);
SELECT iot.manage_partitions('plain', '1 day');
SELECT iot.partition_upkeep('plain');

-- Sub-partitions: the primary key stands on the leaves.
CREATE TABLE logs (at timestamptz NOT NULL, level text NOT NULL, line text NOT NULL) PARTITION BY RANGE (at);
SELECT count(*) FROM iot.manage_partitions('logs', '1 year', premake => 0, subpartition_by => 'list', subpartition_column => 'level',
    subpartition_values => ARRAY['debug', 'error'], leaf_key => ARRAY['line', 'at']);
INSERT INTO logs VALUES (now(), 'debug', 'a'), (now(), 'error', 'b'), (now(), 'fatal', 'c');
SELECT regexp_replace(tableoid::regclass::text, '\d{4}', 'YYYY') AS leaf, level FROM logs ORDER BY level;

-- What is known of a table goes with it.
DROP TABLE measured, logs;
SELECT count(*) FROM iot.partition_settings;
