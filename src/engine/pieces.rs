//! Under the policy `last` a reading may replace one that came earlier in the same batch. Then the batch is done in pieces, as
//! if they had been batches of their own: what replaces finds what it replaces stored, scored and processed.

use std::collections::HashMap;

use iot_core::time::Timestamp;

use super::batch::{self, Outcome};
use super::directory::{KeyMap, Lent};
use super::offered::Offered;
use crate::catalog::partition_policy::Duplicates;
use crate::error::IotResult;

/// Takes `offered` through the pipeline, in pieces where that is needed.
///
/// # Errors
/// As [`batch::run`].
pub fn run(offered: &[Offered<'_>]) -> IotResult<Outcome> {
    let mut lent = Lent::new()?;
    if lent.intake()?.duplicates != Duplicates::Last || is_in_order(offered) {
        return batch::run_whole(offered, lent);
    }
    lent.give_back();
    let mut joined = Outcome::default();
    let mut from = 0;
    for to in ends(offered) {
        let piece = batch::run_whole(&offered[from..to], Lent::new()?)?;
        let number_of = |number: u32| number + from as u32;
        joined.judged.extend(piece.judged);
        joined.rejections.extend(piece.rejections.into_iter().map(|(number, why)| (number_of(number), why)));
        for alert in piece.alerts {
            if !joined.alerts.contains(&alert) {
                joined.alerts.push(alert);
            }
        }
        from = to;
    }
    Ok(joined)
}

/// Whether the readings of each sensor come in order of time, as they mostly do: then no time is there twice.
fn is_in_order(offered: &[Offered<'_>]) -> bool {
    let mut newest: KeyMap<Timestamp> = KeyMap::default();
    offered.iter().all(|reading| {
        let Some(at) = reading.measured_at else { return true };
        newest.insert(reading.sensor_id, at).is_none_or(|before| before < at)
    })
}

/// Where pieces end: before a reading that has sensor and time of one in the same piece, and before one of a sensor of which the
/// piece has replaced a reading, as it is scored by what is stored then.
fn ends(offered: &[Offered<'_>]) -> Vec<usize> {
    let mut piece_of: HashMap<([u8; 16], Timestamp), usize> = HashMap::with_capacity(offered.len());
    let mut replaced_in: KeyMap<usize> = KeyMap::default();
    let mut ends = Vec::new();
    for (number, reading) in offered.iter().enumerate() {
        let Some(at) = reading.measured_at else { continue };
        let sensor = reading.sensor_id;
        let replaces = piece_of.get(&(sensor, at)).copied();
        if replaces == Some(ends.len()) || replaced_in.get(&sensor) == Some(&ends.len()) {
            ends.push(number);
        }
        piece_of.insert((sensor, at), ends.len());
        if replaces.is_some() {
            replaced_in.insert(sensor, ends.len());
        }
    }
    ends.push(offered.len());
    ends
}
