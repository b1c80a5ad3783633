//! Running a short piece of work as another role.

use pgrx::pg_sys;

/// While it lives, the current user is another role, without the right to change it back (security-restricted).
///
/// The previous user comes back on drop; after an ERROR, PostgreSQL's own (sub)transaction abort restores it as well.
pub struct ActingAs {
    previous_user: pg_sys::Oid,
    previous_context: i32,
}

impl ActingAs {
    /// Acts as `role` with everything that code of others could abuse switched off.
    pub fn restricted(role: pg_sys::Oid) -> Self {
        let (previous_user, previous_context) = current();
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        // SAFETY: sets two backend variables; `role` comes from the catalogue.
        unsafe { pg_sys::SetUserIdAndSecContext(role, previous_context | restricted as i32) };
        Self { previous_user, previous_context }
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        // SAFETY: restores what `restricted` saved.
        unsafe { pg_sys::SetUserIdAndSecContext(self.previous_user, self.previous_context) };
    }
}

fn current() -> (pg_sys::Oid, i32) {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: both pointers are valid; the call only writes through them.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    (user, context)
}

/// The current user (`current_user`).
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the current user has the privileges of `role` (is it, inherits it, or is superuser).
pub fn current_user_has_privileges_of(role: pg_sys::Oid) -> bool {
    // SAFETY: looks roles up in the catalogue cache.
    unsafe { pg_sys::has_privs_of_role(current_user(), role) }
}
