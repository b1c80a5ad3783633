//! Numbers as text for people.

use std::fmt;

/// Displays the shortest digits that read back as the same number, with an exponent where plain digits would
/// be a long run of zeros: from 1e15 on, and below 1e-5.
pub(crate) struct Shortest(pub f64);

impl fmt::Display for Shortest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude == 0.0 {
            formatter.write_str("0")
        } else if magnitude.is_finite() && !(1e-5..1e15).contains(&magnitude) {
            write!(formatter, "{:e}", self.0)
        } else {
            write!(formatter, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_digits_without_runs_of_zeros() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (25.0, "25"),
            (-42.5, "-42.5"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e15, "1e15"),
            (-1.5e300, "-1.5e300"),
            (0.000_01, "0.00001"),
            (0.000_009, "9e-6"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(Shortest(number).to_string(), text);
        }
    }
}
