//! Laws of the launcher's decision, whatever the databases and workers look like.

#![allow(clippy::unwrap_used)]

use iot_core::time::Timestamp;
use iot_core::worker::{Database, Limits, Request, Start, Task, Worker, decide};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(0);

fn databases() -> impl Strategy<Value = Vec<Database>> {
    let request = (0..3_u32, 1..4_u32, -5..=0_i64).prop_map(|(owner, due, at)| Request {
        owner,
        due,
        looked_at: Timestamp(at),
    });
    let database = (
        prop_oneof![Just(i64::MAX), -5..5_i64],
        prop::bool::weighted(0.2),
        prop::collection::vec(request, 0..3),
    );
    prop::collection::vec(database, 0..6).prop_map(|all| {
        (1..)
            .zip(all)
            .map(|(database, (look_at, is_closed, mut requests))| {
                requests.dedup_by_key(|request| request.owner);
                Database { database, look_at: Timestamp(look_at), is_closed, requests }
            })
            .collect()
    })
}

fn workers() -> impl Strategy<Value = Vec<Worker>> {
    let task = prop_oneof![
        Just(Task::Scheduler),
        (0..3_u32, prop::option::of(-5..=0_i64))
            .prop_map(|(owner, since)| Task::Jobs { owner, busy_since: since.map(Timestamp) }),
    ];
    prop::collection::vec((1..6_u32, task).prop_map(|(database, task)| Worker { database, task }), 0..4)
}

proptest! {
    #[test]
    fn limits_hold_and_work_goes_on(
        databases in databases(),
        workers in workers(),
        (job_workers, schedulers, free_slots) in (0..4_usize, 1..3_usize, 0..6_usize),
        turn in 0..10_usize,
    ) {
        let limits = Limits { job_workers, schedulers, free_slots };
        let decision = decide(&databases, &workers, limits, NOW, turn);
        let of = |database: u32| databases.iter().find(|each| each.database == database).unwrap();
        let is_scheduler = |start: &Start| matches!(start, Start::Scheduler { .. });
        let (new_schedulers, new_jobs): (Vec<Start>, Vec<Start>) = decision.starts.iter().partition(|start| is_scheduler(start));
        let (old_schedulers, old_jobs): (Vec<Worker>, Vec<Worker>) = workers.iter().partition(|worker| worker.task == Task::Scheduler);

        // Never more than allowed, and others keep a slot.
        prop_assert!(new_jobs.is_empty() || old_jobs.len() + new_jobs.len() <= job_workers);
        prop_assert!(new_schedulers.is_empty() || old_schedulers.len() + new_schedulers.len() <= schedulers);
        let may_use = if workers.is_empty() { free_slots.min(1.max(free_slots.saturating_sub(1))) } else { free_slots.saturating_sub(1) };
        prop_assert!(decision.starts.len() <= may_use);
        // Nothing where nothing may be, or nothing is to be done.
        for start in &decision.starts {
            match *start {
                Start::Scheduler { database } => {
                    prop_assert!(!of(database).is_closed && of(database).look_at <= NOW);
                    prop_assert!(!old_schedulers.iter().any(|worker| worker.database == database));
                    prop_assert_eq!(decision.starts.iter().filter(|other| *other == start).count(), 1);
                }
                Start::Jobs { database, owner } => {
                    prop_assert!(!of(database).is_closed);
                    let request = of(database).requests.iter().find(|request| request.owner == owner);
                    let started = decision.starts.iter().filter(|other| *other == start).count();
                    prop_assert!(request.is_some_and(|request| started <= request.due as usize));
                }
            }
        }
        // Something starts if it can; what is to come later is not forgotten.
        let has_room = free_slots >= 2 && job_workers > 0;
        let wants_look = |each: &Database| !each.is_closed && each.look_at <= NOW
            && !old_schedulers.iter().any(|worker| worker.database == each.database);
        if has_room && old_schedulers.len() < schedulers && databases.iter().any(wants_look) {
            prop_assert!(!new_schedulers.is_empty());
        }
        if has_room && workers.is_empty() && databases.iter().any(|each| !each.is_closed && !each.requests.is_empty()) {
            prop_assert!(!decision.starts.is_empty());
        }
        if job_workers > 0 {
            let later = databases.iter().filter(|each| !each.is_closed && each.look_at > NOW && each.look_at < Timestamp::INFINITY
                && !old_schedulers.iter().any(|worker| worker.database == each.database)).map(|each| each.look_at).min();
            prop_assert_eq!(decision.wake_at, later);
        }
    }
}
