//! Whether an INSERT fires triggers or rules.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Whether an INSERT of this session fires a trigger of `relation` that is not in `ignored`.
///
/// # Safety
/// `relation` is open.
pub(super) unsafe fn fire_on_insert(
    relation: pg_sys::Relation,
    ignored: &[&CStr],
    only_for_rows: bool,
) -> bool {
    let mut wanted = pg_sys::TRIGGER_TYPE_INSERT as i16;
    if only_for_rows {
        wanted |= pg_sys::TRIGGER_TYPE_ROW as i16;
    }
    // SAFETY: as the caller promises; a relation's triggers are null or an array of `numtriggers`, whose names are
    // NUL-terminated.
    unsafe {
        let triggers = (*relation).trigdesc;
        if triggers.is_null() {
            return false;
        }
        let is_replica =
            pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as std::ffi::c_int;
        let other_side =
            if is_replica { pg_sys::TRIGGER_FIRES_ON_ORIGIN } else { pg_sys::TRIGGER_FIRES_ON_REPLICA };
        (0..(*triggers).numtriggers as usize).map(|number| &*(*triggers).triggers.add(number)).any(
            |trigger| {
                let enabled = trigger.tgenabled as u8;
                trigger.tgtype & wanted == wanted
                    && enabled != pg_sys::TRIGGER_DISABLED
                    && enabled != other_side
                    && !ignored.contains(&CStr::from_ptr(trigger.tgname))
            },
        )
    }
}

/// Whether `relation` has a rule for INSERT.
///
/// # Safety
/// `relation` is open.
pub(super) unsafe fn has_insert_rule(relation: pg_sys::Relation) -> bool {
    // SAFETY: as the caller promises; a relation's rules are null or an array of `numLocks`.
    unsafe {
        let rules = (*relation).rd_rules;
        !rules.is_null()
            && (0..(*rules).numLocks as usize)
                .any(|number| (**(*rules).rules.add(number)).event == pg_sys::CmdType::CMD_INSERT)
    }
}
