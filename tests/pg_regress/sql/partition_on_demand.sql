-- Partitions: made ahead, on demand, and around what is there.
CREATE EXTENSION iot_ext;
SET TimeZone = 'America/New_York';
SELECT iot.setup(partition_interval => '1 day', premake => 0) IS NOT NULL AS ready;
INSERT INTO iot.devices (device_id, device_serial_number) VALUES ('00000000-0000-0000-0000-0000000000d1', 'D-1');
INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)
VALUES ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-0000000000d1', 'probe', 'pressure', 'bar');

-- Bounds are UTC days, whatever the session's time zone.
SELECT count(iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', 1, measurement_timestamp => at)) AS readings
  FROM (VALUES (timestamptz '2026-03-07 23:59:59.999999+00'), ('2026-03-08 00:00+00'), ('2026-03-09 00:00-04')) AS t (at);
SET TimeZone = 'UTC';
SELECT tableoid::regclass AS partition, measurement_timestamp, hour_bucket FROM iot.sensor_data ORDER BY 2;

-- Another width later on: what is covered stays, and the rest of the month becomes one partition on each side.
SELECT iot.setup(partition_interval => '1 month') IS NOT NULL AS changed;
SELECT count(iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', 1, measurement_timestamp => at)) AS readings
  FROM (VALUES (timestamptz '2026-03-01 12:00+00'), ('2026-03-20 12:00+00'), ('2026-02-28 12:00+00')) AS t (at);
SELECT relid::regclass AS partition, pg_get_expr(relpartbound, oid) AS bounds
  FROM pg_partition_tree('iot.sensor_data') JOIN pg_class ON oid = relid
 WHERE isleaf AND relid::regclass::text LIKE 'iot.sensor_data_2026_0%' ORDER BY 1;

-- Indexes come with the parent's definition.
SELECT indexdef FROM pg_indexes WHERE tablename = 'sensor_data_2026_03_08' ORDER BY indexname;

-- Any table that is partitioned by time can be served.
CREATE TABLE public.log (at timestamptz, line text) PARTITION BY RANGE (at);
SELECT iot.create_monthly_partition('public.log', 2026, 2);
SELECT iot.create_monthly_partition('public.log', 2026, 2) AS again;
SELECT cardinality(iot.create_future_partitions('public.log', 2)) AS made, cardinality(iot.create_future_partitions('public.log', 2)) AS again;
\set SHOW_CONTEXT never
SELECT iot.create_monthly_partition('public.log', 2026, 13);
CREATE TABLE public.plain (at timestamptz);
SELECT iot.create_monthly_partition('public.plain', 2026, 1);
