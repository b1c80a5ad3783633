//! The state of a sensor's detector as a transaction sees it, and what becomes of it at the end.

use std::rc::Rc;

use iot_core::detect::{DetectorKind, DetectorState, Verdict};
use iot_core::time::Timestamp;
use pgrx::PgSqlErrorCode;

use super::memory::{Basis, Found};
use crate::error::{IotError, IotResult};
use crate::pg::shared::sensors::{self, BuiltDetector, DetectorCopy, DetectorOutcome, Encoded, Handle};
use crate::pg::shared::slabs::Room;

/// Where the state of a detector is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// Nobody asked yet.
    #[default]
    Unasked,
    /// The sensor has no detector with a state.
    Nowhere,
    /// In the table: each call reads it, and writes it.
    Table,
    /// In shared memory, once the transaction commits.
    Shared,
}

/// The state of a detector with this transaction's own readings.
#[derive(Clone)]
pub struct Learned {
    state: Rc<DetectorState>,
    /// It is not the one that was found.
    changed: bool,
    /// It has seen every reading that the sensor's state has.
    complete: bool,
}

impl Learned {
    /// Scores the sensor's next reading, and learns from it.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> Verdict {
        self.changed = true;
        // Copied here where a savepoint holds on to what it was.
        Rc::make_mut(&mut self.state).observe(at, value)
    }

    /// Scores a reading that is no news.
    pub fn score_late(&self, at: Timestamp, value: f64) -> Verdict {
        self.state.score_late(at, value)
    }
}

/// A sensor's detector, as far as this transaction is concerned.
#[derive(Clone, Default)]
pub struct Detector {
    keeping: Keeping,
    learned: Option<Learned>,
}

/// How a transaction came to the state of the sensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the one that it had, or touched first.
    Same,
    /// Others changed it.
    Changed,
    /// It has to be built.
    Missing,
}

impl Detector {
    /// Where it is kept.
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// Its state, to be scored with.
    pub fn learned(&mut self) -> Option<&mut Learned> {
        self.learned.as_mut()
    }

    /// Begins to work on a sensor with a detector of `kind`. `copy` is the state of shared memory, if that is another than
    /// this transaction goes on from. What is returned has to be found, and given to [`Self::provide`].
    pub fn enter(
        &mut self,
        kind: Option<DetectorKind>,
        handle: Option<&mut Handle>,
        room: Room,
        copy: &mut DetectorCopy,
        arrival: Arrival,
    ) -> Option<Basis> {
        let Some(kind) = kind else {
            *self = Self { keeping: Keeping::Nowhere, learned: None };
            return None;
        };
        let mut handle = handle;
        if self.learned.is_none()
            && copy.is_empty()
            && let Some(handle) = handle.as_deref_mut()
        {
            sensors::copy_detector(handle, copy);
        }
        let is_other = |state: &DetectorState| state.kind() != kind;
        let theirs = copy.decode();
        let is_mine_other = self.learned.as_ref().is_some_and(|mine| is_other(&mine.state));
        let begins_anew = copy.was_unwanted || is_mine_other || theirs.as_ref().is_some_and(is_other);
        let unknown = || Some(if begins_anew { Basis::Stored } else { Basis::Written });
        if !handle.is_some_and(|handle| sensors::attach_slab(handle, room)) {
            *self = Self { keeping: Keeping::Table, learned: None };
            return unknown();
        }
        self.keeping = Keeping::Shared;
        let mine = self.learned.take().filter(|mine| !is_other(&mine.state));
        let theirs = theirs.filter(|state| !is_other(state) && state.newest().is_finite());
        self.learned = match (mine, theirs) {
            (Some(mine), Some(theirs)) if mine.changed && mine.state.newest() > theirs.newest() => {
                sensors::count_overruled();
                Some(Learned { complete: false, ..mine })
            }
            (mine, Some(theirs)) => {
                if mine.is_some_and(|mine| mine.changed) {
                    sensors::count_overruled();
                }
                Some(Learned { state: Rc::new(theirs), changed: false, complete: copy.is_current })
            }
            (Some(mine), None) => {
                let complete = mine.complete && (arrival == Arrival::Same || copy.is_current);
                Some(Learned { complete, ..mine })
            }
            (None, None) => None,
        };
        match &self.learned {
            Some(learned) if learned.complete && arrival != Arrival::Missing => None,
            Some(learned) if learned.state.newest().is_finite() => {
                Some(Basis::Known(Rc::clone(&learned.state)))
            }
            _ => unknown(),
        }
    }

    /// Gives it the state that was found.
    pub fn provide(&mut self, found: Found) {
        let changed = found.is_new || self.learned.as_ref().is_some_and(|learned| learned.changed);
        self.learned = Some(Learned { state: found.state, changed, complete: true });
    }

    /// Has `install` give the state to everybody, together with the sensor's, before this transaction adds to it; says
    /// whether it did.
    pub fn install(&mut self, install: impl FnOnce(BuiltDetector<'_>) -> bool) -> bool {
        let learned = self.learned.as_mut().filter(|_| self.keeping == Keeping::Shared);
        let Some(learned) = learned else { return install(BuiltDetector::None) };
        if !learned.changed {
            return install(BuiltDetector::Unchanged);
        }
        let Some(encoded) = Encoded::of(&learned.state) else { return install(BuiltDetector::None) };
        let installed = install(BuiltDetector::Built(&encoded));
        learned.changed = !installed;
        installed
    }

    /// The byte form for the table, where it is kept there and has changed.
    pub fn for_table(&self) -> Option<Vec<u8>> {
        let learned = self.learned.as_ref().filter(|_| self.keeping == Keeping::Table)?;
        let mut bytes = vec![0; DetectorState::encoded_len(learned.state.kind())];
        (learned.changed && learned.state.encode(&mut bytes)).then_some(bytes)
    }

    /// The byte form for shared memory, to be made before the commit: afterwards nothing may fail.
    ///
    /// # Errors
    /// 53200.
    pub fn for_commit(&self) -> IotResult<Option<Encoded>> {
        let changed = self.learned.as_ref().filter(|learned| learned.changed);
        let Some(learned) = changed.filter(|_| self.keeping == Keeping::Shared) else { return Ok(None) };
        Encoded::of(&learned.state).map(Some).ok_or_else(|| {
            IotError::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "no memory for the state of a detector")
                .hint("Store the readings of fewer sensors in one transaction.")
        })
    }

    /// What the commit of this transaction means for shared memory.
    pub fn outcome<'a>(&self, encoded: Option<&'a Encoded>) -> DetectorOutcome<'a> {
        match self.keeping {
            Keeping::Unasked => DetectorOutcome::Unchanged,
            Keeping::Nowhere => DetectorOutcome::Unwanted,
            Keeping::Table => DetectorOutcome::InTable,
            Keeping::Shared => encoded.map_or(DetectorOutcome::Unchanged, DetectorOutcome::Learned),
        }
    }
}
