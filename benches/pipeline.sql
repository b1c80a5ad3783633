-- What teams write by hand: one reading through lookup, calibration, 24-hour statistics, insert and alert rules in
-- PL/pgSQL, over the very tables that iot.setup() makes. It knows less than iot.process_sensor_data: no calibration
-- history, no quality, no duplicates, no rule scopes beyond the sensor, thresholds only.
CREATE SCHEMA baseline;

CREATE FUNCTION baseline.process_reading(sensor uuid, raw numeric, metadata jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    known iot.sensors;
    corrected numeric := raw;
    usual record;
    anomalous boolean;
    score double precision;
    stored uuid;
    rule record;
BEGIN
    SELECT * INTO known FROM iot.sensors s WHERE s.sensor_id = sensor AND s.sensor_status = 'active';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no active sensor %', sensor;
    END IF;
    corrected := raw * COALESCE((known.calibration_data ->> 'multiplier')::numeric, 1)
                     + COALESCE((known.calibration_data ->> 'offset')::numeric, 0);
    SELECT avg(r.measurement_value) AS mean, stddev_samp(r.measurement_value) AS deviation INTO usual
      FROM iot.sensor_data r
     WHERE r.sensor_id = sensor AND r.measurement_timestamp >= now() - interval '24 hours';
    anomalous := COALESCE(abs(corrected - usual.mean) > 3 * usual.deviation, false);
    score := CASE WHEN usual.deviation > 0 THEN least(abs(corrected - usual.mean) / usual.deviation, 5) ELSE 0 END;
    INSERT INTO iot.sensor_data (data_id, sensor_id, device_id, measurement_timestamp, measurement_value,
                                 measurement_unit, is_anomaly, anomaly_score, measurement_metadata)
    VALUES (gen_random_uuid(), sensor, known.device_id, clock_timestamp(), corrected, known.unit_of_measure, anomalous,
            score, metadata)
    RETURNING data_id INTO stored;
    FOR rule IN SELECT a.rule_id, a.rule_conditions, a.severity FROM iot.alert_rules a
                 WHERE a.sensor_id = sensor AND a.is_active
    LOOP
        IF corrected > COALESCE((rule.rule_conditions ->> 'threshold_high')::numeric, 'Infinity')
           OR corrected < COALESCE((rule.rule_conditions ->> 'threshold_low')::numeric, '-Infinity')
        THEN
            INSERT INTO iot.alerts (rule_id, sensor_id, severity, message, actual_value)
            VALUES (rule.rule_id, sensor, rule.severity, 'threshold crossed', corrected)
            ON CONFLICT (rule_id, sensor_id) WHERE alert_status <> 'resolved'
            DO UPDATE SET occurrences = iot.alerts.occurrences + 1;
        END IF;
    END LOOP;
    RETURN stored;
END
$$;
