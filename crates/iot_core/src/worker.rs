//! Which background workers to start: the launcher's decision.
//!
//! A *scheduler* looks at the jobs of a database and tells for which owners something is due (a [`Request`]); a *job
//! worker* serves the due jobs of one owner in one database, one after the other. Both end when they have nothing to do.

use crate::time::Timestamp;

/// What the launcher knows of a database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its oid.
    pub database: u32,
    /// When somebody must look at its jobs.
    pub look_at: Timestamp,
    /// Whether no worker may be started there now: it is being dropped, renamed or copied, or takes no connections.
    pub is_closed: bool,
    /// Owners with due jobs, the longest due first.
    pub requests: Vec<Request>,
}

/// Due jobs of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Oid of the role.
    pub owner: u32,
    /// How many jobs.
    pub due: u32,
    /// When they were counted.
    pub looked_at: Timestamp,
}

/// A worker that was started and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// The database it is for.
    pub database: u32,
    /// What it does.
    pub task: Task,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Looks for due jobs.
    Scheduler,
    /// Runs the due jobs of a role.
    Jobs {
        /// Oid of the role.
        owner: u32,
        /// Since when it has been running the job that it runs.
        busy_since: Option<Timestamp>,
    },
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Job workers at the same time; 0 turns the job system off.
    pub job_workers: usize,
    /// Schedulers at the same time.
    pub schedulers: usize,
    /// Slots for background workers that nobody uses.
    pub free_slots: usize,
}

/// A worker to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A scheduler.
    Scheduler {
        /// Where.
        database: u32,
    },
    /// A job worker.
    Jobs {
        /// Where.
        database: u32,
        /// As whom.
        owner: u32,
    },
}

/// What to do now, and when to decide anew if nothing else happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Workers to start, in this order.
    pub starts: Vec<Start>,
    /// The earliest time at which a database that can be looked at must be; `None` for never.
    pub wake_at: Option<Timestamp>,
    /// Something must wait because there is no slot for it.
    pub lacks_slots: bool,
}

/// Decides. `turn` changes from call to call, so that with few workers no database always comes last.
///
/// One slot is left to others, unless that would leave none to us.
pub fn decide(
    databases: &[Database],
    workers: &[Worker],
    limits: Limits,
    now: Timestamp,
    turn: usize,
) -> Decision {
    let mut decision = Decision::default();
    if limits.job_workers == 0 || databases.is_empty() {
        return decision;
    }
    let first = turn % databases.len();
    let in_turn = || databases[first..].iter().chain(&databases[..first]).filter(|each| !each.is_closed);
    let mut now_there: Vec<Worker> = workers.to_vec();
    let mut free_slots = limits.free_slots;
    let mut may_start = |now_there: &[Worker], decision: &mut Decision| {
        let needed = if now_there.is_empty() { 1 } else { 2 };
        if free_slots < needed {
            decision.lacks_slots = true;
            return false;
        }
        free_slots -= 1;
        true
    };

    for database in in_turn() {
        let has_scheduler = schedulers(&now_there).any(|worker| worker.database == database.database);
        if has_scheduler {
            // Its end is news.
        } else if database.look_at > now {
            let earlier = decision.wake_at.is_none_or(|wake_at| database.look_at < wake_at);
            if earlier && database.look_at < Timestamp::INFINITY {
                decision.wake_at = Some(database.look_at);
            }
        } else if schedulers(&now_there).count() < limits.schedulers && may_start(&now_there, &mut decision) {
            now_there.push(Worker { database: database.database, task: Task::Scheduler });
            decision.starts.push(Start::Scheduler { database: database.database });
        }
    }

    // One worker for each database, then a second one for each, …
    loop {
        let before = decision.starts.len();
        for database in in_turn() {
            let Some(owner) = neediest(database, &now_there) else { continue };
            let job_workers = now_there.iter().filter(|worker| worker.task != Task::Scheduler).count();
            if job_workers >= limits.job_workers || !may_start(&now_there, &mut decision) {
                return decision;
            }
            now_there
                .push(Worker { database: database.database, task: Task::Jobs { owner, busy_since: None } });
            decision.starts.push(Start::Jobs { database: database.database, owner });
        }
        if decision.starts.len() == before {
            return decision;
        }
    }
}

fn schedulers(workers: &[Worker]) -> impl Iterator<Item = &Worker> {
    workers.iter().filter(|worker| worker.task == Task::Scheduler)
}

/// The owner with due jobs who has fewest workers for them, if one has fewer workers than jobs. A worker that has been busy
/// with one job since before they were counted is none for them: that job may last for hours.
fn neediest(database: &Database, workers: &[Worker]) -> Option<u32> {
    let available = |request: &Request| {
        workers
            .iter()
            .filter(|worker| {
                worker.database == database.database
                    && matches!(worker.task, Task::Jobs { owner, busy_since }
                        if owner == request.owner && busy_since.is_none_or(|since| since >= request.looked_at))
            })
            .count()
    };
    database
        .requests
        .iter()
        .map(|request| (available(request), request))
        .filter(|(available, request)| *available < request.due as usize)
        .min_by_key(|(available, _)| *available)
        .map(|(_, request)| request.owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const LIMITS: Limits = Limits { job_workers: 2, schedulers: 1, free_slots: 8 };

    fn database(number: u32, look_at: Timestamp, requests: &[(u32, u32)]) -> Database {
        Database {
            database: number,
            look_at,
            is_closed: false,
            requests: requests.iter().map(|&(owner, due)| Request { owner, due, looked_at: NOW }).collect(),
        }
    }

    fn job_worker(database: u32, owner: u32, busy_since: Option<Timestamp>) -> Worker {
        Worker { database, task: Task::Jobs { owner, busy_since } }
    }

    #[test]
    fn nothing_due_starts_nothing_and_says_when_to_wake() {
        let databases = [database(1, Timestamp(NOW.0 + 5), &[]), database(2, Timestamp::INFINITY, &[])];
        let decision = decide(&databases, &[], LIMITS, NOW, 1);
        assert_eq!(decision, Decision { wake_at: Some(Timestamp(NOW.0 + 5)), ..Decision::default() });
        assert_eq!(decide(&databases[1..], &[], LIMITS, NOW, 0), Decision::default());
    }

    #[test]
    fn who_must_be_looked_at_gets_a_scheduler_one_after_the_other_in_turn() {
        let databases = [database(1, NOW, &[]), database(2, NOW, &[])];
        assert_eq!(decide(&databases, &[], LIMITS, NOW, 0).starts, [Start::Scheduler { database: 1 }]);
        assert_eq!(decide(&databases, &[], LIMITS, NOW, 1).starts, [Start::Scheduler { database: 2 }]);
        let running = [Worker { database: 1, task: Task::Scheduler }];
        assert_eq!(decide(&databases, &running, LIMITS, NOW, 0).starts, []);
    }

    #[test]
    fn workers_are_shared_between_databases_and_owners() {
        let databases = [
            database(1, Timestamp::INFINITY, &[(10, 9), (11, 1)]),
            database(2, Timestamp::INFINITY, &[(10, 1)]),
        ];
        let first = Start::Jobs { database: 1, owner: 10 };
        assert_eq!(
            decide(&databases, &[], LIMITS, NOW, 0).starts,
            [first, Start::Jobs { database: 2, owner: 10 }]
        );
        let more = Limits { job_workers: 4, ..LIMITS };
        assert_eq!(
            decide(&databases, &[], more, NOW, 0).starts,
            [first, Start::Jobs { database: 2, owner: 10 }, Start::Jobs { database: 1, owner: 11 }, first]
        );
    }

    #[test]
    fn a_worker_that_has_long_been_busy_does_not_count() {
        let databases = [database(1, Timestamp::INFINITY, &[(10, 1)])];
        let start = [Start::Jobs { database: 1, owner: 10 }];
        let busy = |since| [job_worker(1, 10, Some(Timestamp(since)))];
        assert_eq!(decide(&databases, &busy(NOW.0 - 1), LIMITS, NOW, 0).starts, start);
        assert_eq!(decide(&databases, &busy(NOW.0), LIMITS, NOW, 0).starts, []);
        assert_eq!(decide(&databases, &[job_worker(1, 10, None)], LIMITS, NOW, 0).starts, []);
        assert_eq!(decide(&databases, &[job_worker(1, 11, None)], LIMITS, NOW, 0).starts, start);
    }

    #[test]
    fn the_last_slot_is_taken_only_by_the_first_of_us() {
        let databases = [database(1, NOW, &[(10, 1)])];
        let limits = |free_slots| Limits { free_slots, ..LIMITS };
        assert!(decide(&databases, &[], limits(0), NOW, 0).lacks_slots);
        let one = decide(&databases, &[], limits(1), NOW, 0);
        assert_eq!((one.starts, one.lacks_slots), (vec![Start::Scheduler { database: 1 }], true));
        assert_eq!(decide(&databases, &[], limits(2), NOW, 0).starts.len(), 1);
        let three = decide(&databases, &[], limits(3), NOW, 0);
        assert_eq!((three.starts.len(), three.lacks_slots), (2, false));
    }

    #[test]
    fn closed_databases_and_a_limit_of_zero_start_nothing() {
        let mut closed = database(1, NOW, &[(10, 1)]);
        closed.is_closed = true;
        assert_eq!(decide(&[closed], &[], LIMITS, NOW, 0), Decision::default());
        let off = Limits { job_workers: 0, ..LIMITS };
        assert_eq!(decide(&[database(1, NOW, &[(10, 1)])], &[], off, NOW, 0), Decision::default());
    }
}
