//! Devices and sensors that are registered because a message named them.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{factory, one};

    fn ingest(message: &str) -> String {
        one(&format!(
            "SELECT concat_ws(' ', accepted, rejected) FROM iot.ingest('{message}'::jsonb, register_unknown => true)"
        ))
    }

    fn reasons() -> String {
        one("SELECT coalesce(string_agg(reason, ' ' ORDER BY received_at, rejection_id), '')
               FROM iot.rejected_readings WHERE replayed_at IS NULL")
    }

    fn devices() -> String {
        one("SELECT string_agg(concat_ws('/', device_serial_number, external_id), ' ' ORDER BY created_at, device_id)
               FROM iot.devices")
    }

    fn sensors() -> String {
        one(
            "SELECT string_agg(concat_ws('/', sensor_name, sensor_type), ' ' ORDER BY sensor_name) FROM iot.sensors",
        )
    }

    #[pg_test]
    fn what_stands_for_several_sensors_registers_nothing() {
        let (device, _) = factory();
        Spi::run(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)
             VALUES ('{device}', 'second', 'temperature', 'degC')"
        ))
        .unwrap();
        for key in [
            "\"deviceId\": \"D-1\"",
            "\"device_serial_number\": \"D-1\"",
            &format!("\"device_id\": \"{device}\""),
        ] {
            assert_eq!(ingest(&format!("{{{key}, \"sensorType\": \"temperature\", \"value\": 3}}")), "0 1");
        }
        assert_eq!(reasons(), "ambiguous_sensor ambiguous_sensor ambiguous_sensor");
        let replayed: i64 = one("SELECT accepted FROM iot.replay_rejected(register_unknown => true)");
        assert_eq!(replayed, 0);
        assert_eq!(
            (devices(), sensors()),
            ("D-1".to_owned(), "probe/temperature second/temperature".to_owned())
        );
    }

    #[pg_test]
    fn a_new_sensor_goes_to_the_device_that_has_the_key_as_its_serial_number() {
        factory();
        assert_eq!(ingest("{\"deviceId\": \"D-1\", \"sensorType\": \"humidity\", \"value\": 40}"), "1 0");
        Spi::run("INSERT INTO iot.devices (device_serial_number) VALUES ('17')").unwrap();
        assert_eq!(ingest("{\"deviceId\": 17, \"sensorType\": \"flow\", \"value\": 4}"), "1 0");
        let stored: String = one("SELECT string_agg(concat_ws('/', d.device_serial_number, s.sensor_type), ' '
                                                    ORDER BY s.sensor_type)
               FROM iot.sensor_data r JOIN iot.sensors s USING (sensor_id) JOIN iot.devices d ON d.device_id = s.device_id");
        assert_eq!(stored, "17/flow D-1/humidity");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.devices"), 2);
    }

    #[pg_test]
    fn an_external_id_counts_before_a_serial_number() {
        factory();
        Spi::run("INSERT INTO iot.devices (external_id) VALUES ('D-1')").unwrap();
        assert_eq!(ingest("{\"deviceId\": \"D-1\", \"sensorType\": \"humidity\", \"value\": 40}"), "1 0");
        let external: String =
            one("SELECT d.external_id FROM iot.sensors s JOIN iot.devices d USING (device_id)
              WHERE s.sensor_type = 'humidity'");
        assert_eq!(external, "D-1");
    }

    #[pg_test]
    fn a_type_that_the_same_batch_gives_a_name_makes_no_sensor_of_its_own() {
        factory();
        let messages = "[{\"deviceId\": \"new\", \"sensorType\": \"flow\", \"value\": 1},
                         {\"deviceId\": \"new\", \"sensorName\": \"inlet\", \"sensorType\": \"flow\", \"value\": 2},
                         {\"deviceId\": \"new\", \"sensorType\": \"level\", \"value\": 3},
                         {\"deviceId\": \"new\", \"sensorName\": \"inlet\", \"value\": 4}]";
        assert_eq!(ingest(messages), "4 0");
        assert_eq!(devices(), "D-1 new");
        assert_eq!(sensors(), "inlet/flow level/level probe/temperature");
    }

    #[pg_test]
    fn a_registered_sensor_brings_no_device() {
        let (_, sensor) = factory();
        let known = format!(
            "{{\"sensor_id\": \"{sensor}\", \"deviceId\": \"other\", \"sensorType\": \"x\", \"value\": 1}}"
        );
        assert_eq!(ingest(&known), "1 0");
        assert_eq!(devices(), "D-1");
        let new = "00000000-0000-0000-0000-000000000001";
        assert_eq!(
            ingest(&format!(
                "{{\"sensor_id\": \"{new}\", \"deviceId\": \"other\", \"sensorType\": \"x\", \"value\": 1}}"
            )),
            "1 0"
        );
        assert_eq!(devices(), "D-1 other");
        assert!(one::<bool>(&format!("SELECT EXISTS (SELECT FROM iot.sensors WHERE sensor_id = '{new}')")));
    }
}
