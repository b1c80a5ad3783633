//! Running a short piece of work as another role.

use std::ffi::CStr;

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
        Self::begin(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION)
    }

    /// The same, and row security that is forced on the owner of a table does not hide rows: as for checks of foreign keys.
    /// The current user must be allowed to turn that off, as owners are.
    pub fn seeing_own_rows(role: pg_sys::Oid) -> Self {
        Self::begin(
            role,
            pg_sys::SECURITY_LOCAL_USERID_CHANGE
                | pg_sys::SECURITY_RESTRICTED_OPERATION
                | pg_sys::SECURITY_NOFORCE_RLS,
        )
    }

    /// Acts as `role` for a command that restricts itself where it runs code of others, and that could not do its work in a
    /// restricted context: REFRESH MATERIALIZED VIEW CONCURRENTLY makes a temporary table.
    pub fn for_restricting_command(role: pg_sys::Oid) -> Self {
        Self::begin(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE)
    }

    /// As [`ActingAs::restricted`], unless the session is the role's own: its code may do there what it likes.
    pub fn unless_itself(role: pg_sys::Oid) -> Self {
        // SAFETY: reads backend variables.
        if unsafe { pg_sys::GetSessionUserId() } == role && current() == (role, 0) {
            return Self::begin(role, 0);
        }
        Self::restricted(role)
    }

    fn begin(role: pg_sys::Oid, restrictions: u32) -> Self {
        let (previous_user, previous_context) = current();
        // SAFETY: sets two backend variables; `role` comes from the catalogue. The level opened here is closed on drop.
        let settings_level = unsafe {
            pg_sys::SetUserIdAndSecContext(role, previous_context | restrictions as i32);
            pg_sys::NewGUCNestLevel()
        };
        let acting = Self { previous_user, previous_context, settings_level };
        acting.set(c"search_path", c"pg_catalog, pg_temp");
        acting
    }

    /// Sets a parameter as long as this lives.
    pub fn set(&self, parameter: &CStr, value: &CStr) {
        // SAFETY: both strings are NUL-terminated and copied; an ERROR leaves the level to the abort.
        unsafe {
            pg_sys::set_config_option(
                parameter.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
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

/// Whether `role` has the privileges of `other` (is it, inherits it, or is superuser).
pub fn has_privileges_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: looks roles up in the catalogue cache.
    unsafe { pg_sys::has_privs_of_role(role, other) }
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

/// Reads the row of a role or a database in the catalogue cache; `None` when it is gone.
///
/// # Safety
/// `Form` is the struct of the catalogue that `cache` caches by oid.
unsafe fn cached<Form, T>(
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: pg_sys::Oid,
    read: impl FnOnce(&Form) -> T,
) -> Option<T> {
    // SAFETY: the row is valid until it is given back; `read` gets a reference that ends before.
    unsafe {
        let row = pg_sys::SearchSysCache1(cache as i32, pg_sys::Datum::from(oid));
        if row.is_null() {
            return None;
        }
        let header = (*row).t_data;
        let result = read(&*header.cast::<u8>().add(usize::from((*header).t_hoff)).cast::<Form>());
        pg_sys::ReleaseSysCache(row);
        Some(result)
    }
}

/// Whether `role` exists and has LOGIN.
pub fn may_log_in(role: pg_sys::Oid) -> bool {
    // SAFETY: AUTHOID caches pg_authid.
    unsafe {
        cached(pg_sys::SysCacheIdentifier::AUTHOID, role, |form: &pg_sys::FormData_pg_authid| {
            form.rolcanlogin
        })
    }
    .unwrap_or(false)
}

/// Whether the current user may make databases.
pub fn may_create_databases() -> bool {
    // SAFETY: the first reads catalogue caches; AUTHOID caches pg_authid.
    unsafe {
        pg_sys::superuser()
            || cached(
                pg_sys::SysCacheIdentifier::AUTHOID,
                current_user(),
                |form: &pg_sys::FormData_pg_authid| form.rolcreatedb,
            )
            .unwrap_or(false)
    }
}

/// Whether the current user may use a database as a template.
pub fn may_copy_database(database: pg_sys::Oid) -> bool {
    // SAFETY: DATABASEOID caches pg_database.
    let is_template = unsafe {
        cached(pg_sys::SysCacheIdentifier::DATABASEOID, database, |form: &pg_sys::FormData_pg_database| {
            form.datistemplate
        })
    };
    is_template.unwrap_or(false) || owns_database(database)
}

/// Whether the current user owns a database, or is superuser.
pub fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: looks in the catalogue caches.
    unsafe {
        #[cfg(feature = "pg15")]
        let owns = pg_sys::pg_database_ownercheck(database, current_user());
        #[cfg(not(feature = "pg15"))]
        let owns = pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, current_user());
        owns
    }
}

/// Name of a role, or its number when it is gone.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: looks the role up in the catalogue cache; NULL when it is gone.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            role.to_u32().to_string()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// Why a background worker could not connect to the current database as `role`, if it is known that it could not.
pub fn obstacle_to_connecting(role: pg_sys::Oid, bypasses_login: bool) -> Option<String> {
    // SAFETY: both look in the catalogue caches; CONNECT is the right that a session needs.
    let may_connect = unsafe {
        #[cfg(feature = "pg15")]
        let result =
            pg_sys::pg_database_aclcheck(pg_sys::MyDatabaseId, role, pg_sys::ACL_CONNECT as pg_sys::AclMode);
        #[cfg(not(feature = "pg15"))]
        let result = pg_sys::object_aclcheck(
            pg_sys::DatabaseRelationId,
            pg_sys::MyDatabaseId,
            role,
            pg_sys::ACL_CONNECT as pg_sys::AclMode,
        );
        result == pg_sys::AclResult::ACLCHECK_OK
    };
    let name = role_name(role);
    if !bypasses_login && !may_log_in(role) {
        Some(format!("role \"{name}\" is not permitted to log in"))
    } else if !may_connect {
        Some(format!("role \"{name}\" does not have CONNECT on this database"))
    } else {
        None
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
