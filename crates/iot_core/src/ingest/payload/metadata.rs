//! The metadata of a reading, and the keys that go there because nothing else takes them.

use std::fmt::Write;

use super::field::Field;
use super::{OfferedReading, PayloadError};
use crate::jsonb::{Object, ObjectIter, Value};

/// Key for metadata that is not an object, when it must share one with other keys.
const METADATA_KEY: &str = "metadata";

/// The metadata of a reading with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// There is none.
    Empty,
    /// Binary `jsonb`: what follows the length word of the datum.
    Image(&'a [u8]),
    /// JSON text, for metadata that had to be put together or is a lone scalar.
    Text(String),
}

impl<'a> OfferedReading<'a> {
    /// The pairs that have no meaning of their own, and `device_name`, `device_type`, `location` and `status`
    /// where they are not null: what belongs to the metadata besides what stands there.
    pub fn extra(&self) -> Extra<'a> {
        Extra { pairs: if self.extra_count == 0 { None } else { Some(self.object.iter()) } }
    }

    /// The number of pairs that [`Self::extra`] gives, without looking for them.
    pub fn extra_count(&self) -> usize {
        self.extra_count
    }

    /// The object that this was read from, to keep it if it is refused later.
    pub fn object(&self) -> Object<'a> {
        self.object
    }

    /// The metadata together with [`Self::extra`]. Nothing is allocated if there is only one of the two and it is
    /// an object or array under `metadata`. Metadata that is not an object is put under the key `metadata` beside
    /// the others.
    pub fn merged_metadata(&self) -> Metadata<'a> {
        match self.metadata {
            None if self.extra_count == 0 => Metadata::Empty,
            Some(Value::Object(object)) if self.extra_count == 0 => Metadata::Image(object.image()),
            Some(Value::Array(array)) if self.extra_count == 0 => Metadata::Image(array.image()),
            Some(other) if self.extra_count == 0 => Metadata::Text(other.to_text()),
            None => Metadata::Text(object_text(self.extra())),
            Some(Value::Object(object)) => Metadata::Text(object_text(object.iter().chain(self.extra()))),
            Some(other) => {
                Metadata::Text(object_text(std::iter::once((METADATA_KEY, other)).chain(self.extra())))
            }
        }
    }

    /// # Errors
    /// When metadata and an extra key disagree: one of the two would be lost.
    pub(super) fn check_metadata(&self) -> Result<(), PayloadError> {
        let Some(Value::Object(metadata)) = self.metadata else { return Ok(()) };
        for (key, value) in self.extra() {
            if metadata.get(key).is_some_and(|said| said != value) {
                return Err(PayloadError::Contradiction {
                    first: key.to_owned(),
                    second: format!("{METADATA_KEY}.{key}"),
                });
            }
        }
        Ok(())
    }
}

/// The extra pairs of a reading, sorted by the length of their keys, then by their bytes.
#[derive(Clone, Debug)]
pub struct Extra<'a> {
    pairs: Option<ObjectIter<'a>>,
}

impl<'a> Iterator for Extra<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<(&'a str, Value<'a>)> {
        self.pairs.as_mut()?.find(|(key, value)| match Field::of(key.as_bytes()) {
            Some(field) => field.is_kept() && !value.is_null(),
            None => true,
        })
    }
}

/// The JSON text of an object. Of equal keys both are written, whose values then are equal.
fn object_text<'a>(pairs: impl Iterator<Item = (&'a str, Value<'a>)>) -> String {
    let mut text = String::from("{");
    for (key, value) in pairs {
        let separator = if text.len() > 1 { ", " } else { "" };
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{}: {value}", Value::String(key));
    }
    text.push('}');
    text
}
