//! Commands, and the devices that take them.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    #[pg_test]
    fn commands_are_queued_as_pending() {
        let (device, _) = factory();
        let id: Uuid = one(&format!(
            "SELECT iot.queue_device_command(device_uuid => '{device}', command_type_param => 'restart')"
        ));
        let found: String = one(&format!(
            "SELECT concat_ws('|', command_type, command_parameters, execution_status, scheduled_at = now())
               FROM iot.device_commands WHERE command_id = '{id}'"
        ));
        assert_eq!(found, "restart|{}|pending|t");
        Spi::run("UPDATE iot.devices SET device_status = 'maintenance'").unwrap();
        Spi::run(&format!("SELECT iot.queue_device_command('{device}', 'restart', NULL, NULL)")).unwrap();
    }

    #[pg_test]
    fn commands_refuse_bad_arguments_each_with_its_own_error() {
        let (device, _) = factory();
        let unknown = "00000000-0000-0000-0000-000000000001";
        assert_fails(
            &format!("SELECT iot.queue_device_command('{unknown}', 'x')"),
            "42704",
            unknown,
            "iot.devices",
        );
        assert_fails(
            &format!("SELECT iot.queue_device_command('{device}', ' ')"),
            "22023",
            "empty",
            "restart",
        );
        assert_fails(
            &format!("SELECT iot.queue_device_command('{device}', NULL)"),
            "22004",
            "command_type_param",
            "",
        );
        assert_fails("SELECT iot.queue_device_command(NULL, 'x')", "22004", "device_uuid", "");
        Spi::run("UPDATE iot.devices SET device_status = 'inactive'").unwrap();
        let call = format!("SELECT iot.queue_device_command('{device}', 'x')");
        assert_fails(&call, "55000", "does not accept commands", "maintenance");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.device_commands"), 0);
    }

    #[pg_test]
    fn devices_move_only_along_their_lifecycle() {
        let (device, _) = factory();
        Spi::run("UPDATE iot.devices SET device_status = 'maintenance', device_status_reason = 'belt'")
            .unwrap();
        assert_fails(
            "UPDATE iot.devices SET device_status = 'provisioning'",
            "IO001",
            "provisioning",
            "active",
        );
        Spi::run("UPDATE iot.devices SET device_status = 'decommissioned'").unwrap();
        assert_fails("UPDATE iot.devices SET device_status = 'active'", "IO001", "cannot become", "");
        let history: String = one(&format!(
            "SELECT string_agg(concat_ws('>', from_status, to_status, reason), ' ' ORDER BY changed_at)
               FROM iot.device_status_history WHERE device_id = '{device}'"
        ));
        assert_eq!(history, "active active>maintenance>belt maintenance>decommissioned");
    }

    #[pg_test]
    fn what_has_readings_is_not_deleted() {
        let (_, sensor) = factory();
        process(sensor, "1", "clock_timestamp()");
        assert_fails("DELETE FROM iot.sensors", "23503", "", "decommissioned");
        assert_fails("UPDATE iot.sensors SET sensor_type = 'x'", "55000", "", "");
    }
}
