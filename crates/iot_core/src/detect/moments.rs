//! Mean and variance of a stream of numbers in one pass.

use super::WindowStatistics;

/// Running moments of a set of finite numbers; two sets can be merged.
///
/// Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products" (1962); the merge is
/// from Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances"
/// (1979). The mean never overflows; `m2` does so to infinity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// How many numbers.
    pub count: u64,
    /// Their arithmetic mean.
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub m2: f64,
    /// The smallest number; infinity when there is none.
    pub minimum: f64,
    /// The largest number; negative infinity when there is none.
    pub maximum: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, m2: 0.0, minimum: f64::INFINITY, maximum: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Adds one number.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let count = self.count as f64;
        let before = value - self.mean;
        // Divided before subtracting, because the difference of two huge numbers can overflow.
        self.mean += value / count - self.mean / count;
        self.m2 += before * (value - self.mean);
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
    }

    /// The moments of both sets together.
    pub fn merge(self, other: Self) -> Self {
        let (large, small) = if self.count >= other.count { (self, other) } else { (other, self) };
        if small.count == 0 {
            return large;
        }
        let count = large.count + small.count;
        // At most one half, so that the correction of the mean cannot overflow.
        let weight = small.count as f64 / count as f64;
        let between = small.mean - large.mean;
        Self {
            count,
            mean: large.mean + (small.mean * weight - large.mean * weight),
            m2: large.m2 + small.m2 + between * between * weight * large.count as f64,
            minimum: large.minimum.min(small.minimum),
            maximum: large.maximum.max(small.maximum),
        }
    }

    /// The statistics of these numbers.
    pub fn statistics(&self) -> WindowStatistics {
        if self.count == 0 {
            return WindowStatistics::default();
        }
        let stddev_samp = if self.count < 2 { 0.0 } else { (self.m2 / (self.count - 1) as f64).sqrt() };
        WindowStatistics {
            count: self.count,
            mean: self.mean,
            stddev_samp,
            minimum: self.minimum,
            maximum: self.maximum,
        }
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.push(value));
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_one_and_two_numbers() {
        assert_eq!(Moments::default().statistics(), WindowStatistics::default());
        let one: Moments = [4.0].into_iter().collect();
        let only = WindowStatistics { count: 1, mean: 4.0, stddev_samp: 0.0, minimum: 4.0, maximum: 4.0 };
        assert_eq!(one.statistics(), only);
        let two: Moments = [4.0, 6.0].into_iter().collect();
        let expected =
            WindowStatistics { count: 2, mean: 5.0, stddev_samp: 2.0_f64.sqrt(), minimum: 4.0, maximum: 6.0 };
        assert_eq!(two.statistics(), expected);
    }

    #[test]
    fn constant_numbers_deviate_by_exactly_zero() {
        let left: Moments = [0.1; 1000].into_iter().collect();
        let right: Moments = [0.1; 333].into_iter().collect();
        let merged = left.merge(right).statistics();
        assert_eq!((merged.count, merged.mean, merged.stddev_samp), (1333, 0.1, 0.0));
    }

    #[test]
    fn merging_with_nothing_changes_nothing() {
        let some: Moments = [1.0, 2.0, 4.0].into_iter().collect();
        assert_eq!(some.merge(Moments::default()), some);
        assert_eq!(Moments::default().merge(some), some);
        assert_eq!(Moments::default().merge(Moments::default()), Moments::default());
    }

    #[test]
    fn the_mean_of_huge_numbers_does_not_overflow() {
        let left: Moments = [f64::MAX, -f64::MAX, f64::MAX].into_iter().collect();
        let right: Moments = [-f64::MAX].into_iter().collect();
        for moments in [left, right, left.merge(right), right.merge(left)] {
            assert!(moments.mean.is_finite() && !moments.m2.is_nan(), "{moments:?}");
        }
        assert_eq!(left.m2, f64::INFINITY);
    }
}
