//! Laws of all streaming detectors.

#![allow(clippy::unwrap_used)]

use iot_core::detect::{
    ANOMALY_LIMIT, DetectorKind, DetectorState, MAXIMUM_SCORE, Verdict, ZscoreWindow, score_series,
};
use iot_core::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// The kinds that keep a `DetectorState`.
const STATEFUL: [DetectorKind; 4] =
    [DetectorKind::Robust, DetectorKind::Ewma, DetectorKind::Seasonal, DetectorKind::Adaptive];

/// Pseudo-random numbers around 0, nearly normal: the sum of four uniform ones.
fn noise(number: i64) -> f64 {
    let uniform = |salt: u64| {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut bits = (number as u64).wrapping_mul(4).wrapping_add(salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    (0..4).map(uniform).sum::<f64>() * 3.0_f64.sqrt()
}

fn every_five_minutes(number: i64) -> Timestamp {
    Timestamp(number * 5 * MICROS_PER_MINUTE)
}

/// A series every five minutes.
fn series(readings: i64, value: impl Fn(i64) -> f64) -> Vec<(Timestamp, f64)> {
    (0..readings).map(|number| (every_five_minutes(number), value(number))).collect()
}

fn verdicts(kind: DetectorKind, series: &[(Timestamp, f64)]) -> Vec<Verdict> {
    score_series(kind, series.iter().copied()).map(|(.., verdict)| verdict).collect()
}

/// Numbers of the readings that start an episode.
fn onsets(kind: DetectorKind, series: &[(Timestamp, f64)]) -> Vec<usize> {
    let verdicts = verdicts(kind, series);
    (0..verdicts.len()).filter(|number| verdicts[*number].is_onset).collect()
}

fn encoded(state: &DetectorState) -> Vec<u8> {
    let mut bytes = vec![0; DetectorState::encoded_len(state.kind())];
    assert!(state.encode(&mut bytes));
    bytes
}

#[test]
fn nothing_is_said_while_learning() {
    for kind in STATEFUL {
        let verdicts = verdicts(kind, &series(60, |number| if number == 20 { 1e6 } else { noise(number) }));
        for (number, verdict) in verdicts.iter().enumerate() {
            assert_eq!(verdict.learning, number < 30, "{kind:?} {number}");
            assert!(!(verdict.learning && verdict.is_anomaly), "{kind:?} {number}");
        }
    }
}

#[test]
fn a_constant_signal_is_usual_and_any_other_value_is_not() {
    for kind in DetectorKind::ALL {
        for level in [0.0, 0.1, -7e5, 1e308] {
            let mut series = series(1_000, |_| level);
            assert_eq!(onsets(kind, &series), [0_usize; 0], "{kind:?} {level}");
            series.push((every_five_minutes(1_000), 1.0 - level));
            // The 24-hour rule leaves values beyond 1e150 out of its window.
            let knows = kind != DetectorKind::Zscore || level < 1e150;
            assert_eq!(verdicts(kind, &series)[1_000].is_anomaly, knows, "{kind:?} {level}");
        }
    }
}

#[test]
fn a_huge_jump_is_one_episode() {
    for kind in DetectorKind::ALL {
        let series = series(2_100, |number| if number >= 2_000 { 1e9 } else { noise(number) });
        let found = onsets(kind, &series);
        assert_eq!(found.last(), Some(&2_000), "{kind:?} {found:?}");
    }
}

#[test]
fn noise_is_hardly_ever_an_episode() {
    for kind in DetectorKind::ALL {
        let series = series(6_000, |number| 20.0 + noise(number));
        let found = onsets(kind, &series);
        assert!(found.len() <= 8, "{kind:?}: {found:?}");
    }
}

#[test]
fn a_lasting_shift_of_level_is_learned() {
    for kind in DetectorKind::ALL {
        let series = series(12_000, |number| noise(number) + if number >= 3_000 { 50.0 } else { 0.0 });
        let verdicts = verdicts(kind, &series);
        assert!(verdicts[3_000..3_050].iter().any(|verdict| verdict.is_onset), "{kind:?}");
        let late = verdicts[9_000..].iter().filter(|verdict| verdict.is_onset).count();
        assert!(late <= 3, "{kind:?}: {late} episodes long after the shift");
    }
}

#[test]
fn a_single_outlier_does_not_poison_what_is_usual() {
    for kind in DetectorKind::ALL {
        let outlier = |number: i64| if number == 2_000 || number == 3_000 { 60.0 } else { noise(number) };
        let found = onsets(kind, &series(3_010, outlier));
        assert!(found.contains(&2_000), "{kind:?}: {found:?}");
        assert!(found.contains(&3_000), "{kind:?}: {found:?}");
    }
}

#[test]
fn a_daily_rhythm_is_usual_and_its_absence_is_not() {
    let daily = |number: i64| 20.0 + 10.0 * (number as f64 * std::f64::consts::TAU / 288.0).sin();
    let series = series(6_000, |number| {
        noise(number) * 0.3 + if (4_320..4_400).contains(&number) { 30.0 } else { daily(number) }
    });
    for kind in [DetectorKind::Seasonal, DetectorKind::Adaptive] {
        let found = onsets(kind, &series);
        assert!(found.iter().any(|number| (4_320..4_400).contains(number)), "{kind:?}: {found:?}");
        assert!(found.iter().filter(|number| **number < 4_320).count() <= 4, "{kind:?}: {found:?}");
    }
}

#[test]
fn a_late_reading_is_scored_and_changes_nothing() {
    for kind in STATEFUL {
        let mut state = DetectorState::new(kind).unwrap();
        for (at, value) in series(1_000, noise) {
            state.observe(at, value);
        }
        let before = state.clone();
        let late = Timestamp(state.newest().0 - 1);
        let verdict = state.observe(late, 1e6);
        assert!(verdict.is_anomaly && !verdict.is_onset, "{kind:?}: {verdict:?}");
        assert_eq!(verdict, before.score_late(late, 1e6), "{kind:?}");
        assert_eq!(state, before, "{kind:?}");
    }
}

#[test]
fn states_are_small() {
    assert_eq!(DetectorState::new(DetectorKind::Zscore), None);
    assert_eq!(DetectorState::encoded_len(DetectorKind::Zscore), 0);
    const { assert!(size_of::<ZscoreWindow>() <= 1_000) };
    for kind in STATEFUL {
        assert!(DetectorState::encoded_len(kind) <= 16_384, "{kind:?}");
    }
}

#[test]
fn bytes_that_are_no_state() {
    for kind in STATEFUL {
        let state = DetectorState::new(kind).unwrap();
        let mut bytes = encoded(&state);
        assert!(!state.encode(&mut bytes.clone()[1..]));
        assert_eq!(DetectorState::decode(&bytes), Some(state));
        assert_eq!(DetectorState::decode(&bytes[..bytes.len() - 1]), None);
        for place in [0, 1] {
            let kept = std::mem::replace(&mut bytes[place], 99);
            assert_eq!(DetectorState::decode(&bytes), None);
            bytes[place] = kept;
        }
    }
    assert_eq!(DetectorState::decode(&[]), None);
}

/// Their next step would overflow.
#[test]
fn counts_that_no_detector_reaches_are_refused() {
    let bytes = encoded(&DetectorState::new(DetectorKind::Adaptive).unwrap());
    // The last calibrator's readings in a block, before the habituation.
    for (end, most) in [(bytes.len() - 8, u32::MAX), (bytes.len() - 8, u32::MAX - 1)] {
        let mut bytes = bytes.clone();
        bytes[end - 4..end].copy_from_slice(&most.to_le_bytes());
        assert_eq!(DetectorState::decode(&bytes).is_none(), most == u32::MAX);
    }
}

fn kinds() -> impl Strategy<Value = DetectorKind> {
    proptest::sample::select(&STATEFUL[..])
}

/// Any finite numbers, and ordinary ones.
fn values() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        -10.0..10.0,
        Just(0.0),
        Just(f64::MAX),
        Just(-f64::MAX),
        Just(5e-324),
    ]
}

/// Steps of time, some of them back.
fn steps() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..20 * MICROS_PER_MINUTE, 1 => -MICROS_PER_HOUR..0, 1 => 0..100 * MICROS_PER_HOUR]
}

fn assert_lawful(verdict: Verdict) -> Result<(), TestCaseError> {
    prop_assert!((0.0..=MAXIMUM_SCORE).contains(&verdict.score), "{verdict:?}");
    prop_assert_eq!(verdict.is_anomaly, verdict.score > ANOMALY_LIMIT);
    prop_assert!(verdict.is_anomaly || !verdict.is_onset);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_finite_readings_make_nan_and_the_byte_form_brings_the_state_back(
        kind in kinds(),
        readings in vec((steps(), values()), 0..400),
        more in vec((steps(), values()), 1..100),
    ) {
        let mut state = DetectorState::new(kind).unwrap();
        let mut at = 0;
        for (step, value) in readings {
            at += step;
            assert_lawful(state.observe(Timestamp(at), value))?;
        }
        let mut decoded = DetectorState::decode(&encoded(&state));
        prop_assert_eq!(decoded.as_ref(), Some(&state));
        for (step, value) in more {
            at += step;
            let expected = state.observe(Timestamp(at), value);
            prop_assert_eq!(decoded.as_mut().map(|state| state.observe(Timestamp(at), value)), Some(expected));
        }
        prop_assert_eq!(decoded, Some(state));
    }

    #[test]
    fn damaged_states_are_refused_or_lawful(
        kind in kinds(),
        readings in vec(values(), 0..100),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..30),
        more in vec((any::<i64>(), values()), 1..60),
    ) {
        let mut state = DetectorState::new(kind).unwrap();
        for (number, value) in readings.into_iter().enumerate() {
            state.observe(every_five_minutes(number as i64), value);
        }
        let mut bytes = encoded(&state);
        for (index, byte) in damage {
            // Version and kind stay.
            let place = 2 + index.index(bytes.len() - 2);
            bytes[place] = byte;
        }
        if let Some(mut state) = DetectorState::decode(&bytes) {
            for (number, (at, value)) in more.into_iter().enumerate() {
                assert_lawful(state.score_late(Timestamp(at), value))?;
                let next = state.newest().0.saturating_add(number as i64);
                assert_lawful(state.observe(Timestamp(next), value))?;
            }
            prop_assert!(DetectorState::decode(&encoded(&state)).is_some());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..4_000), kind in 0..6_u8) {
        let mut bytes = bytes;
        bytes.splice(0..bytes.len().min(2), [1, kind]);
        if let Some(state) = DetectorState::decode(&bytes) {
            assert_lawful(state.score_late(Timestamp(0), 1.0))?;
        }
    }
}
