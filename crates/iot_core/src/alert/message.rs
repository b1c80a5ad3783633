//! Messages of alerts: templates with placeholders.

use std::fmt::{self, Write};

use crate::number::Shortest;
use crate::time::Timestamp;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    RuleName,
    SensorName,
    SensorType,
    DeviceName,
    Value,
    Unit,
    Threshold,
    Severity,
    Time,
}

const FIELDS: [(&str, Field); 9] = [
    ("rule_name", Field::RuleName),
    ("sensor_name", Field::SensorName),
    ("sensor_type", Field::SensorType),
    ("device_name", Field::DeviceName),
    ("value", Field::Value),
    ("unit", Field::Unit),
    ("threshold", Field::Threshold),
    ("severity", Field::Severity),
    ("time", Field::Time),
];

/// What the placeholders of a message stand for.
#[derive(Clone, Copy, Debug)]
pub struct MessageFields<'a> {
    /// `{rule_name}`
    pub rule_name: &'a str,
    /// `{sensor_name}`
    pub sensor_name: &'a str,
    /// `{sensor_type}`
    pub sensor_type: &'a str,
    /// `{device_name}`
    pub device_name: &'a str,
    /// `{value}`: shortest digits that read back as the same number.
    pub value: f64,
    /// `{unit}`
    pub unit: &'a str,
    /// `{threshold}`: as the value; `-` when there is none.
    pub threshold: Option<f64>,
    /// `{severity}`
    pub severity: &'a str,
    /// `{time}`: in UTC.
    pub time: Timestamp,
}

/// A message with placeholders such as `{value}`; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

impl MessageTemplate {
    /// Checks a template and takes it apart.
    ///
    /// # Errors
    /// For an unknown placeholder, and for a single brace that does not enclose one.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(brace);
            text.push_str(before);
            let position = template.len() - from_brace.len();
            if let Some(after) = from_brace.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else {
                let (field, after) = placeholder(from_brace).map_err(|problem| TemplateError {
                    position: template[..position].chars().count() + 1,
                    problem,
                })?;
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Field(field));
                rest = after;
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { parts })
    }

    /// The message for one alert.
    pub fn render(&self, fields: &MessageFields<'_>) -> String {
        let mut message = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => message.push_str(text),
                Part::Field(field) => fields.render(*field, &mut message),
            }
        }
        message
    }
}

/// The placeholder at the start of `text`, which is a single brace, and what follows it.
fn placeholder(text: &str) -> Result<(Field, &str), TemplateProblem> {
    let inside = text.strip_prefix('{').ok_or(TemplateProblem::Unopened)?;
    let (name, after) = inside.split_once('}').ok_or(TemplateProblem::Unclosed)?;
    match FIELDS.iter().find(|(known, _)| *known == name) {
        Some((_, field)) => Ok((*field, after)),
        None => Err(TemplateProblem::Unknown { name: name.to_owned() }),
    }
}

impl MessageFields<'_> {
    fn render(&self, field: Field, message: &mut String) {
        match field {
            Field::RuleName => message.push_str(self.rule_name),
            Field::SensorName => message.push_str(self.sensor_name),
            Field::SensorType => message.push_str(self.sensor_type),
            Field::DeviceName => message.push_str(self.device_name),
            Field::Value => push_number(message, self.value),
            Field::Unit => message.push_str(self.unit),
            Field::Threshold => match self.threshold {
                Some(threshold) => push_number(message, threshold),
                None => message.push('-'),
            },
            Field::Severity => message.push_str(self.severity),
            Field::Time => message.push_str(&self.time.to_utc_literal()),
        }
    }
}

fn push_number(message: &mut String, number: f64) {
    // Writing to a string does not fail.
    let _ = write!(message, "{}", Shortest(number));
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Where, in characters from 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: TemplateProblem,
}

/// What is wrong at the position of a [`TemplateError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateProblem {
    /// There is no such placeholder.
    Unknown {
        /// Its name.
        name: String,
    },
    /// A `{` without its `}`.
    Unclosed,
    /// A `}` without its `{`.
    Unopened,
}

impl TemplateError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self.problem {
            TemplateProblem::Unknown { .. } => {
                let known = FIELDS.map(|(name, _)| format!("{{{name}}}")).join(", ");
                format!("Known placeholders are {known}; write {{{{ and }}}} for braces.")
            }
            TemplateProblem::Unclosed => "Close the placeholder with }, or write {{ for a brace.".to_owned(),
            TemplateProblem::Unopened => "Write }} for a brace.".to_owned(),
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            TemplateProblem::Unknown { name } => write!(formatter, "unknown placeholder \"{{{name}}}\"")?,
            TemplateProblem::Unclosed => formatter.write_str("unclosed placeholder")?,
            TemplateProblem::Unopened => formatter.write_str("single \"}\"")?,
        }
        write!(formatter, " at character {} of the message template", self.position)
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: MessageFields<'_> = MessageFields {
        rule_name: "Too warm",
        sensor_name: "S1",
        sensor_type: "temperature",
        device_name: "D1",
        value: 30.5,
        unit: "°C",
        threshold: Some(30.0),
        severity: "critical",
        time: Timestamp(0),
    };

    fn render(template: &str) -> String {
        MessageTemplate::parse(template).unwrap().render(&READING)
    }

    fn refusal(template: &str) -> TemplateError {
        MessageTemplate::parse(template).unwrap_err()
    }

    #[test]
    fn all_placeholders() {
        assert_eq!(
            render(
                "{severity}: {rule_name}: {sensor_name} ({sensor_type}) of {device_name} reads {value} {unit}, \
                 limit {threshold}, at {time}"
            ),
            "critical: Too warm: S1 (temperature) of D1 reads 30.5 °C, limit 30, at 2000-01-01 00:00:00+00"
        );
    }

    #[test]
    fn text_and_braces() {
        for (template, message) in [
            ("", ""),
            ("plain", "plain"),
            ("{value}{unit}", "30.5°C"),
            ("{{value}}", "{value}"),
            ("{{{value}}}", "{30.5}"),
            ("°{{", "°{"),
        ] {
            assert_eq!(render(template), message, "{template}");
        }
    }

    #[test]
    fn numbers_stay_readable() {
        let template = MessageTemplate::parse("{value} {threshold}").unwrap();
        let fields = MessageFields { value: 1e300, threshold: None, ..READING };
        assert_eq!(template.render(&fields), "1e300 -");
    }

    #[test]
    fn what_a_field_contains_is_not_a_template() {
        let template = MessageTemplate::parse("{rule_name}").unwrap();
        assert_eq!(template.render(&MessageFields { rule_name: "{value}", ..READING }), "{value}");
    }

    #[test]
    fn malformed_templates() {
        for (template, message) in [
            ("é{valu}", "unknown placeholder \"{valu}\" at character 2 of the message template"),
            ("{}", "unknown placeholder \"{}\" at character 1 of the message template"),
            ("{ value }", "unknown placeholder \"{ value }\" at character 1 of the message template"),
            ("a {value", "unclosed placeholder at character 3 of the message template"),
            ("{", "unclosed placeholder at character 1 of the message template"),
            ("value}", "single \"}\" at character 6 of the message template"),
        ] {
            let error = refusal(template);
            assert_eq!(error.to_string(), message);
            assert!(error.hint().ends_with('.'));
        }
        assert_eq!(
            refusal("{x}").hint(),
            "Known placeholders are {rule_name}, {sensor_name}, {sensor_type}, {device_name}, {value}, {unit}, \
             {threshold}, {severity}, {time}; write {{ and }} for braces."
        );
    }
}
