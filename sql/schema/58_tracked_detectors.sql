-- Detectors whose state is in shared memory.

CREATE FUNCTION iot.tracked_detectors_occupancy()
    RETURNS TABLE (detector_capacity bigint, detectors bigint, detectors_evicted bigint, detectors_refused bigint,
                   detectors_overruled bigint, detector_bytes bigint)
    VOLATILE PARALLEL RESTRICTED ROWS 1
    LANGUAGE c AS 'MODULE_PATHNAME', 'tracked_detectors_occupancy_wrapper';
COMMENT ON FUNCTION iot.tracked_detectors_occupancy() IS 'Figures behind iot.iot_stat_tracked_sensors.';

CREATE OR REPLACE VIEW iot.iot_stat_tracked_sensors AS
SELECT s.capacity, s.tracked, s.evicted, s.refused, s.rebuilt, s.merged, s.entry_bytes,
       d.detector_capacity, d.detectors, d.detectors_evicted, d.detectors_refused, d.detectors_overruled, d.detector_bytes
  FROM iot.tracked_sensors_occupancy() s, iot.tracked_detectors_occupancy() d;
COMMENT ON VIEW iot.iot_stat_tracked_sensors IS 'The sensors whose statistics are in shared memory, and the detectors whose state is, over all databases of the server.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detector_capacity IS 'Detectors other than zscore that have room: iot_ext.max_tracked_detectors, or 0 without preload.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detectors IS 'Detectors that have a place.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detectors_evicted IS 'Detectors given up to make room for another, while their sensor stayed.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detectors_refused IS 'Times that a detector found no room: its state was read from iot.sensor_state and written there.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detectors_overruled IS 'Times that two sessions had changed the same detector: the one with the newest reading decided.';
COMMENT ON COLUMN iot.iot_stat_tracked_sensors.detector_bytes IS 'Shared memory for each detector.';
