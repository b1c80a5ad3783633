-- Recalibration: stored readings by the calibration history as it is now.

CREATE FUNCTION iot.begin_recalibration(sensor uuid, range_start timestamptz, range_end timestamptz, dry_run boolean)
    RETURNS bigint
    VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'begin_recalibration_wrapper';
COMMENT ON FUNCTION iot.begin_recalibration(uuid, timestamptz, timestamptz, boolean) IS
    'Step of iot.recalibrate(): checks the arguments and adds the row of iot.recalibrations, whose key it returns; NULL for a dry run.';

CREATE FUNCTION iot.recalibrate_batch(
    sensor uuid, range_end timestamptz, recalibration bigint, INOUT range_start timestamptz,
    INOUT rows_examined bigint, INOUT rows_changed bigint, INOUT minimum_difference double precision,
    INOUT maximum_difference double precision, INOUT mean_difference double precision) RETURNS SETOF record
    VOLATILE PARALLEL UNSAFE ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'recalibrate_batch_wrapper';
COMMENT ON FUNCTION iot.recalibrate_batch(
    uuid, timestamptz, bigint, timestamptz, bigint, bigint, double precision, double precision, double precision) IS
    'Step of iot.recalibrate(): the next batch. range_start becomes where to go on, NULL at the end; figures go on from those given. Without the key of a recalibration nothing is written.';

-- No SET clause and no SECURITY DEFINER, which would forbid COMMIT: hence every name below is qualified or a keyword, and
-- whatever needs an operator is left to the two functions.
CREATE PROCEDURE iot.recalibrate(
    sensor uuid, range_start timestamptz DEFAULT '-infinity', range_end timestamptz DEFAULT 'infinity',
    dry_run boolean DEFAULT false, INOUT rows_examined bigint DEFAULT NULL, INOUT rows_changed bigint DEFAULT NULL,
    INOUT minimum_difference double precision DEFAULT NULL, INOUT maximum_difference double precision DEFAULT NULL,
    INOUT mean_difference double precision DEFAULT NULL)
    LANGUAGE plpgsql AS $$
DECLARE
    recalibration bigint := iot.begin_recalibration(sensor, range_start, range_end, dry_run);
BEGIN
    rows_examined := NULL;
    rows_changed := NULL;
    minimum_difference := NULL;
    maximum_difference := NULL;
    mean_difference := NULL;
    WHILE range_start IS NOT NULL LOOP
        -- The first one fails at once where no COMMIT is possible, before any work is done.
        IF NOT dry_run THEN
            COMMIT;
        END IF;
        SELECT b.range_start, b.rows_examined, b.rows_changed, b.minimum_difference, b.maximum_difference, b.mean_difference
          INTO range_start, rows_examined, rows_changed, minimum_difference, maximum_difference, mean_difference
          FROM iot.recalibrate_batch(recalibrate.sensor, recalibrate.range_end, recalibration, recalibrate.range_start,
                   recalibrate.rows_examined, recalibrate.rows_changed, recalibrate.minimum_difference,
                   recalibrate.maximum_difference, recalibrate.mean_difference) b;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE iot.recalibrate(
    uuid, timestamptz, timestamptz, boolean, bigint, bigint, double precision, double precision, double precision) IS
    'Computes the values of a sensor''s stored readings anew from the raw ones, by the calibrations that hold at their times. Commits after each batch. A dry run writes nothing. Parameters after dry_run are results.';
