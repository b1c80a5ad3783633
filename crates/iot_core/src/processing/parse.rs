//! From JSON to a rule.

use serde_json::{Map, Value};

use super::expression::{Expression, is_identifier, is_reserved};
use super::processing_error::{ExpectedDefinition, ProcessingError};
use super::rule::{FIRST_INPUT, Input, NamedInput, Operation, Per, ProcessingRule, Reference, VALUE, Window};
use super::state::MAXIMUM_ENTRIES;
use crate::json::{excerpt, finite_number};

/// The types of rules.
pub(super) const RULE_TYPES: [&str; 5] = ["scale", "clamp", "moving_average", "difference", "expression"];

/// Longest name of an input or output, and longest unit, in characters.
pub const MAXIMUM_NAME_LENGTH: usize = 255;

/// Keys that every type of rule has.
const COMMON_KEYS: [&str; 3] = ["input", "output", "unit"];
const REFERENCE_KEYS: [&str; 4] = ["sensor_name", "sensor_type", "output", "max_age_seconds"];

/// The range of lengths of time, in seconds: a millisecond to 366 days.
const SECONDS: std::ops::RangeInclusive<f64> = 0.001..=31_622_400.0;

type Parsed<T> = Result<T, ProcessingError>;

impl ProcessingRule {
    /// Reads a definition. Null counts as absent; numbers may also be JSON strings. Keys of every type:
    ///
    /// - `input`: `"value"` (the default), `"raw"`, or the output of another rule.
    /// - `output`: name of the result, by default that of the rule. `unit`: its unit.
    ///
    /// Keys of each type:
    ///
    /// - `scale`: `factor` (1) and `offset` (0), at least one.
    /// - `clamp`: `minimum` and `maximum`, at least one.
    /// - `moving_average`: either `readings` (1 to 1000) or `seconds` (0.001 to 366 days).
    /// - `difference`: `per`, one of `"none"` (the default), `"second"`, `"minute"`, `"hour"`.
    /// - `expression`: `expression`, see [`Expression`], and `inputs`, an object of references by name:
    ///   `{"sensor_name": …}`, `{"sensor_type": …}`, or `{"output": …}`, the last with an optional
    ///   `sensor_name`; each with an optional `max_age_seconds`. The names `value` and `raw` mean the reading
    ///   itself.
    ///
    /// # Errors
    /// For anything else, naming the key and the value.
    pub fn parse(rule_type: &str, definition: &Value) -> Parsed<Self> {
        let keys: &'static [&'static str] = match rule_type {
            "scale" => &["factor", "offset"],
            "clamp" => &["minimum", "maximum"],
            "moving_average" => &["readings", "seconds"],
            "difference" => &["per"],
            "expression" => &["expression", "inputs"],
            _ => return Err(ProcessingError::UnknownType { found: rule_type.to_owned() }),
        };
        let Value::Object(object) = definition else {
            return Err(ProcessingError::NotAnObject { found: excerpt(definition) });
        };
        let definition = Definition { object, path: "" };
        definition.refuse_unknown_keys(keys.iter().chain(&COMMON_KEYS).copied().collect())?;
        let output = definition.name("output")?;
        if let Some(name) = output.filter(|name| is_reading(name)) {
            return Err(ProcessingError::Reserved { key: "output".to_owned(), name: name.to_owned() });
        }
        let input = match definition.name("input")? {
            None | Some("value") => Input::Value,
            Some("raw") => Input::Raw,
            Some(output) => Input::Output(output.to_owned()),
        };
        let unit = definition.name("unit")?;
        let operation = match rule_type {
            "scale" => definition.scale(keys)?,
            "clamp" => definition.clamp(keys)?,
            "moving_average" => definition.moving_average(keys)?,
            "difference" => Operation::Difference { per: definition.per()? },
            // "expression", the one type that is left.
            _ => definition.expression()?,
        };
        if let (Operation::Expression { expression, .. }, Input::Raw | Input::Output(_)) =
            (&operation, &input)
            && !expression.uses(VALUE)
        {
            return Err(ProcessingError::UnusedInput { name: "value".to_owned() });
        }
        Ok(Self { output: output.map(str::to_owned), unit: unit.map(str::to_owned), input, operation })
    }
}

/// Whether a name means the reading itself and therefore not an output.
pub(super) fn is_reading(name: &str) -> bool {
    matches!(name, "value" | "raw")
}

/// An object of the definition, and where it stands.
#[derive(Clone, Copy)]
struct Definition<'a> {
    object: &'a Map<String, Value>,
    /// The path to the object with a dot at its end; empty for the definition itself.
    path: &'a str,
}

impl<'a> Definition<'a> {
    /// The value of `key`, unless it is missing or null.
    fn get(self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn path_to(self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn malformed(self, key: &str, expected: ExpectedDefinition, found: &Value) -> ProcessingError {
        ProcessingError::Malformed { key: self.path_to(key), expected, found: excerpt(found) }
    }

    fn missing(self, keys: &'static [&'static str]) -> ProcessingError {
        ProcessingError::MissingKey { within: self.path.trim_end_matches('.').to_owned(), keys }
    }

    fn conflict(self, first: &str, second: &str) -> ProcessingError {
        ProcessingError::Conflict { first: self.path_to(first), second: self.path_to(second) }
    }

    fn refuse_unknown_keys(self, known: Vec<&'static str>) -> Parsed<()> {
        match self.object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ProcessingError::UnknownKey { key: self.path_to(key), known }),
            None => Ok(()),
        }
    }

    /// What `read` makes of the value of `key`, if there is one.
    fn optional<T>(
        self,
        key: &str,
        expected: ExpectedDefinition,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Parsed<Option<T>> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.malformed(key, expected, value))).transpose()
    }

    fn number(self, key: &str) -> Parsed<Option<f64>> {
        self.optional(key, ExpectedDefinition::Number, finite_number)
    }

    fn name(self, key: &str) -> Parsed<Option<&'a str>> {
        self.optional(key, ExpectedDefinition::Name, |value| {
            value.as_str().filter(|name| is_fit_for_a_name(name))
        })
    }

    /// A length of time, in microseconds.
    fn micros(self, key: &str) -> Parsed<Option<i64>> {
        self.optional(key, ExpectedDefinition::Seconds, |value| {
            let seconds = finite_number(value).filter(|seconds| SECONDS.contains(seconds))?;
            // Within the range, the product is far below 2^53.
            Some((seconds * 1e6).round() as i64)
        })
    }

    fn scale(self, keys: &'static [&'static str]) -> Parsed<Operation> {
        let (factor, offset) = (self.number("factor")?, self.number("offset")?);
        if factor.is_none() && offset.is_none() {
            return Err(self.missing(keys));
        }
        Ok(Operation::Scale { factor: factor.unwrap_or(1.0), offset: offset.unwrap_or(0.0) })
    }

    fn clamp(self, keys: &'static [&'static str]) -> Parsed<Operation> {
        match (self.number("minimum")?, self.number("maximum")?) {
            (None, None) => Err(self.missing(keys)),
            (Some(minimum), Some(maximum)) if minimum > maximum => {
                Err(ProcessingError::Reversed { minimum, maximum })
            }
            (minimum, maximum) => Ok(Operation::Clamp { minimum, maximum }),
        }
    }

    fn moving_average(self, keys: &'static [&'static str]) -> Parsed<Operation> {
        let readings = self.optional("readings", ExpectedDefinition::Readings, |value| {
            let number = finite_number(value)?;
            let fits = number.fract() == 0.0 && (1.0..=MAXIMUM_ENTRIES as f64).contains(&number);
            fits.then_some(number as usize)
        })?;
        match (readings, self.micros("seconds")?) {
            (None, None) => Err(self.missing(keys)),
            (Some(_), Some(_)) => Err(self.conflict("readings", "seconds")),
            (Some(readings), None) => Ok(Operation::MovingAverage(Window::Readings(readings))),
            (None, Some(micros)) => Ok(Operation::MovingAverage(Window::Micros(micros))),
        }
    }

    fn per(self) -> Parsed<Per> {
        let per = self.optional("per", ExpectedDefinition::Per, |value| {
            Some(match value.as_str()? {
                "none" => Per::None,
                "second" => Per::Second,
                "minute" => Per::Minute,
                "hour" => Per::Hour,
                _ => return None,
            })
        })?;
        Ok(per.unwrap_or(Per::None))
    }

    fn expression(self) -> Parsed<Operation> {
        let text = self
            .optional("expression", ExpectedDefinition::Expression, Value::as_str)?
            .ok_or_else(|| self.missing(&["expression"]))?;
        let inputs = match self.optional("inputs", ExpectedDefinition::Inputs, Value::as_object)? {
            Some(inputs) => Definition { object: inputs, path: "inputs." }.inputs()?,
            None => Vec::new(),
        };
        let mut names = vec!["value", "raw"];
        names.extend(inputs.iter().map(|input| input.name.as_str()));
        let expression =
            Expression::compile(text, &names).map_err(|error| ProcessingError::Expression { error })?;
        let unused = (FIRST_INPUT..names.len()).find(|index| !expression.uses(*index));
        match unused {
            Some(index) => Err(ProcessingError::UnusedInput { name: names[index].to_owned() }),
            None => Ok(Operation::Expression { expression, inputs }),
        }
    }

    fn inputs(self) -> Parsed<Vec<NamedInput>> {
        self.object.iter().map(|(name, value)| self.input(name, value)).collect()
    }

    fn input(self, name: &str, value: &Value) -> Parsed<NamedInput> {
        if !is_identifier(name) || !is_fit_for_a_name(name) {
            return Err(self.malformed(name, ExpectedDefinition::InputName, &Value::from(name)));
        }
        if is_reading(name) || is_reserved(name) {
            return Err(ProcessingError::Reserved { key: self.path_to(name), name: name.to_owned() });
        }
        let object =
            value.as_object().ok_or_else(|| self.malformed(name, ExpectedDefinition::Reference, value))?;
        let path = format!("{}{name}.", self.path);
        let reference = Definition { object, path: &path };
        reference.refuse_unknown_keys(REFERENCE_KEYS.to_vec())?;
        Ok(NamedInput {
            name: name.to_owned(),
            reference: reference.reference()?,
            maximum_age: reference.micros("max_age_seconds")?,
        })
    }

    fn reference(self) -> Parsed<Reference> {
        let owned = |key| self.name(key).map(|name| name.map(str::to_owned));
        match (owned("output")?, owned("sensor_name")?, owned("sensor_type")?) {
            (None, None, None) => Err(self.missing(&["sensor_name", "sensor_type", "output"])),
            (_, Some(_), Some(_)) => Err(self.conflict("sensor_name", "sensor_type")),
            (Some(_), _, Some(_)) => Err(self.conflict("output", "sensor_type")),
            (Some(output), _, _) if is_reading(&output) => {
                Err(ProcessingError::Reserved { key: self.path_to("output"), name: output })
            }
            (Some(output), sensor_name, None) => Ok(Reference::Output { output, sensor_name }),
            (None, Some(name), None) => Ok(Reference::SensorName(name)),
            (None, None, Some(name)) => Ok(Reference::SensorType(name)),
        }
    }
}

fn is_fit_for_a_name(name: &str) -> bool {
    (1..=MAXIMUM_NAME_LENGTH).contains(&name.chars().count())
}
