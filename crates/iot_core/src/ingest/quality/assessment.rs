//! The checks.

use super::context::differs;
use super::{PhysicalRange, QualityContext, QualityFlags, QualityLimits};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// A reading as its quality is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The calibrated value, in the unit of the sensor; finite.
    pub value: f64,
    /// When the device measured it.
    pub measured_at: Timestamp,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Whether `measured_at` lies further ahead of the server's clock than allowed.
    pub future: bool,
    /// Whether the raw value lay outside the piecewise table of the calibration.
    pub outside_calibration: bool,
    /// When the sensor was calibrated. `None` and infinite times are unknown.
    pub calibrated_since: Option<Timestamp>,
}

impl Observation {
    /// A reading that arrived at the moment it was measured, inside the calibration, whose age is unknown.
    pub fn new(value: f64, measured_at: Timestamp) -> Self {
        Self {
            value,
            measured_at,
            received_at: measured_at,
            future: false,
            outside_calibration: false,
            calibrated_since: None,
        }
    }
}

/// The flags of `observation`, given what is remembered of the readings before it.
///
/// These need no other reading:
///
/// - *Out of range*: outside [`physical_range`](QualityLimits::physical_range).
/// - *Future* and *outside calibration*: as the observation says.
/// - *Late*: received more than [`late_after`](QualityLimits::late_after) after it was measured.
/// - *Stale calibration*: measured at or after [`calibration_due`](QualityLimits::calibration_due), or at least
///   [`calibration_valid_for`](QualityLimits::calibration_valid_for) after the calibration.
///
/// These compare with previous readings. A reading from the future, or not newer than the newest one, gets
/// none of them: what lies between was judged without it, and its own predecessors are forgotten.
///
/// - *Gap*: more than [`gap_after`](QualityLimits::gap_after) since the newest reading, of whatever value. The
///   first reading of a sensor is none. Readings before a gap are no neighbours: the first reading after it is
///   neither a spike nor flat.
/// - *Rate of change*: |Δvalue| ÷ Δtime to the previous reading is above
///   [`maximum_rate`](QualityLimits::maximum_rate); after a gap too, because then the true rate was at least
///   that at some moment.
/// - *Spike*: further than [`spike_threshold`](QualityLimits::spike_threshold) from each of the two previous
///   readings, which are at most that far from each other. QARTOD compares with the readings on both sides;
///   the one after is not known yet. So the first reading of a lasting shift is flagged as well, but none after
///   it that is within the threshold of the first. The return from a spike is not flagged, nor is a steady
///   ramp, however steep: that is what the rate is for.
/// - *Flatline*: within [`flatline_tolerance`](QualityLimits::flatline_tolerance) of an earlier reading, as all
///   readings since, for at least [`flatline_after`](QualityLimits::flatline_after). The tolerance counts from
///   the first reading of the run, so that a slow drift ends it.
///
/// "Previous" are readings inside the physical range: after an error code such as −127 the next good reading
/// is compared with the last good one. Limits themselves are never exceeded, nor are they by rounding errors.
///
/// The result depends only on the arguments, and so the flags of a series only on its order of arrival.
pub fn assess_observation(
    observation: &Observation,
    limits: &QualityLimits,
    context: &QualityContext,
) -> QualityFlags {
    let in_order = context.is_in_order(observation);
    let after_gap = in_order && context.is_after_gap(observation, limits);
    let has_neighbours = in_order && !after_gap;

    let mut flags = assess(
        observation.value,
        &limits.physical_range,
        observation.future,
        observation.outside_calibration,
    );
    for (doubtful, flag) in [
        (is_late(observation, limits), QualityFlags::LATE),
        (is_calibration_stale(observation, limits), QualityFlags::STALE_CALIBRATION),
        (after_gap, QualityFlags::GAP),
        (in_order && is_too_fast(observation, limits, context), QualityFlags::RATE_OF_CHANGE),
        (has_neighbours && is_spike(observation.value, limits, context), QualityFlags::SPIKE),
        (has_neighbours && is_flat(observation, limits, context), QualityFlags::FLATLINE),
    ] {
        if doubtful {
            flags |= flag;
        }
    }
    flags
}

/// The flags of a calibrated `value` without other readings: measured in the `future` or not,
/// `outside_calibration` or not.
pub fn assess(value: f64, range: &PhysicalRange, future: bool, outside_calibration: bool) -> QualityFlags {
    let mut flags = QualityFlags::default();
    if !range.contains(value) {
        flags |= QualityFlags::OUT_OF_RANGE;
    }
    if future {
        flags |= QualityFlags::FUTURE;
    }
    if outside_calibration {
        flags |= QualityFlags::OUTSIDE_CALIBRATION;
    }
    flags
}

fn is_late(observation: &Observation, limits: &QualityLimits) -> bool {
    let delay = observation.received_at.0.saturating_sub(observation.measured_at.0);
    limits.late_after.is_some_and(|longest| delay > longest)
}

fn is_calibration_stale(observation: &Observation, limits: &QualityLimits) -> bool {
    let calibrated_since = observation.calibrated_since.filter(|since| since.is_finite());
    let expiry = calibrated_since
        .zip(limits.calibration_valid_for)
        .and_then(|(since, valid_for)| since.checked_add(valid_for));
    [limits.calibration_due, expiry].into_iter().flatten().any(|due| observation.measured_at >= due)
}

fn is_too_fast(observation: &Observation, limits: &QualityLimits, context: &QualityContext) -> bool {
    let (Some(maximum_rate), Some(previous)) = (limits.maximum_rate, context.previous()) else {
        return false;
    };
    let micros = observation.measured_at.0.saturating_sub(previous.at.0);
    let allowed = maximum_rate * (micros as f64 / MICROS_PER_SECOND as f64);
    differs(observation.value, previous.value, allowed)
}

fn is_spike(value: f64, limits: &QualityLimits, context: &QualityContext) -> bool {
    let (Some(threshold), Some(previous), Some(before)) =
        (limits.spike_threshold, context.previous(), context.before_previous())
    else {
        return false;
    };
    differs(value, previous.value, threshold)
        && differs(value, before.value, threshold)
        && !differs(previous.value, before.value, threshold)
}

fn is_flat(observation: &Observation, limits: &QualityLimits, context: &QualityContext) -> bool {
    let unchanged_since = context.unchanged_since(observation.value, limits);
    unchanged_since
        .zip(limits.flatline_after)
        .is_some_and(|(since, longest)| observation.measured_at.0.saturating_sub(since.0) >= longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_DAY;

    const ROOM: PhysicalRange = PhysicalRange { minimum: Some(-40.0), maximum: Some(85.0) };
    const RANGE: i32 = QualityFlags::OUT_OF_RANGE.0;
    const RATE: i32 = QualityFlags::RATE_OF_CHANGE.0;
    const SPIKE: i32 = QualityFlags::SPIKE.0;
    const FLAT: i32 = QualityFlags::FLATLINE.0;
    const GAP: i32 = QualityFlags::GAP.0;

    /// Judges readings (second, value, expected flags) in their order of arrival.
    fn check(limits: QualityLimits, series: &[(i64, f64, i32)]) {
        let limits = QualityLimits { physical_range: ROOM, ..limits };
        let mut context = QualityContext::default();
        for (index, (second, value, expected)) in series.iter().enumerate() {
            let observation = Observation::new(*value, Timestamp(second * MICROS_PER_SECOND));
            let flags = assess_observation(&observation, &limits, &context);
            assert_eq!(flags.0, *expected, "reading {index}: {value} at second {second}");
            context.observe(&observation, &limits);
        }
    }

    fn seconds(seconds: i64) -> Option<i64> {
        Some(seconds * MICROS_PER_SECOND)
    }

    #[test]
    fn each_reason_sets_its_flag() {
        for (value, future, outside, expected) in [
            (20.0, false, false, QualityFlags(0)),
            (90.0, false, false, QualityFlags::OUT_OF_RANGE),
            (20.0, true, false, QualityFlags::FUTURE),
            (20.0, false, true, QualityFlags::OUTSIDE_CALIBRATION),
            (90.0, true, true, QualityFlags(1 | 64 | 512)),
        ] {
            assert_eq!(assess(value, &ROOM, future, outside), expected);
        }
    }

    #[test]
    fn rate_of_change() {
        let limits = QualityLimits { maximum_rate: Some(0.1), ..QualityLimits::default() };
        check(
            limits,
            &[
                (0, 20.0, 0),
                (10, 21.0, 0),
                (20, 22.01, RATE),
                (30, 21.1, 0),
                (40, 20.0, RATE),
                // The same change is credible in more time.
                (1_000, 60.0, 0),
                // Late arrivals, and a second reading of the same moment.
                (500, -20.0, 0),
                (1_000, -20.0, 0),
                (1_001, 60.1, 0),
                // Error codes are not compared with.
                (1_002, -127.0, RANGE | RATE),
                (1_003, 60.2, 0),
            ],
        );
    }

    #[test]
    fn spike() {
        let limits = QualityLimits { spike_threshold: Some(5.0), ..QualityLimits::default() };
        check(
            limits,
            &[
                (0, 20.0, 0),
                (1, 30.0, 0),
                (2, 20.0, 0),
                (3, 20.5, 0),
                (4, 26.0, SPIKE),
                (5, 20.5, 0),
                (6, 20.5, 0),
                (7, 20.0, 0),
                (8, 10.0, SPIKE),
                (9, 20.0, 0),
            ],
        );
    }

    #[test]
    fn only_the_first_reading_of_a_shift_is_a_spike() {
        let limits = QualityLimits { spike_threshold: Some(5.0), ..QualityLimits::default() };
        check(
            limits,
            &[(0, 20.0, 0), (1, 20.0, 0), (2, 25.5, SPIKE), (3, 25.5, 0), (4, 27.0, 0), (5, 27.0, 0)],
        );
        check(limits, &[(0, 20.0, 0), (1, 24.0, 0), (2, 40.0, SPIKE), (3, 41.0, 0), (4, 36.0, 0)]);
        // A ramp is no series of spikes, neither below nor above the threshold.
        check(limits, &[(0, 0.0, 0), (1, 4.0, 0), (2, 8.0, 0), (3, 12.0, 0), (4, 16.0, 0)]);
        check(limits, &[(0, 0.0, 0), (1, 6.0, 0), (2, 12.0, 0), (3, 18.0, 0)]);
    }

    #[test]
    fn flatline() {
        let limits = QualityLimits {
            flatline_after: seconds(30),
            flatline_tolerance: Some(0.1),
            ..QualityLimits::default()
        };
        check(
            limits,
            &[
                (0, 20.0, 0),
                (10, 20.1, 0),
                (29, 19.9, 0),
                (30, 20.0, FLAT),
                (40, 20.1, FLAT),
                (50, -127.0, RANGE),
                (60, 20.0, FLAT),
                (45, 20.0, 0),
                (70, 20.2, 0),
                (99, 20.2, 0),
                (100, 20.3, FLAT),
            ],
        );
        let exactly = QualityLimits { flatline_tolerance: None, ..limits };
        check(exactly, &[(0, 20.0, 0), (30, 20.0, FLAT), (31, 20.1, 0), (60, 20.1, 0), (61, 20.1, FLAT)]);
    }

    #[test]
    fn gap() {
        let limits = QualityLimits {
            gap_after: seconds(60),
            maximum_rate: Some(0.1),
            spike_threshold: Some(5.0),
            flatline_after: seconds(100),
            ..QualityLimits::default()
        };
        check(
            limits,
            &[
                (0, 20.0, 0),
                (60, 20.0, 0),
                (121, 20.0, GAP),
                (150, 20.0, 0),
                (160, -127.0, RANGE | RATE | SPIKE),
                (220, 20.0, 0),
                (230, 20.0, FLAT),
                // Neither a spike nor flat after a gap, but faster than it can be.
                (300, 40.0, GAP | RATE),
                (301, 40.0, 0),
                (150, 40.0, 0),
            ],
        );
    }

    #[test]
    fn late_is_measured_against_the_receipt() {
        let limits = QualityLimits { late_after: seconds(60), ..QualityLimits::default() };
        let context = QualityContext::default();
        for (delay, expected) in [(0, 0), (60, 0), (61, QualityFlags::LATE.0), (-500, 0)] {
            let observation = Observation {
                received_at: Timestamp(delay * MICROS_PER_SECOND),
                ..Observation::new(20.0, Timestamp(0))
            };
            assert_eq!(assess_observation(&observation, &limits, &context).0, expected, "{delay}");
        }
    }

    #[test]
    fn calibrations_become_stale_at_their_due_date_or_age() {
        let context = QualityContext::default();
        let day = |days: i64| Timestamp(days * MICROS_PER_DAY);
        let due = QualityLimits { calibration_due: Some(day(100)), ..QualityLimits::default() };
        let aging = QualityLimits { calibration_valid_for: Some(day(30).0), ..QualityLimits::default() };
        for (limits, since, measured, stale) in [
            (due, None, 99, false),
            (due, None, 100, true),
            (aging, Some(day(10)), 39, false),
            (aging, Some(day(10)), 40, true),
            (aging, None, 1_000, false),
            (aging, Some(Timestamp::NEGATIVE_INFINITY), 1_000, false),
            (aging, Some(Timestamp::INFINITY), 1_000, false),
            (QualityLimits { calibration_valid_for: Some(i64::MAX), ..due }, Some(day(1)), 99, false),
        ] {
            let observation =
                Observation { calibrated_since: since, ..Observation::new(20.0, day(measured)) };
            let expected = if stale { QualityFlags::STALE_CALIBRATION } else { QualityFlags::default() };
            assert_eq!(assess_observation(&observation, &limits, &context), expected, "{since:?} {measured}");
        }
    }

    #[test]
    fn readings_from_the_future_are_compared_with_nothing_and_forgotten() {
        let limits =
            QualityLimits { maximum_rate: Some(0.1), gap_after: seconds(60), ..QualityLimits::default() };
        let mut context = QualityContext::default();
        let at = |second: i64| Timestamp(second * MICROS_PER_SECOND);
        context.observe(&Observation::new(20.0, at(0)), &limits);
        let ahead = Observation { future: true, ..Observation::new(80.0, at(3_600)) };
        assert_eq!(assess_observation(&ahead, &limits, &context), QualityFlags::FUTURE);
        context.observe(&ahead, &limits);
        let next = Observation::new(30.0, at(10));
        assert_eq!(assess_observation(&next, &limits, &context), QualityFlags::RATE_OF_CHANGE);
    }
}
