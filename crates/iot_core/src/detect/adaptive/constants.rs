//! What can be tuned in the adaptive detector.

use super::level::RING;
use crate::detect::episode::Refractory;
use crate::time::MICROS_PER_HOUR;

/// Declares the constants once: field, default, documentation; and finds them by name.
macro_rules! constants {
    ($($(#[$documentation:meta])* $name:ident = $default:expr;)*) => {
        /// The constants of the adaptive detector, the same for every sensor.
        ///
        /// Memories are numbers of readings: a memory of n is an exponential weight of 1/n.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct AdaptiveConstants {
            $($(#[$documentation])* pub $name: f64,)*
        }

        impl AdaptiveConstants {
            /// The values in use.
            pub const DEFAULT: Self = Self { $($name: $default,)* };

            /// Names of all constants.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// The constant of this name.
            pub fn get_mut(&mut self, name: &str) -> Option<&mut f64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

constants! {
    /// Memory of an hour of the day, in readings of that hour.
    slot_memory = 10.0;
    /// Memory of the variance of all residuals.
    residual_memory = 1000.0;
    /// Share of the hour's own variance in the variance expected of a residual; the rest is that of all hours.
    slot_variance_share = 0.5;
    /// Readings in the short moving mean.
    short_window = 10.0;
    /// Readings in the long moving mean.
    long_window = 48.0;
    /// Readings over which the roughness is taken.
    roughness_window = 10.0;
    /// Memory of the mean and variance of the moving means and of the roughness.
    level_memory = 2000.0;
    /// Half-life of a distance in the histogram of readings.
    row_half_life = 4000.0;
    /// Readings of which only the greatest distance enters the histogram of blocks, so that a burst counts once.
    block_length = 70.0;
    /// Upper share of the readings' distances whose probabilities follow a power law.
    row_tail = 0.02;
    /// The same of the blocks' distances.
    block_tail = 0.1;
    /// At least so many distances make a tail.
    tail_minimum = 8.0;
    /// Largest exponent of the power law.
    tail_exponent = 8.0;
    /// Surprise of one expert, in decimal digits, that is not unusual and does not add up.
    usual_surprise = 1.0;
    /// Sum of surprises, in decimal digits, that is an anomaly.
    limit = 4.3;
    /// How much each recent episode raises the limit, as a share of it.
    habituation = 0.1;
    /// Memory of the number of recent episodes.
    habituation_memory = 500.0;
    /// Readings after an onset that cannot start another episode.
    refractory_readings = 40.0;
    /// Readings that cannot while `refractory_hours` have not passed.
    refractory_readings_maximum = 200.0;
    /// See `refractory_readings_maximum`.
    refractory_hours = 12.0;
}

impl AdaptiveConstants {
    /// Lengths of the moving means and of the roughness, within the ring of readings.
    pub(super) fn windows(&self) -> [usize; 3] {
        [self.short_window, self.long_window, self.roughness_window]
            .map(|window| (window.round() as usize).clamp(1, RING))
    }

    pub(in crate::detect) fn refractory(&self) -> Refractory {
        Refractory {
            readings: self.refractory_readings.round() as u32,
            readings_maximum: self.refractory_readings_maximum.round() as u32,
            time: (self.refractory_hours * MICROS_PER_HOUR as f64) as i64,
        }
    }
}
