-- Calibrations and their history.
CREATE EXTENSION iot_ext;
SELECT iot.setup() IS NOT NULL AS ready;
INSERT INTO iot.devices (device_id, device_serial_number) VALUES ('00000000-0000-0000-0000-0000000000d1', 'D-1');
INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)
VALUES ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-0000000000d1', 'probe', 'pressure', 'bar');

-- The first calibration holds from -infinity; writing to the sensor closes it and opens the next.
UPDATE iot.sensors SET calibration_data = '{"multiplier": 2}';
UPDATE iot.sensors SET calibration_data = '{"multiplier": 2}';
UPDATE iot.sensors SET calibration_data = '{"multiplier": 3, "offset": 1}';
SELECT calibration_data, valid_from = '-infinity' AS from_the_start, valid_to = 'infinity' AS current
  FROM iot.sensor_calibrations ORDER BY valid_from;

-- History can be written too, but periods of a sensor never overlap.
UPDATE iot.sensor_calibrations SET valid_to = '2020-01-01 00:00+00' WHERE valid_from = '-infinity';
INSERT INTO iot.sensor_calibrations (sensor_id, calibration_data, valid_from, valid_to)
VALUES ('00000000-0000-0000-0000-0000000000a1', '{"polynomial": [0, 1, 0.5]}', '2020-01-01 00:00+00', '2021-01-01 00:00+00');
\set VERBOSITY terse
INSERT INTO iot.sensor_calibrations (sensor_id, calibration_data, valid_from, valid_to)
VALUES ('00000000-0000-0000-0000-0000000000a1', '{}', '2020-06-01 00:00+00', '2022-01-01 00:00+00');

-- Each reading uses the calibration of its own time. (2019: none changed it; 2020: 4 + 0.5 * 16; now: 3 * 4 + 1.)
SELECT iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', 4, measurement_timestamp => at) IS NOT NULL AS stored
  FROM (VALUES (timestamptz '2019-07-01 00:00+00'), ('2020-07-01 00:00+00'), (now())) AS t (at);
SELECT extract(year FROM measurement_timestamp) = extract(year FROM now()) AS now, raw_value, measurement_value
  FROM iot.sensor_data ORDER BY measurement_timestamp;

-- Piecewise linear, with the end value outside the table.
UPDATE iot.sensors SET calibration_data = '{"piecewise": [[0, 10], [10, 20], [20, 40]], "info": {"certificate": "K-2026-17"}}';
SELECT iot.process_sensor_data('00000000-0000-0000-0000-0000000000a1', raw) IS NOT NULL AS stored
  FROM unnest(ARRAY[-5, 0, 15, 25]) AS raw;
SELECT COALESCE(raw_value, measurement_value) AS raw, measurement_value, data_quality, iot.quality_reasons(quality_flags)
  FROM iot.sensor_data WHERE measurement_timestamp > now() - interval '1 minute' AND raw_value IS DISTINCT FROM 4
 ORDER BY 1;

-- What cannot be applied is refused when it is written.
\set VERBOSITY default
\set SHOW_CONTEXT never
UPDATE iot.sensors SET calibration_data = '{"multiplyer": 2}';
UPDATE iot.sensors SET calibration_data = '{"piecewise": [[10, 1], [0, 2]]}';
UPDATE iot.sensors SET calibration_data = '{"multiplier": "two"}';
