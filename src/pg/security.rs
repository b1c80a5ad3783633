//! Running a short piece of work as another role.

use pgrx::pg_sys;

/// While it lives, the current user is another role, without the right to change it back (security-restricted), and
/// `search_path` holds nothing that the previous user could have put there.
///
/// All of it comes back on drop; after an ERROR, PostgreSQL's own (sub)transaction abort restores it.
pub struct ActingAs {
    previous_user: pg_sys::Oid,
    previous_context: i32,
    settings_level: i32,
}

impl ActingAs {
    /// Acts as `role` with everything that code of others could abuse switched off.
    pub fn restricted(role: pg_sys::Oid) -> Self {
        Self::with(role, 0)
    }

    /// The same, and row security that is forced on the owner of a table does not hide rows: as for checks of foreign keys.
    /// The current user must be allowed to turn that off, as owners are.
    pub fn seeing_own_rows(role: pg_sys::Oid) -> Self {
        Self::with(role, pg_sys::SECURITY_NOFORCE_RLS)
    }

    fn with(role: pg_sys::Oid, more: u32) -> Self {
        let (previous_user, previous_context) = current();
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION | more;
        // SAFETY: sets two backend variables; `role` comes from the catalogue. The level opened here is closed on drop.
        let settings_level = unsafe {
            pg_sys::SetUserIdAndSecContext(role, previous_context | restricted as i32);
            pg_sys::NewGUCNestLevel()
        };
        // SAFETY: both strings are NUL-terminated and copied; an ERROR leaves the level to the abort.
        unsafe {
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                c"pg_catalog, pg_temp".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        Self { previous_user, previous_context, settings_level }
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the level that `restricted` opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.settings_level) };
        }
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

/// Whether the current user may read `table`, and sees every row of it: no row security applies to him.
pub fn sees_all_rows(table: pg_sys::Oid) -> bool {
    // SAFETY: both look in the catalogue caches; a table that is gone is reported as an error by the second one.
    unsafe {
        pg_sys::pg_class_aclcheck(table, current_user(), pg_sys::ACL_SELECT as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// Whether the current user may read `table`.
pub fn may_read(table: pg_sys::Oid) -> bool {
    // SAFETY: looks in the catalogue caches; a table that is gone is reported as an error.
    unsafe {
        pg_sys::pg_class_aclcheck(table, current_user(), pg_sys::ACL_SELECT as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether the current user may look at everything that is measured: superusers and members of `pg_monitor`.
pub fn current_user_is_monitor() -> bool {
    current_user_has_privileges_of(pg_sys::Oid::from(pg_sys::ROLE_PG_MONITOR))
}
