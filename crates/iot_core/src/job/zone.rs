//! What a time zone must tell for schedules by the clock on the wall.

use crate::time::{MICROS_PER_DAY, Timestamp};

/// No zone is further from UTC, nor has put its clocks on or back by more.
const FURTHEST: i64 = MICROS_PER_DAY;

/// A time zone: stretches of constant distance from UTC.
pub trait Zone {
    /// Microseconds by which its clocks are ahead of UTC at `at`.
    fn offset_at(&self, at: Timestamp) -> i64;

    /// The first moment after `at` when its rules change (the offset may stay the same); `None` for never.
    fn next_change(&self, at: Timestamp) -> Option<Timestamp>;
}

/// UTC.
#[derive(Clone, Copy, Debug)]
pub struct Utc;

impl Zone for Utc {
    fn offset_at(&self, _at: Timestamp) -> i64 {
        0
    }

    fn next_change(&self, _at: Timestamp) -> Option<Timestamp> {
        None
    }
}

/// A time shown by clocks, as microseconds since they showed 2000-01-01 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Local(pub i64);

/// A stretch of time during which a zone keeps its distance from UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Option<Timestamp>,
    pub offset: i64,
}

impl Stretch {
    pub fn to_local(self, at: Timestamp) -> Local {
        Local(at.0.saturating_add(self.offset))
    }

    pub fn at(self, local: Local) -> Timestamp {
        Timestamp(local.0.saturating_sub(self.offset))
    }

    pub fn ends_after(self, at: Timestamp) -> bool {
        self.end.is_none_or(|end| at < end)
    }
}

/// The stretches of a zone from two days before `from`, so that the one in which `from` lies is seen from its start where that
/// matters.
pub(super) fn stretches(zone: &impl Zone, from: Timestamp) -> impl Iterator<Item = Stretch> {
    let mut start = Some(Timestamp(from.0.saturating_sub(2 * FURTHEST)).max(Timestamp::EARLIEST));
    std::iter::from_fn(move || {
        let begin = start?;
        start = zone.next_change(begin).filter(|end| *end > begin && end.is_finite());
        Some(Stretch { start: begin, end: start, offset: zone.offset_at(begin) })
    })
}

/// The moment when the clocks of a zone show `local`: the first one of two, and the end of the gap for what is left out.
pub(super) fn moment(zone: &impl Zone, local: Local) -> Timestamp {
    let estimate = Timestamp(local.0);
    let mut last = estimate;
    for stretch in stretches(zone, estimate) {
        last = stretch.at(local).max(stretch.start);
        if stretch.ends_after(stretch.at(local)) {
            break;
        }
    }
    last
}

/// What the clocks of a zone show.
pub(super) fn local(zone: &impl Zone, at: Timestamp) -> Local {
    Local(at.0.saturating_add(zone.offset_at(at)))
}
