//! How surprising a distance is, by the distances seen before.

use super::bytes::{Reader, Writer};

/// Bins of a histogram.
const BINS: usize = 96;
/// Bins of one doubling.
const BINS_PER_OCTAVE: f64 = 4.0;
/// Binary logarithm of the lower edge of the first bin.
const LOWEST: f64 = -10.0;
/// Binary logarithm just below the upper edge of the last bin.
const HIGHEST: f64 = 13.999;
/// Counts are halved beyond this many, so that adding 1 never gets lost in single precision.
const MAXIMUM_TOTAL: f32 = 1_048_576.0;

/// A distance on the scale of the histograms: its binary logarithm, within their range.
pub(super) fn log_distance(distance: f64) -> f64 {
    let logarithm = distance.log2();
    if logarithm.is_nan() { HIGHEST } else { logarithm.clamp(LOWEST, HIGHEST) }
}

/// Which part of the distances counts as their tail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tail {
    /// Upper share of the distances.
    pub(super) share: f64,
    /// At least so many of them.
    pub(super) minimum: f64,
    /// Largest exponent of the power law: how thin a tail is believed to be.
    pub(super) maximum_exponent: f64,
}

/// Counts of distances on a logarithmic scale: 4 bins per doubling, from 2⁻¹⁰ to 2¹⁴.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    bins: [f32; BINS],
    total: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: [0.0; BINS], total: 0.0 }
    }
}

impl Histogram {
    pub(super) const ENCODED_LEN: usize = 4 * (BINS + 1);

    fn bin(logarithm: f64) -> usize {
        // The cast saturates, and the range of logarithms is that of the bins.
        (((logarithm - LOWEST) * BINS_PER_OCTAVE) as usize).min(BINS - 1)
    }

    fn lower_edge(bin: usize) -> f64 {
        LOWEST + bin as f64 / BINS_PER_OCTAVE
    }

    /// Counts a distance after all counts have been multiplied by `decay`.
    pub(super) fn add(&mut self, logarithm: f64, decay: f32) {
        let decay = if self.total < MAXIMUM_TOTAL { decay } else { 0.5 };
        if decay != 1.0 {
            self.bins.iter_mut().for_each(|count| *count *= decay);
            self.total *= decay;
        }
        self.bins[Self::bin(logarithm)] += 1.0;
        self.total += 1.0;
    }

    /// Negative decimal logarithm of the probability that a distance is at least this large.
    ///
    /// In the body that is the share of the distances seen. Above the start of the tail a power law takes over,
    /// whose exponent is that of Hill, "A Simple General Approach to Inference About the Tail of a Distribution"
    /// (1975), pulled towards 4 and bounded, because few distances lie there.
    pub(super) fn surprise(&self, logarithm: f64, tail: &Tail) -> f64 {
        let total = f64::from(self.total);
        let wanted = (tail.share * total).max(tail.minimum).min(total / 2.0);
        let own = Self::bin(logarithm);
        let (mut above, mut weighted) = (0.0, 0.0);
        for (bin, count) in self.bins.iter().enumerate().rev() {
            let count = f64::from(*count);
            if above + count >= wanted && total > 0.0 {
                // The tail starts in this bin.
                if own < bin {
                    break;
                }
                let (above, start) = (above + count, Self::lower_edge(bin));
                weighted += count * bin as f64;
                let octaves = (weighted / above - bin as f64 + 0.5) / BINS_PER_OCTAVE;
                let logarithms = above * octaves * std::f64::consts::LN_2;
                let exponent = ((above + 2.0) / (logarithms + 0.5)).clamp(1.0, tail.maximum_exponent);
                let beyond = (logarithm - start) * std::f64::consts::LOG10_2;
                return (exponent * beyond - ((above + 1.0) / (total + 1.0)).log10()).max(0.0);
            }
            above += count;
            weighted += count * bin as f64;
        }
        self.body_surprise(logarithm, own)
    }

    fn body_surprise(&self, logarithm: f64, own: usize) -> f64 {
        let above: f64 = self.bins[own + 1..].iter().map(|count| f64::from(*count)).sum();
        let within = (logarithm - Self::lower_edge(own)) * BINS_PER_OCTAVE;
        let share = f64::from(self.bins[own]) * (1.0 - within);
        let probability = (above + share + 0.5) / (f64::from(self.total) + 1.0);
        (-probability.log10()).max(0.0)
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.bins.iter().for_each(|count| writer.f32(*count));
        writer.f32(self.total);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut histogram = Self::default();
        for count in &mut histogram.bins {
            *count = reader.weight(2.0 * MAXIMUM_TOTAL)?;
        }
        histogram.total = reader.weight(2.0 * MAXIMUM_TOTAL)?;
        Some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: Tail = Tail { share: 0.02, minimum: 5.0, maximum_exponent: 8.0 };

    /// One distance in the middle of each of the lowest `bins` bins, `each` times.
    fn uniform(bins: usize, each: u32) -> Histogram {
        let mut histogram = Histogram::default();
        for bin in 0..bins {
            (0..each).for_each(|_| histogram.add(Histogram::lower_edge(bin) + 0.125, 1.0));
        }
        histogram
    }

    #[test]
    fn nothing_seen_surprises_little() {
        let surprise = Histogram::default().surprise(HIGHEST, &TAIL);
        assert!((surprise - 0.5_f64.log10().abs()).abs() < 1e-12, "{surprise}");
    }

    #[test]
    fn the_body_is_the_share_of_larger_distances() {
        let histogram = uniform(50, 10);
        // 25 bins of 10 lie above the lower edge of bin 25.
        let surprise = histogram.surprise(Histogram::lower_edge(25), &TAIL);
        assert!((10_f64.powf(-surprise) - 250.5 / 501.0).abs() < 1e-12, "{surprise}");
    }

    #[test]
    fn farther_is_never_less_surprising() {
        for histogram in [uniform(1, 3), uniform(50, 10), uniform(96, 100), Histogram::default()] {
            let steps = (0..2_400).map(|step| LOWEST + f64::from(step) / 100.0);
            let surprises: Vec<f64> = steps.map(|logarithm| histogram.surprise(logarithm, &TAIL)).collect();
            // At the start of the tail the power law may lie below the body by what is added for safety.
            assert!(surprises.windows(2).all(|pair| pair[0] <= pair[1] + 0.1), "{surprises:?}");
            assert!(surprises.iter().all(|surprise| *surprise >= 0.0 && surprise.is_finite()));
        }
    }

    #[test]
    fn the_tail_goes_beyond_what_was_seen() {
        let histogram = uniform(50, 10);
        let [near, far] = [3.0, 13.0].map(|logarithm| histogram.surprise(logarithm, &TAIL));
        assert!(near > 2.0 && far > near + 8.0, "{near} {far}");
    }

    #[test]
    fn counts_stay_where_adding_one_matters() {
        let mut histogram = Histogram { total: MAXIMUM_TOTAL, ..Histogram::default() };
        histogram.bins[3] = MAXIMUM_TOTAL;
        histogram.add(0.0, 1.0);
        assert_eq!((histogram.total, histogram.bins[3]), (MAXIMUM_TOTAL / 2.0 + 1.0, MAXIMUM_TOTAL / 2.0));
    }

    #[test]
    fn logarithms_of_any_distance_are_in_range() {
        for distance in [0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN] {
            assert!((LOWEST..=HIGHEST).contains(&log_distance(distance)), "{distance}");
        }
        assert_eq!(Histogram::bin(LOWEST), 0);
        assert_eq!(Histogram::bin(HIGHEST), BINS - 1);
    }
}
