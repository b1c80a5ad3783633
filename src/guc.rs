//! The settings of the extension, all under the prefix `iot_ext.` (reserved, so that a typing error is refused).

use std::time::Duration;

use iot_core::time::MICROS_PER_SECOND;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// Device clocks drift and NTP steps; five minutes is what Kerberos and most gateways tolerate.
static CLOCK_SKEW: GucSetting<i32> = GucSetting::<i32>::new(300);

/// On, because a command processor that LISTENs should work without a setting; `pg_notify` takes a cluster-wide lock at
/// commit, so installations that poll can turn it off.
static NOTIFY_COMMANDS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// A minute: what a crash makes us read again is little, and so is the writing.
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// Enough to keep one long job from holding up the others, few enough for the default of `max_worker_processes`.
static MAX_JOB_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);

/// A minute: a new database has no jobs that are due sooner, unless it was copied or restored, and then it is told.
static SCHEDULER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// 35 kB of shared memory.
static MAX_SCHEDULED_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(256);

/// 12 MB of shared memory: enough for a plant, small enough to go unnoticed.
static MAX_TRACKED_SENSORS: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// A second: long enough to pass between two statements, short enough not to be noticed by those who wait behind.
static MAINTENANCE_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);

/// 9 MB of shared memory: most sensors do with the statistics of a day.
static MAX_TRACKED_DETECTORS: GucSetting<i32> = GucSetting::<i32>::new(2_000);

/// Off, because one bad reading should not cost a gateway its whole batch.
static STRICT: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines every setting; called once from `_PG_init`.
pub fn define() {
    GucRegistry::define_int_guc(
        c"iot_ext.clock_skew",
        c"How far a reading's time may lie ahead of the server's clock before it is stored as suspect.",
        c"Such a reading moves neither the sensor's newest time nor its statistics window.",
        &CLOCK_SKEW,
        0,
        86_400,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"iot_ext.flush_interval",
        c"How often the background worker writes the state of changed sensors down.",
        c"0 leaves it to calls of iot.flush_state(). Without preload there is no background worker.",
        &FLUSH_INTERVAL,
        0,
        3_600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"iot_ext.max_job_workers",
        c"How many background workers run jobs at the same time, in all databases together.",
        c"0 runs none: jobs are left to CALL iot.run_job(). Workers count towards max_worker_processes.",
        &MAX_JOB_WORKERS,
        0,
        32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"iot_ext.scheduler_interval",
        c"How often the launcher looks for new databases, and tells that it lacks background workers.",
        c"Changed jobs are seen at once, whatever this is.",
        &SCHEDULER_INTERVAL,
        1,
        3_600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"iot_ext.maintenance_lock_timeout",
        c"How long partition upkeep tries to get a lock before it leaves the work for its next run.",
        c"",
        &MAINTENANCE_LOCK_TIMEOUT,
        0,
        3_600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"iot_ext.notify_commands",
        c"Sends NOTIFY device_commands with the command's id when a command is queued.",
        c"NOTIFY takes a cluster-wide lock at commit; turn it off where command processors poll.",
        &NOTIFY_COMMANDS,
        GucContext::Userset,
        GucFlags::default(),
    );
    // A setting that only counts at server start cannot be defined later.
    if crate::pg::shared::is_preloading() {
        GucRegistry::define_int_guc(
            c"iot_ext.max_scheduled_databases",
            c"How many databases the launcher remembers when their next job is due.",
            c"With more, those in which nothing happens for the longest time are looked at by turns, every iot_ext.scheduler_interval.",
            &MAX_SCHEDULED_DATABASES,
            1,
            100_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        GucRegistry::define_int_guc(
            c"iot_ext.max_tracked_detectors",
            c"How many tracked sensors of all databases have the state of a detector other than zscore in shared memory.",
            c"About 4.4 kB each. Beyond it the state is read from iot.sensor_state and written there with each batch. 0 keeps none.",
            &MAX_TRACKED_DETECTORS,
            0,
            1_000_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        GucRegistry::define_int_guc(
            c"iot_ext.max_tracked_sensors",
            c"How many sensors of all databases have their statistics in shared memory.",
            c"About 1.2 kB each. Sensors beyond it are scored from their stored readings, which is slower. 0 tracks none.",
            &MAX_TRACKED_SENSORS,
            0,
            10_000_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
    GucRegistry::define_bool_guc(
        c"iot_ext.strict",
        c"Fails the statement when a reading of a batch cannot be accepted.",
        c"Off, such a reading goes to iot.rejected_readings and the others are stored.",
        &STRICT,
        GucContext::Userset,
        GucFlags::default(),
    );
    crate::pg::settings::reserve_prefix(c"iot_ext");
}

/// Tolerated lead of a device clock, in microseconds.
pub fn clock_skew_micros() -> i64 {
    i64::from(CLOCK_SKEW.get()) * MICROS_PER_SECOND
}

/// How often the background worker writes states down; `None` for never.
pub fn flush_interval() -> Option<Duration> {
    u64::try_from(FLUSH_INTERVAL.get()).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

/// Job workers at the same time; 0 for none.
pub fn max_job_workers() -> usize {
    usize::try_from(MAX_JOB_WORKERS.get()).unwrap_or(0)
}

/// How often the launcher looks for new databases.
pub fn scheduler_interval() -> Duration {
    Duration::from_secs(u64::try_from(SCHEDULER_INTERVAL.get()).unwrap_or(1))
}

/// Databases whose next start has room in shared memory.
pub fn max_scheduled_databases() -> usize {
    usize::try_from(MAX_SCHEDULED_DATABASES.get()).unwrap_or(1)
}

/// Whether queueing a command sends a NOTIFY.
pub fn notify_commands() -> bool {
    NOTIFY_COMMANDS.get()
}

/// How long partition upkeep tries to get a lock.
pub fn maintenance_lock_timeout() -> Duration {
    Duration::from_millis(u64::try_from(MAINTENANCE_LOCK_TIMEOUT.get()).unwrap_or(0))
}

/// Sensors whose state has room in shared memory.
pub fn max_tracked_sensors() -> usize {
    usize::try_from(MAX_TRACKED_SENSORS.get()).unwrap_or(0)
}

/// Detectors whose state has room in shared memory.
pub fn max_tracked_detectors() -> usize {
    usize::try_from(MAX_TRACKED_DETECTORS.get()).unwrap_or(0)
}

/// Whether a batch fails with its first unacceptable reading.
pub fn strict() -> bool {
    STRICT.get()
}
