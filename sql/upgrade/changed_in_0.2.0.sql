-- What 0.1.0 has in another form.
COMMENT ON FUNCTION iot.process_sensor_data(uuid, double precision, jsonb, timestamptz) IS
    'Calibrates, checks, scores and stores one reading, then evaluates alert rules; returns its data_id. No time means the clock''s. Of a reading whose sensor has one of that time, setup(duplicates) decides; the data_id is that of the row which is stored.';

-- Has an argument more.
DROP FUNCTION iot.setup(interval, integer, interval, text[]);
