//! What is remembered of a sensor between readings.

use crate::detect::{WindowDelta, ZscoreWindow};
use crate::time::Timestamp;

/// State of one sensor after its readings so far. Fixed size and free of pointers, so that processes can share it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct SensorState {
    /// The last 24 hours; its high-water mark is the time of the newest reading.
    pub window: ZscoreWindow,
    /// Value of the newest reading.
    pub latest_value: f64,
    /// When the newest arrival reached the server, in microseconds since 2000; 0 for never.
    pub last_received: i64,
}

impl SensorState {
    /// Takes in a stored reading. `counted`: whether its value belongs into the window.
    pub fn observe(&mut self, at: Timestamp, value: f64, received_at: Timestamp, counted: bool) {
        if self.window.high_water().is_none_or(|newest| at > newest) {
            self.latest_value = value;
        }
        self.last_received = self.last_received.max(received_at.0);
        if counted { self.window.add(at, value) } else { self.window.advance(at) }
    }

    /// Takes in what another transaction did to an older version of this state.
    pub fn merge(&mut self, change: &SensorChange) {
        if let Some((at, value)) = change.newest
            && self.window.high_water().is_none_or(|newest| at > newest)
        {
            self.latest_value = value;
        }
        self.last_received = self.last_received.max(change.last_received);
        self.window.merge(&change.window);
    }
}

/// What one transaction adds to a [`SensorState`].
#[derive(Clone, Debug, Default)]
pub struct SensorChange {
    window: WindowDelta,
    newest: Option<(Timestamp, f64)>,
    last_received: i64,
}

impl SensorChange {
    /// As [`SensorState::observe`].
    pub fn observe(&mut self, at: Timestamp, value: f64, received_at: Timestamp, counted: bool) {
        if self.newest.is_none_or(|(newest, _)| at > newest) {
            self.newest = Some((at, value));
        }
        self.last_received = self.last_received.max(received_at.0);
        if counted { self.window.add(at, value) } else { self.window.advance(at) }
    }

    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.last_received == 0 && self.newest.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_value_is_that_of_the_newest_time() {
        let mut state = SensorState::default();
        state.observe(Timestamp(20), 2.0, Timestamp(100), true);
        state.observe(Timestamp(10), 1.0, Timestamp(101), true);
        assert_eq!((state.latest_value, state.last_received), (2.0, 101));
        let mut change = SensorChange::default();
        assert!(change.is_empty());
        change.observe(Timestamp(15), 1.5, Timestamp(90), true);
        assert!(!change.is_empty());
        state.merge(&change);
        assert_eq!((state.latest_value, state.last_received), (2.0, 101));
        change.observe(Timestamp(30), 3.0, Timestamp(120), false);
        state.merge(&change);
        assert_eq!((state.latest_value, state.last_received), (3.0, 120));
        assert_eq!(state.window.high_water(), Some(Timestamp(30)));
    }

    #[test]
    fn an_entry_leaves_room_for_the_detector_and_the_bookkeeping() {
        assert!(size_of::<SensorState>() <= 1100, "{}", size_of::<SensorState>());
    }
}
