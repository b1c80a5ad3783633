//! The state of one sensor's detector.

use super::adaptive::{Adaptive, AdaptiveConstants};
use super::bytes::{Reader, Writer};
use super::episode::{Episode, Refractory};
use super::ewma::Ewma;
use super::robust::Robust;
use super::seasonal::Seasonal;
use super::{DetectorKind, MAGNITUDE, Verdict};
use crate::time::Timestamp;

/// Version of the byte form.
const VERSION: u8 = 1;
/// Readings before a detector is useful.
pub(super) const LEARNING: u32 = 30;

const fn larger(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// What a detector knows of one sensor: fixed in size, whatever has been observed.
///
/// Of the kinds, `Zscore` is not here: its window is a [`super::ZscoreWindow`].
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorState {
    model: Model,
    episode: Episode,
    /// Time of the newest reading.
    newest: Timestamp,
    /// Readings observed.
    readings: u32,
}

/// The memory of each kind.
#[derive(Clone, Debug, PartialEq)]
// The largest is used most, and a box would put the state on the heap.
#[allow(clippy::large_enum_variant)]
enum Model {
    Robust(Robust),
    Ewma(Ewma),
    Seasonal(Seasonal),
    Adaptive(Adaptive),
}

impl DetectorState {
    /// Bytes before those of the model: version, kind, newest time, count, episode.
    const HEADER_LEN: usize = 2 + 8 + 4 + Episode::ENCODED_LEN;

    /// A detector that has seen nothing; `None` for [`DetectorKind::Zscore`], which keeps a window instead.
    pub fn new(kind: DetectorKind) -> Option<Self> {
        let model = match kind {
            DetectorKind::Zscore => return None,
            DetectorKind::Robust => Model::Robust(Robust::default()),
            DetectorKind::Ewma => Model::Ewma(Ewma::default()),
            DetectorKind::Seasonal => Model::Seasonal(Seasonal::default()),
            DetectorKind::Adaptive => Model::Adaptive(Adaptive::default()),
        };
        let newest = Timestamp::NEGATIVE_INFINITY;
        Some(Self { model, episode: Episode::default(), newest, readings: 0 })
    }

    /// One that begins with stored `readings`, given in order of arrival: it learns from each that was news when it came.
    ///
    /// Where most came before their time, as history does that was loaded backwards, their arrival says nothing, and they
    /// count in order of time.
    pub fn warmed_up(kind: DetectorKind, mut readings: Vec<(Timestamp, f64)>) -> Option<Self> {
        let mut newest = None;
        let is_news = |&(at, _): &(Timestamp, f64)| {
            let is_news = newest.is_none_or(|newest| at > newest);
            newest = newest.max(Some(at));
            is_news
        };
        let news: Vec<(Timestamp, f64)> = readings.iter().copied().filter(is_news).collect();
        if news.len() * 2 >= readings.len() {
            readings = news;
        } else {
            readings.sort_by_key(|&(at, _)| at);
        }
        let mut state = Self::new(kind)?;
        for (at, value) in readings {
            state.observe(at, value);
        }
        Some(state)
    }

    /// Its kind.
    pub fn kind(&self) -> DetectorKind {
        match self.model {
            Model::Robust(_) => DetectorKind::Robust,
            Model::Ewma(_) => DetectorKind::Ewma,
            Model::Seasonal(_) => DetectorKind::Seasonal,
            Model::Adaptive(_) => DetectorKind::Adaptive,
        }
    }

    /// Scores the next reading, then takes note of it. A reading older than the newest is only scored, as by
    /// [`Self::score_late`]. The value must be finite.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> Verdict {
        self.observe_with(&AdaptiveConstants::DEFAULT, at, value)
    }

    /// As [`Self::observe`], with other constants of the adaptive detector: for tuning it.
    pub fn observe_with(&mut self, constants: &AdaptiveConstants, at: Timestamp, value: f64) -> Verdict {
        if at < self.newest {
            return self.score_with(constants, at, value);
        }
        let value = bounded(value);
        let score = match &mut self.model {
            Model::Robust(robust) => {
                let evaluation = robust.evaluate(value);
                robust.update(value, evaluation.map(|(_, distance)| distance));
                evaluation.map(|(score, _)| score)
            }
            Model::Ewma(ewma) => {
                let evaluation = ewma.evaluate(value);
                ewma.update(value, evaluation.map(|(_, distance)| distance));
                evaluation.map(|(score, _)| score)
            }
            Model::Seasonal(seasonal) => {
                let evaluation = seasonal.evaluate(at, value);
                seasonal.update(at, value, evaluation.map(|(_, distance)| distance));
                evaluation.map(|(score, _)| score)
            }
            Model::Adaptive(adaptive) => {
                let evaluation = adaptive.evaluate(constants, at, value);
                adaptive.update(constants, at, value, &evaluation);
                Some(evaluation.score)
            }
        };
        let mut verdict = self.verdict(score);
        self.newest = at;
        self.readings = self.readings.saturating_add(1);
        let refractory = match self.model {
            Model::Adaptive(_) => constants.refractory(),
            _ => Refractory::DEFAULT,
        };
        verdict.is_onset = self.episode.observe_within(&refractory, at, verdict.is_anomaly);
        if let (true, Model::Adaptive(adaptive)) = (verdict.is_onset, &mut self.model) {
            adaptive.start_episode();
        }
        verdict
    }

    /// Scores a reading that came late against the present state, and changes nothing. Never an onset.
    pub fn score_late(&self, at: Timestamp, value: f64) -> Verdict {
        self.score_with(&AdaptiveConstants::DEFAULT, at, value)
    }

    fn score_with(&self, constants: &AdaptiveConstants, at: Timestamp, value: f64) -> Verdict {
        let value = bounded(value);
        self.verdict(match &self.model {
            Model::Robust(robust) => robust.evaluate(value).map(|(score, _)| score),
            Model::Ewma(ewma) => ewma.evaluate(value).map(|(score, _)| score),
            Model::Seasonal(seasonal) => seasonal.evaluate(at, value).map(|(score, _)| score),
            Model::Adaptive(adaptive) => Some(adaptive.evaluate(constants, at, value).score),
        })
    }

    fn verdict(&self, score: Option<f64>) -> Verdict {
        if self.readings < LEARNING { Verdict::LEARNING } else { Verdict::of_score(score.unwrap_or(0.0)) }
    }

    /// Time of the newest reading; `-infinity` before the first.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Bytes of the byte form of this kind; 0 for [`DetectorKind::Zscore`].
    pub const fn encoded_len(kind: DetectorKind) -> usize {
        Self::HEADER_LEN
            + match kind {
                DetectorKind::Zscore => return 0,
                DetectorKind::Robust => Robust::ENCODED_LEN,
                DetectorKind::Ewma => Ewma::ENCODED_LEN,
                DetectorKind::Seasonal => Seasonal::ENCODED_LEN,
                DetectorKind::Adaptive => Adaptive::ENCODED_LEN,
            }
    }

    /// Bytes of the largest byte form.
    pub const LARGEST_ENCODED_LEN: usize = larger(
        larger(Self::encoded_len(DetectorKind::Robust), Self::encoded_len(DetectorKind::Ewma)),
        larger(Self::encoded_len(DetectorKind::Seasonal), Self::encoded_len(DetectorKind::Adaptive)),
    );

    /// Writes the byte form into the first [`Self::encoded_len`] bytes; false when there are fewer.
    pub fn encode(&self, bytes: &mut [u8]) -> bool {
        let mut writer = Writer::new(bytes);
        writer.u8(VERSION);
        writer.u8(match self.model {
            Model::Robust(_) => 1,
            Model::Ewma(_) => 2,
            Model::Seasonal(_) => 3,
            Model::Adaptive(_) => 4,
        });
        writer.timestamp(self.newest);
        writer.u32(self.readings);
        self.episode.write(&mut writer);
        match &self.model {
            Model::Robust(robust) => robust.write(&mut writer),
            Model::Ewma(ewma) => ewma.write(&mut writer),
            Model::Seasonal(seasonal) => seasonal.write(&mut writer),
            Model::Adaptive(adaptive) => adaptive.write(&mut writer),
        }
        writer.is_complete()
    }

    /// Reads the byte form back; bytes after it are ignored. `None` for another version, and for what no detector
    /// can have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let kind = reader.u8()?;
        let newest = reader.timestamp()?;
        let readings = reader.u32()?;
        let episode = Episode::read(&mut reader)?;
        let model = match kind {
            1 => Model::Robust(Robust::read(&mut reader)?),
            2 => Model::Ewma(Ewma::read(&mut reader)?),
            3 => Model::Seasonal(Seasonal::read(&mut reader)?),
            4 => Model::Adaptive(Adaptive::read(&mut reader)?),
            _ => return None,
        };
        Some(Self { model, episode, newest, readings })
    }
}

/// A value whose square is finite.
fn bounded(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-MAGNITUDE, MAGNITUDE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [DetectorKind; 4] =
        [DetectorKind::Robust, DetectorKind::Ewma, DetectorKind::Seasonal, DetectorKind::Adaptive];

    fn series(count: i64) -> Vec<(Timestamp, f64)> {
        (0..count).map(|step| (Timestamp(step * 60_000_000), (step * 7_919 % 1_000) as f64)).collect()
    }

    fn after(kind: DetectorKind, readings: &[(Timestamp, f64)]) -> DetectorState {
        let mut state = DetectorState::new(kind).unwrap();
        readings.iter().for_each(|&(at, value)| {
            state.observe(at, value);
        });
        state
    }

    #[test]
    fn the_largest_byte_form_holds_each() {
        let lengths = DetectorKind::ALL.map(DetectorState::encoded_len);
        assert_eq!(lengths.into_iter().max(), Some(DetectorState::LARGEST_ENCODED_LEN));
    }

    #[test]
    fn a_warm_up_in_order_of_arrival_is_the_state_that_came_of_it() {
        for kind in KINDS {
            let in_order = series(300);
            let mut arrived = in_order.clone();
            // Late ones and repeated times, which were scored and not learned from.
            for number in [50, 120, 121, 299] {
                arrived.insert(number + 1, (Timestamp(arrived[number].0.0 - 30_000_000), 1e6));
                arrived.insert(number + 2, (arrived[number].0, -1e6));
            }
            assert_eq!(DetectorState::warmed_up(kind, arrived), Some(after(kind, &in_order)));
            assert_eq!(DetectorState::warmed_up(kind, Vec::new()), DetectorState::new(kind));
        }
        assert_eq!(DetectorState::warmed_up(DetectorKind::Zscore, series(3)), None);
    }

    #[test]
    fn history_that_was_loaded_backwards_is_learned_forwards() {
        for kind in KINDS {
            let in_order = series(300);
            let backwards = in_order.iter().rev().copied().collect();
            assert_eq!(DetectorState::warmed_up(kind, backwards), Some(after(kind, &in_order)));
        }
    }
}
