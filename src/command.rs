//! `queue_device_command`: a command for a device, in the caller's transaction.

use iot_core::device::DeviceStatus;
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_extern;

use crate::catalog::{self, command as table};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::with_session;

#[pg_extern(sql = false)]
fn queue_device_command(
    device_uuid: Option<Uuid>,
    command_type_param: Option<&str>,
    command_params: Option<Jsonb<'_>>,
    scheduled_time: Option<TimestampWithTimeZone>,
) -> Option<Uuid> {
    catalog::require_setup().or_raise();
    let device_id = device_uuid.ok_or_else(|| IotError::null_argument("device_uuid")).or_raise();
    let command_type = command_type(command_type_param).or_raise();
    let no_parameters = Jsonb::empty_object();
    let parameters = command_params.unwrap_or(no_parameters);
    let scheduled_at = scheduled_time.map_or_else(clock::transaction_start, clock::from_pg);
    with_session(|session| {
        require_commandable(device_id, table::device_status(session, device_id)?.as_deref())?;
        let command_id = table::insert(session, device_id, command_type, parameters, scheduled_at)?;
        if let Some(command_id) = command_id
            && crate::guc::notify_commands()
        {
            table::notify(session, command_id)?;
        }
        Ok(command_id)
    })
    .or_raise()
}

fn command_type(given: Option<&str>) -> IotResult<&str> {
    let given = given.ok_or_else(|| IotError::null_argument("command_type_param"))?;
    if given.trim().is_empty() {
        return Err(IotError::invalid_argument(format!("command_type_param \"{given}\" is empty"))
            .hint("Name what the device shall do, such as 'restart'."));
    }
    Ok(given)
}

fn require_commandable(device_id: Uuid, status: Option<&str>) -> IotResult<()> {
    let Some(status) = status else {
        return Err(IotError::unknown_object(format!("device \"{device_id}\" does not exist"))
            .hint("Register it in iot.devices first, and check that row security lets this role see it."));
    };
    if status.parse::<DeviceStatus>().is_ok_and(DeviceStatus::accepts_commands) {
        return Ok(());
    }
    Err(IotError::wrong_state(format!("device \"{device_id}\" does not accept commands"))
        .detail(format!("Its device_status is \"{status}\"."))
        .hint("Only devices that are active or in maintenance take commands; change device_status first."))
}
