//! Tests inside a server: what the SQL functions do and how each of their errors reads. Each runs in a transaction of
//! its own that is rolled back. This file holds what they share.

mod alerts;
mod buckets;
mod bulk_insert;
mod commands;
mod conversions;
mod detectors;
mod duplicates;
mod ingest;
mod jobs;
mod partition_manager;
mod partition_trouble;
mod partitions;
mod plain_tables;
mod processing;
mod processing_again;
mod quality;
mod readings;
mod recalibrations;
mod registration;
mod replay;
mod retention;
mod scores;
mod setup;
mod units;

use pgrx::datum::Uuid;
use pgrx::prelude::*;

/// Sets the tables up and registers one active sensor on one active device.
pub fn factory() -> (Uuid, Uuid) {
    Spi::run("SELECT iot.setup()").unwrap();
    let device: Uuid =
        one("INSERT INTO iot.devices (device_serial_number) VALUES ('D-1') RETURNING device_id");
    let sensor: Uuid = one(&format!(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, physical_minimum,
                                  physical_maximum)
         VALUES ('{device}', 'probe', 'temperature', 'degC', -50, 200) RETURNING sensor_id"
    ));
    (device, sensor)
}

pub fn one<T: FromDatum + IntoDatum>(sql: &str) -> T {
    Spi::get_one(sql).unwrap().unwrap()
}

pub fn rule(scope: &str, conditions: &str) {
    Spi::run(&format!(
        "INSERT INTO iot.alert_rules (rule_name, {}, rule_conditions, severity)
         VALUES ('rule', {}, '{conditions}', 'high')",
        scope.split('=').next().unwrap(),
        scope.split_once('=').unwrap().1,
    ))
    .unwrap();
}

/// SQLSTATE, message and hint of the error that `sql` raises.
pub fn failure(sql: &str) -> (String, String, String) {
    Spi::run(
        "CREATE OR REPLACE FUNCTION pg_temp.failure(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
         DECLARE state text; message text; hint text;
         BEGIN
             EXECUTE statement;
             RETURN ARRAY['00000', 'no error', ''];
         EXCEPTION WHEN OTHERS THEN
             GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
             RETURN ARRAY[state, message, hint];
         END $$",
    )
    .unwrap();
    let parts: Vec<String> =
        Spi::get_one_with_args("SELECT pg_temp.failure($1)", &[sql.into()]).unwrap().unwrap();
    (parts[0].clone(), parts[1].clone(), parts[2].clone())
}

#[track_caller]
pub fn assert_fails(sql: &str, state: &str, message: &str, hint: &str) {
    let (found_state, found_message, found_hint) = failure(sql);
    assert_eq!(found_state, state, "{sql}: {found_message}");
    assert!(found_message.contains(message), "{sql}: message is {found_message:?}");
    assert!(found_hint.contains(hint), "{sql}: hint is {found_hint:?}");
}

pub fn process(sensor: Uuid, value: &str, at: &str) -> Uuid {
    one(&format!("SELECT iot.process_sensor_data('{sensor}', {value}, measurement_timestamp => {at})"))
}
