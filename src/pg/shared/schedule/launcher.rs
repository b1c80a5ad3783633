//! The launcher's side: what it decides on, and the places of the workers that it starts.

use iot_core::time::Timestamp;
use iot_core::worker::{Request, Task, Worker};
use pgrx::pg_sys;

use super::{Kind, START_MICROS, Stage, WorkerRow, lock, now};

/// This process is the launcher from now on; what an earlier one left unfinished is forgotten.
pub fn become_launcher() {
    if let Some(locked) = lock() {
        // SAFETY: the latch of this process's slot, set when it began.
        locked.header.launcher = unsafe { pg_sys::MyLatch };
        locked.header.has_news = true;
    }
}

/// Whether there may be databases that the launcher has not seen; asked once.
pub fn take_news() -> bool {
    lock().is_some_and(|locked| std::mem::take(&mut locked.header.has_news))
}

/// Tells of every database of the cluster: the rows of others are freed, and those without a row are given one, to be
/// looked at, as long as there are some to give. They take turns: `last` is the one that was last given one.
pub fn know(databases: &[u32], last: &mut u32) {
    let Some(mut locked) = lock() else { return };
    for row in locked.databases.iter_mut().filter(|row| !databases.contains(&row.database)) {
        row.database = 0;
    }
    let mut missing: Vec<u32> =
        databases.iter().copied().filter(|&database| locked.row(database).is_none()).collect();
    missing.sort_unstable_by_key(|&database| (database <= *last, database));
    for database in missing {
        if locked.row_or_new(database).is_none() {
            break;
        }
        *last = database;
    }
}

/// What the launcher decides on: databases and workers. `is_open` tells whether a database takes connections.
pub fn situation(is_open: impl Fn(u32) -> bool) -> (Vec<iot_core::worker::Database>, Vec<Worker>) {
    let Some(locked) = lock() else { return (Vec::new(), Vec::new()) };
    let give_up_before = now() - START_MICROS;
    for worker in &mut locked.header.workers {
        if worker.stage == Stage::Starting && worker.since < give_up_before {
            worker.stage = Stage::Free;
        }
    }
    let databases = locked
        .databases
        .iter()
        .filter(|row| row.database != 0)
        .map(|row| iot_core::worker::Database {
            database: row.database,
            look_at: Timestamp(row.look_at),
            is_closed: locked.is_held(row.database) || !is_open(row.database),
            requests: row
                .requests
                .iter()
                .filter(|request| request.due > 0)
                .map(|request| Request {
                    owner: request.owner,
                    due: request.due,
                    looked_at: Timestamp(request.looked_at),
                })
                .collect(),
        })
        .collect();
    let workers = locked
        .header
        .workers
        .iter()
        .filter(|worker| worker.stage != Stage::Free && worker.kind != Kind::Flush)
        .map(|worker| Worker {
            database: worker.database,
            task: match worker.kind {
                Kind::Jobs => Task::Jobs {
                    owner: worker.owner,
                    busy_since: (worker.is_running() && worker.since != 0).then_some(Timestamp(worker.since)),
                },
                Kind::Flush | Kind::Scheduler => Task::Scheduler,
            },
        })
        .collect();
    (databases, workers)
}

/// The processes of our workers, 0 for each that has not come to life: until they are connected, nobody else can see them.
pub fn processes() -> Vec<i32> {
    lock().map_or_else(Vec::new, |locked| {
        let taken = locked.header.workers.iter().filter(|worker| worker.stage != Stage::Free);
        taken.map(|worker| worker.pid).collect()
    })
}

/// A place for a worker that is to be started; `None` where it must not be, or there are too many.
pub fn reserve(kind: Kind, database: u32, owner: u32) -> Option<u32> {
    let locked = lock()?;
    if locked.is_held(database) {
        return None;
    }
    let place = locked.header.workers.iter().position(|worker| worker.stage == Stage::Free)?;
    locked.header.workers[place] = WorkerRow {
        stage: Stage::Starting,
        kind,
        stops: false,
        is_done: false,
        database,
        owner,
        pid: 0,
        since: now(),
        looked_at: 0,
    };
    Some(place as u32)
}

/// Gives back the place of a worker that never came to life.
pub fn cancel(place: u32) {
    if let Some(locked) = lock() {
        let worker = &mut locked.header.workers[place as usize];
        if worker.stage == Stage::Starting {
            worker.stage = Stage::Free;
        }
    }
}
