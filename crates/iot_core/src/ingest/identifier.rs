//! Keys of readings: UUID version 7, so that new rows go to the right end of the index.

/// Fractions of a millisecond in `rand_a`, as in PostgreSQL 18's `uuidv7()`: 2¹² of about 244 ns.
const TICKS_PER_MILLISECOND: u64 = 1 << 12;

/// Ticks that the 48 bits of milliseconds and 12 bits of fraction can count, to the year 10889.
const LAST_TICK: u64 = (1 << 60) - 1;

/// The version, in the upper half of a UUID.
const VERSION_7: u64 = 0x7 << 12;

/// The variant of RFC 9562, in the lower half.
const VARIANT: u64 = 0b10 << 62;

/// Makes UUIDs of version 7 (RFC 9562, section 6.2 method 3): 48 bits of Unix milliseconds, 12 bits of
/// fraction, 62 random bits. Each is greater than the one before, even if the clock stands still or goes back.
#[derive(Clone, Debug, Default)]
pub struct DataIdGenerator {
    next_tick: u64,
}

impl DataIdGenerator {
    /// The UUID for the moment `unix_micros` (microseconds since 1970-01-01 UTC), in network byte order.
    ///
    /// Two bits of `random` are lost to the UUID's variant.
    pub fn next(&mut self, unix_micros: i64, random: [u8; 8]) -> [u8; 16] {
        let tick = tick_at(unix_micros).max(self.next_tick).min(LAST_TICK);
        self.next_tick = tick + 1;

        let (millisecond, fraction) = (tick / TICKS_PER_MILLISECOND, tick % TICKS_PER_MILLISECOND);
        let high = (millisecond << 16) | VERSION_7 | fraction;
        let low = VARIANT | (u64::from_be_bytes(random) >> 2);
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }
}

fn tick_at(unix_micros: i64) -> u64 {
    let micros = u64::try_from(unix_micros).unwrap_or(0);
    let fraction = micros % 1_000 * TICKS_PER_MILLISECOND / 1_000;
    (micros / 1_000).saturating_mul(TICKS_PER_MILLISECOND).saturating_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-19 07:00:00.123456 UTC.
    const MOMENT: i64 = 1_795_071_600_123_456;

    fn millisecond(id: [u8; 16]) -> u128 {
        u128::from_be_bytes(id) >> 80
    }

    fn fraction(id: [u8; 16]) -> u128 {
        u128::from_be_bytes(id) >> 64 & 0xFFF
    }

    #[test]
    fn layout_of_version_7() {
        let id = DataIdGenerator::default().next(MOMENT, [0xFF; 8]);
        assert_eq!(millisecond(id), 1_795_071_600_123);
        assert_eq!(fraction(id), 456 * 4096 / 1000);
        assert_eq!(id[6] >> 4, 7);
        assert_eq!(id[8..], [0xBF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        let zeros = DataIdGenerator::default().next(MOMENT, [0; 8]);
        assert_eq!(zeros[8..], [0x80, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back() {
        let mut generator = DataIdGenerator::default();
        let first = generator.next(MOMENT, [0xFF; 8]);
        let second = generator.next(MOMENT, [0; 8]);
        let third = generator.next(MOMENT - 3_600_000_000, [0; 8]);
        assert!(first < second && second < third);
        assert_eq!(fraction(third), fraction(first) + 2);
        assert_eq!(millisecond(generator.next(MOMENT + 1_000, [0; 8])), millisecond(first) + 1);
    }

    #[test]
    fn the_fraction_carries_into_the_millisecond() {
        let mut generator = DataIdGenerator::default();
        let first = generator.next(MOMENT, [0; 8]);
        let last = (0..4096).map(|_| generator.next(MOMENT, [0; 8])).last().unwrap();
        assert_eq!((millisecond(last), fraction(last)), (millisecond(first) + 1, fraction(first)));
    }

    #[test]
    fn times_that_do_not_fit() {
        assert_eq!(millisecond(DataIdGenerator::default().next(-1, [0; 8])), 0);
        let mut generator = DataIdGenerator::default();
        for _ in 0..3 {
            assert_eq!(millisecond(generator.next(i64::MAX, [0; 8])), (1 << 48) - 1);
        }
    }
}
