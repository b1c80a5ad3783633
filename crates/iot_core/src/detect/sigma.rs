//! Probabilities as standard deviations of a normal distribution.

use super::MAXIMUM_SCORE;
use statrs::function::erf::erfc_inv;

/// The distance, in standard deviations, that a normal variable exceeds on either side with this probability;
/// capped at [`MAXIMUM_SCORE`].
pub(super) fn sigma_equivalent(probability: f64) -> f64 {
    // P(|Z| > s) = erfc(s / √2).
    let sigmas = std::f64::consts::SQRT_2 * erfc_inv(probability.clamp(1e-9, 1.0));
    sigmas.clamp(0.0, MAXIMUM_SCORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_quantiles() {
        for (probability, expected) in [
            (2.0, 0.0),
            (1.0, 0.0),
            (0.317_310_507_862_914, 1.0),
            (0.002_699_796_063_260_19, 3.0),
            (5.733_031_437_583_87e-7, 5.0),
            (1e-12, 5.0),
            (0.0, 5.0),
            (-1.0, 5.0),
        ] {
            let found = sigma_equivalent(probability);
            assert!((found - expected).abs() < 1e-6, "{probability}: {found}");
        }
    }
}
