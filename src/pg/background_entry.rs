//! Where the postmaster enters our background workers.

use pgrx::{pg_guard, pg_sys};

/// The launcher.
///
/// # Safety
/// For the postmaster to call, by its name.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn iot_ext_launcher_main(_argument: pg_sys::Datum) {
    crate::worker::launch();
}

/// The worker that writes down the state of one database. The argument of this one and the next is their place in
/// shared memory.
///
/// # Safety
/// For the postmaster to call, by its name.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn iot_ext_flush_main(argument: pg_sys::Datum) {
    crate::worker::flush(argument.value() as u32);
}

/// The worker that looks at the jobs of one database.
///
/// # Safety
/// For the postmaster to call, by its name.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn iot_ext_scheduler_main(argument: pg_sys::Datum) {
    crate::worker::schedule(argument.value() as u32);
}

/// The worker that runs the jobs of one role in one database.
///
/// # Safety
/// For the postmaster to call, by its name.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn iot_ext_job_main(argument: pg_sys::Datum) {
    crate::worker::run_jobs(argument.value() as u32);
}

/// The worker that runs top-level statements for a session; the argument is the handle of a shared memory segment.
///
/// # Safety
/// For the postmaster to call, by its name.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn iot_ext_statement_main(argument: pg_sys::Datum) {
    super::top_level::serve(argument.value() as u32);
}
