//! Units that may have been meant.

use super::prefix::PREFIXES;
use super::table::TABLE;

/// At most so many are suggested.
const MAXIMUM: usize = 3;

/// Names close to `unit`, of the table and of `defined` units, closest first: those that differ only in upper
/// and lower case, then those with a typing error.
pub(super) fn near<'a>(unit: &str, defined: impl Iterator<Item = &'a str>) -> Vec<String> {
    let allowed = if unit.chars().count() <= 4 { 1 } else { 2 };
    let names =
        TABLE.iter().flat_map(|definition| definition.names()).map(|name| -> &'a str { name }).chain(defined);
    let mut ranked: Vec<(usize, String)> = names
        .filter_map(|name| {
            let distance = if name.eq_ignore_ascii_case(unit) { 0 } else { edit_distance(name, unit) };
            (distance <= allowed).then(|| (distance, name.to_owned()))
        })
        .chain(other_cases_with_prefix(unit).map(|name| (0, name)))
        // A single letter is one typing error away from every other.
        .filter(|(distance, name)| *distance == 0 || name.chars().count() > 1 && unit.chars().count() > 1)
        .collect();
    ranked.sort();
    ranked.truncate(MAXIMUM);
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// Prefixed symbols that differ from `unit` only in upper and lower case, such as kPa from KPA.
fn other_cases_with_prefix(unit: &str) -> impl Iterator<Item = String> {
    PREFIXES.iter().flat_map(move |prefix| {
        let rest = unit
            .get(..prefix.symbol.len())
            .filter(|start| start.eq_ignore_ascii_case(prefix.symbol))
            .and_then(|start| unit.get(start.len()..));
        let definitions = TABLE.iter().filter(|definition| prefix.is_among(definition.prefixes));
        definitions
            .flat_map(|definition| definition.symbols())
            .filter(move |symbol| rest.is_some_and(|rest| rest.eq_ignore_ascii_case(symbol)))
            .map(|symbol| format!("{}{symbol}", prefix.symbol))
    })
}

/// Levenshtein's distance, in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let substitution = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, distance) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("metre", "meter", 2), ("µ", "u", 1)]
        {
            assert_eq!(edit_distance(left, right), distance);
            assert_eq!(edit_distance(right, left), distance);
        }
    }

    #[test]
    fn suggestions() {
        for (unit, expected) in [
            ("KPA", vec!["kPa"]),
            ("Kwh", vec!["kWh"]),
            ("celcius", vec!["celsius", "Celsius"]),
            ("PSI", vec!["psi"]),
            ("x", vec![]),
            ("flurbs", vec![]),
        ] {
            let near = near(unit, std::iter::empty());
            assert!(expected.iter().all(|name| near.contains(&(*name).to_owned())), "{unit}: {near:?}");
            assert!(!expected.is_empty() || near.is_empty(), "{unit}: {near:?}");
        }
        assert_eq!(near("tank2x", ["tank2"].into_iter()), ["tank2"]);
    }
}
