//! Quality checks: what holds for every series of readings.

#![allow(clippy::unwrap_used)]

use iot_core::ingest::{
    Observation, PhysicalRange, QualityContext, QualityFlags, QualityLimits, assess, assess_observation,
};
use iot_core::time::Timestamp;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = f64> {
    // Few different values, so that runs and jumps are both likely.
    prop_oneof![(-4..4).prop_map(f64::from), -1e3..1e3, any::<f64>().prop_filter("finite", |v| v.is_finite())]
}

fn observation() -> impl Strategy<Value = Observation> {
    (value(), 0..1_000_i64, -50..500_i64, any::<(bool, bool)>(), proptest::option::of(-500..500_i64))
        .prop_map(|(value, measured_at, delay, (future, outside_calibration), calibrated_since)| {
            Observation {
                value,
                measured_at: Timestamp(measured_at),
                received_at: Timestamp(measured_at + delay),
                future: future && measured_at % 4 == 0,
                outside_calibration,
                calibrated_since: calibrated_since.map(Timestamp),
            }
        })
}

fn limit() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(0.0..10.0)
}

fn time() -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(0..300_i64)
}

fn limits() -> impl Strategy<Value = QualityLimits> {
    let range = (proptest::option::of(-1e3..0.0), proptest::option::of(0.0..1e3));
    (range, (limit(), limit(), limit()), (time(), time(), time(), time(), time())).prop_map(
        |((minimum, maximum), (rate, spike_threshold, flatline_tolerance), times)| QualityLimits {
            physical_range: PhysicalRange { minimum, maximum },
            // Times are microseconds here, rates are per second.
            maximum_rate: rate.map(|rate| rate * 1e4),
            spike_threshold,
            flatline_after: times.0,
            flatline_tolerance,
            gap_after: times.1,
            late_after: times.2,
            calibration_due: times.3.map(Timestamp),
            calibration_valid_for: times.4,
        },
    )
}

fn series() -> impl Strategy<Value = Vec<Observation>> {
    let sorted = proptest::collection::vec(observation(), 0..40).prop_map(|mut series| {
        series.sort_by_key(|observation| observation.measured_at);
        series
    });
    prop_oneof![sorted, proptest::collection::vec(observation(), 0..40)]
}

/// Flags of a series in its order of arrival; `pass_on` makes the context of the next reading.
fn judge(
    series: &[Observation],
    limits: &QualityLimits,
    pass_on: impl Fn(QualityContext) -> QualityContext,
) -> Vec<QualityFlags> {
    let mut context = QualityContext::default();
    let mut flags = Vec::new();
    for observation in series {
        flags.push(assess_observation(observation, limits, &context));
        context.observe(observation, limits);
        context = pass_on(context);
    }
    flags
}

/// The flags that compare with other readings, from the definitions and the whole series before.
fn naive_comparisons(series: &[Observation], index: usize, limits: &QualityLimits) -> QualityFlags {
    let mut flags = QualityFlags::default();
    let present = &series[index];
    let mut in_order: Vec<&Observation> = Vec::new();
    for earlier in series[..index].iter().filter(|earlier| !earlier.future) {
        if in_order.last().is_none_or(|last| earlier.measured_at > last.measured_at) {
            in_order.push(earlier);
        }
    }
    let Some(newest) = in_order.last() else { return flags };
    if present.future || present.measured_at <= newest.measured_at {
        return flags;
    }
    let is_gap = |from: &Observation, to: &Observation| {
        limits.gap_after.is_some_and(|gap| to.measured_at.0 - from.measured_at.0 > gap)
    };
    let after_gap = is_gap(newest, present);
    if after_gap {
        flags |= QualityFlags::GAP;
    }
    let first = in_order.windows(2).rposition(|pair| is_gap(pair[0], pair[1])).map_or(0, |pair| pair + 1);
    let possible: Vec<_> =
        in_order[first..].iter().filter(|reading| limits.physical_range.contains(reading.value)).collect();
    let far = |left: f64, right: f64, allowed: f64| {
        (left - right).abs() > allowed + left.abs().max(right.abs()).max(allowed) * f64::EPSILON * 2.0
    };
    let Some(previous) = possible.last() else { return flags };
    let elapsed = (present.measured_at.0 - previous.measured_at.0) as f64 / 1e6;
    if limits.maximum_rate.is_some_and(|rate| far(present.value, previous.value, rate * elapsed)) {
        flags |= QualityFlags::RATE_OF_CHANGE;
    }
    if after_gap {
        return flags;
    }
    if let [.., a, b] = possible[..]
        && let Some(threshold) = limits.spike_threshold
        && far(present.value, a.value, threshold)
        && far(present.value, b.value, threshold)
        && !far(a.value, b.value, threshold)
    {
        flags |= QualityFlags::SPIKE;
    }
    let tolerance = limits.flatline_tolerance.unwrap_or(0.0);
    let mut run_start = possible[0];
    for reading in &possible {
        if far(reading.value, run_start.value, tolerance) {
            run_start = reading;
        }
    }
    if !far(present.value, run_start.value, tolerance)
        && limits.flatline_after.is_some_and(|t| present.measured_at.0 - run_start.measured_at.0 >= t)
    {
        flags |= QualityFlags::FLATLINE;
    }
    flags
}

proptest! {
    #[test]
    fn without_limits_only_what_the_reading_says_of_itself(series in series(), limits in limits()) {
        let limits = QualityLimits { physical_range: limits.physical_range, ..QualityLimits::default() };
        for (observation, flags) in series.iter().zip(judge(&series, &limits, |context| context)) {
            let range = &limits.physical_range;
            let own = assess(observation.value, range, observation.future, observation.outside_calibration);
            prop_assert_eq!(flags, own);
        }
    }

    #[test]
    fn comparisons_are_as_defined(series in series(), limits in limits()) {
        let comparisons = QualityFlags::RATE_OF_CHANGE
            | QualityFlags::SPIKE
            | QualityFlags::FLATLINE
            | QualityFlags::GAP;
        for (index, flags) in judge(&series, &limits, |context| context).into_iter().enumerate() {
            let expected = naive_comparisons(&series, index, &limits);
            prop_assert_eq!(QualityFlags(flags.0 & comparisons.0), expected, "reading {}", index);
            prop_assert!(!flags.contains(QualityFlags::DUPLICATE));
        }
    }

    #[test]
    fn a_context_behaves_the_same_after_storage(series in series(), limits in limits()) {
        let stored = judge(&series, &limits, |context| QualityContext::decode(&context.encode()).unwrap());
        prop_assert_eq!(stored, judge(&series, &limits, |context| context));
    }

    #[test]
    fn a_change_of_unit_changes_nothing(series in series(), limits in limits(), exponent in -20..20) {
        let factor = 2.0_f64.powi(exponent);
        // Scaling is exact only where nothing overflows or becomes subnormal.
        let normal = |v: f64| v == 0.0 || (1e-200..1e200).contains(&v.abs());
        let series: Vec<_> = series.into_iter().filter(|observation| normal(observation.value)).collect();
        let scaled_series: Vec<_> =
            series.iter().map(|reading| Observation { value: reading.value * factor, ..*reading }).collect();
        let scaled_limits = QualityLimits {
            physical_range: PhysicalRange {
                minimum: limits.physical_range.minimum.map(|v| v * factor),
                maximum: limits.physical_range.maximum.map(|v| v * factor),
            },
            maximum_rate: limits.maximum_rate.map(|v| v * factor),
            spike_threshold: limits.spike_threshold.map(|v| v * factor),
            flatline_tolerance: limits.flatline_tolerance.map(|v| v * factor),
            ..limits
        };
        prop_assert_eq!(
            judge(&scaled_series, &scaled_limits, |context| context),
            judge(&series, &limits, |context| context)
        );
    }

    #[test]
    fn a_lasting_shift_is_one_spike(
        threshold in 0.1..10.0,
        // In thresholds; the noise stays within half of one.
        height in 1.6..1e3,
        noise in proptest::collection::vec(-0.5..0.5, 3..20),
    ) {
        let limits = QualityLimits { spike_threshold: Some(threshold), ..QualityLimits::default() };
        let shifted = noise.iter().map(|noise| (height + noise) * threshold);
        let series: Vec<_> = [0.0, 0.0]
            .into_iter()
            .chain(shifted)
            .zip(0..)
            .map(|(value, at)| Observation::new(value, Timestamp(at)))
            .collect();
        let spikes = judge(&series, &limits, |context| context);
        let flagged = spikes.iter().positions_of(QualityFlags::SPIKE);
        prop_assert_eq!(flagged, [2]);
    }

    #[test]
    fn any_bytes_decode_to_a_usable_context_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        words in proptest::collection::vec(
            prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), 0..4_i64, any::<i64>()], 7
        ),
        observation in observation(),
        limits in limits(),
    ) {
        let fixed: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for bytes in [bytes, fixed] {
            if let Some(mut context) = QualityContext::decode(&bytes) {
                prop_assert_eq!(&context.encode()[..], &bytes[..]);
                assess_observation(&observation, &limits, &context);
                context.observe(&observation, &limits);
                prop_assert!(QualityContext::decode(&context.encode()).is_some());
            }
        }
    }
}

trait PositionsOf {
    fn positions_of(self, flag: QualityFlags) -> Vec<usize>;
}

impl<'a, I: Iterator<Item = &'a QualityFlags>> PositionsOf for I {
    fn positions_of(self, flag: QualityFlags) -> Vec<usize> {
        self.enumerate().filter(|(_, flags)| flags.contains(flag)).map(|(index, _)| index).collect()
    }
}
