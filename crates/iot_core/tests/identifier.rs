//! Keys of readings: order, layout and time.

use iot_core::ingest::DataIdGenerator;
use proptest::prelude::*;

/// Clocks of this century, mostly moving by little or not at all.
fn clock() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![4 => Just(0), 4 => 0..500_i64, 1 => -5_000_000..5_000_000_i64];
    (1_700_000_000_000_000..4_000_000_000_000_000_i64, proptest::collection::vec(step, 1..100)).prop_map(
        |(start, steps)| {
            steps
                .into_iter()
                .scan(start, |now, step| {
                    *now += step;
                    Some(*now)
                })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn keys_increase_whatever_the_clock_does(clock in clock(), random in any::<[u8; 8]>()) {
        let mut generator = DataIdGenerator::default();
        let mut latest = i64::MIN;
        let mut previous = [0; 16];
        for now in clock {
            let id = generator.next(now, random);
            prop_assert!(id > previous);
            prop_assert_eq!((id[6] >> 4, id[8] >> 6), (0b0111, 0b10));
            latest = latest.max(now);
            let millisecond = i64::from_be_bytes([0, 0, id[0], id[1], id[2], id[3], id[4], id[5]]);
            // A hundred steps of 244 ns at most ahead of the latest time seen.
            prop_assert!((0..=1).contains(&(millisecond - latest / 1000)));
            previous = id;
        }
    }

    #[test]
    fn a_fresh_generator_shows_the_time(now in 0..(1_i64 << 48) * 1000, random in any::<[u8; 8]>()) {
        let id = u128::from_be_bytes(DataIdGenerator::default().next(now, random));
        let micros = (id >> 80) * 1000 + (id >> 64 & 0xFFF) * 1000 / 4096;
        // The fraction is rounded down, and so is the way back.
        prop_assert!(micros.abs_diff(u128::from(now.unsigned_abs())) <= 1);
        prop_assert_eq!(id & ((1 << 62) - 1), u128::from(u64::from_be_bytes(random) >> 2));
    }

    #[test]
    fn no_input_panics(moments in proptest::collection::vec(any::<i64>(), 0..10)) {
        let mut generator = DataIdGenerator::default();
        for now in moments {
            generator.next(now, [0; 8]);
        }
    }
}
