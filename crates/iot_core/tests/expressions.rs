//! Expressions against an interpreter that walks a tree, knowing nothing of how they are compiled.

#![allow(clippy::unwrap_used)]

use iot_core::processing::{
    EvaluationError, Expression, ExpressionProblem, MAXIMUM_LENGTH, MAXIMUM_NESTING, MAXIMUM_NODES,
};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "long_name2"];

const SYMBOLS: [&str; 14] = ["+", "-", "*", "/", "%", "^", "=", "<>", "<", "<=", ">", ">=", "and", "or"];

#[derive(Clone, Debug)]
enum Tree {
    Number(f64),
    Input(usize),
    Prefix(&'static str, Box<Tree>),
    Infix(&'static str, Box<Tree>, Box<Tree>),
    Call(&'static str, Vec<Tree>),
}

/// With all parentheses, or with those only that the order of operators demands.
fn text(tree: &Tree, parentheses: bool, weakest: u8) -> String {
    let (power, text) = match tree {
        Tree::Number(number) => (9, format!("{number}")),
        Tree::Input(index) => (9, NAMES[*index].to_owned()),
        Tree::Prefix("not", operand) => (3, format!("not {}", self::text(operand, parentheses, 3))),
        Tree::Prefix(symbol, operand) => (7, format!("{symbol} {}", self::text(operand, parentheses, 8))),
        Tree::Infix(symbol, left, right) => {
            let power = power(symbol);
            let (left_power, right_power) = match *symbol {
                "^" => (9, 8),
                _ if power == 4 => (5, 5),
                _ => (power, power + 1),
            };
            let left = self::text(left, parentheses, left_power);
            (power, format!("{left} {symbol} {}", self::text(right, parentheses, right_power)))
        }
        Tree::Call(name, arguments) => {
            let arguments: Vec<_> =
                arguments.iter().map(|argument| self::text(argument, parentheses, 0)).collect();
            (9, format!("{name}({})", arguments.join(", ")))
        }
    };
    if parentheses && power < 9 || power < weakest { format!("({text})") } else { text }
}

fn power(symbol: &str) -> u8 {
    match symbol {
        "or" => 1,
        "and" => 2,
        "+" | "-" => 5,
        "*" | "/" | "%" => 6,
        "^" => 8,
        _ => 4,
    }
}

type Outcome = Result<Option<f64>, &'static str>;

fn finite(number: f64) -> Outcome {
    if number.is_finite() {
        Ok(Some(number))
    } else {
        Err(if number.is_nan() { "out of domain" } else { "not finite" })
    }
}

fn walk(tree: &Tree, inputs: &[Option<f64>]) -> Outcome {
    match tree {
        Tree::Number(number) => Ok(Some(*number)),
        Tree::Input(index) => Ok(inputs[*index]),
        Tree::Prefix(symbol, operand) => {
            let operand = walk(operand, inputs)?;
            Ok(operand.map(|number| if *symbol == "-" { -number } else { f64::from(number == 0.0) }))
        }
        Tree::Infix(symbol, left, right) => {
            let left = walk(left, inputs)?;
            match (*symbol, left) {
                ("and" | "or", None) => return Ok(None),
                ("and", Some(0.0)) => return Ok(Some(0.0)),
                ("or", Some(number)) if number != 0.0 => return Ok(Some(1.0)),
                _ => {}
            }
            let right = walk(right, inputs)?;
            let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
            match *symbol {
                "+" => finite(left + right),
                "-" => finite(left - right),
                "*" => finite(left * right),
                "/" | "%" if right == 0.0 => Err("division by zero"),
                "/" => finite(left / right),
                "%" => finite(left % right),
                "^" => finite(left.powf(right)),
                "and" | "or" => Ok(Some(f64::from(right != 0.0))),
                "=" => Ok(Some(f64::from(left == right))),
                "<>" => Ok(Some(f64::from(left != right))),
                "<" => Ok(Some(f64::from(left < right))),
                "<=" => Ok(Some(f64::from(left <= right))),
                ">" => Ok(Some(f64::from(left > right))),
                _ => Ok(Some(f64::from(left >= right))),
            }
        }
        Tree::Call("if", arguments) => match walk(&arguments[0], inputs)? {
            None => Ok(None),
            Some(condition) => walk(&arguments[if condition == 0.0 { 2 } else { 1 }], inputs),
        },
        Tree::Call("coalesce", arguments) => {
            for argument in arguments {
                if let Some(present) = walk(argument, inputs)? {
                    return Ok(Some(present));
                }
            }
            Ok(None)
        }
        Tree::Call(name, arguments) => {
            let values = arguments.iter().map(|argument| walk(argument, inputs));
            let values: Vec<Option<f64>> = values.collect::<Result<_, _>>()?;
            let Some(values) = values.into_iter().collect::<Option<Vec<f64>>>() else { return Ok(None) };
            match *name {
                "min" => Ok(values.into_iter().reduce(f64::min)),
                "max" => Ok(values.into_iter().reduce(f64::max)),
                "clamp" if values[1] > values[2] => Err("out of domain"),
                "clamp" => Ok(Some(values[0].clamp(values[1], values[2]))),
                "abs" => Ok(Some(values[0].abs())),
                "sqrt" => finite(values[0].sqrt()),
                "ln" if values[0] <= 0.0 => Err("out of domain"),
                "ln" => finite(values[0].ln()),
                "exp" => finite(values[0].exp()),
                "floor" => Ok(Some(values[0].floor())),
                _ => finite(values[0].hypot(values[1])),
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let number = prop_oneof![(0..8_u8).prop_map(|step| f64::from(step) / 2.0), Just(1e200)];
    let leaf = prop_oneof![number.prop_map(Tree::Number), (0..NAMES.len()).prop_map(Tree::Input)];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let call = |name: &'static str, count: std::ops::RangeInclusive<usize>| {
            proptest::collection::vec(inner.clone(), count)
                .prop_map(move |arguments| Tree::Call(name, arguments))
        };
        prop_oneof![
            6 => (proptest::sample::select(&SYMBOLS[..]), inner.clone(), inner.clone())
                .prop_map(|(symbol, left, right)| Tree::Infix(symbol, left.into(), right.into())),
            1 => inner.clone().prop_map(|operand| Tree::Prefix("-", operand.into())),
            1 => inner.clone().prop_map(|operand| Tree::Prefix("not", operand.into())),
            1 => call("if", 3..=3),
            1 => call("clamp", 3..=3),
            1 => call("coalesce", 1..=4),
            1 => call("min", 1..=4),
            1 => call("max", 1..=4),
            1 => call("hypot", 2..=2),
            1 => proptest::sample::select(&["abs", "sqrt", "ln", "exp", "floor"][..])
                .prop_flat_map(move |name| inner.clone().prop_map(move |one| Tree::Call(name, vec![one]))),
        ]
    })
}

fn inputs() -> impl Strategy<Value = Vec<Option<f64>>> {
    proptest::collection::vec(proptest::option::of((-6..=6_i8).prop_map(|step| f64::from(step) / 2.0)), 3)
}

fn outcome(expression: &Expression, inputs: &[Option<f64>]) -> Outcome {
    expression.evaluate(inputs).map_err(|error| match error {
        EvaluationError::DivisionByZero => "division by zero",
        EvaluationError::OutOfDomain { .. } => "out of domain",
        EvaluationError::NotFinite { .. } => "not finite",
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn compiled_equals_tree_walk(tree in tree(), inputs in inputs(), parentheses in any::<bool>()) {
        let text = text(&tree, parentheses, 0);
        let expression = match Expression::compile(&text, &NAMES) {
            Ok(expression) => expression,
            // Rare trees are deeper than allowed once written with all their parentheses.
            Err(error) => {
                prop_assert_eq!(error.problem, ExpressionProblem::TooDeep, "{}", text);
                return Ok(());
            }
        };
        prop_assert_eq!(outcome(&expression, &inputs), walk(&tree, &inputs), "{}", text);
    }

    #[test]
    fn any_text_compiles_or_is_refused(text in any::<String>(), inputs in inputs()) {
        check_total(&text, &inputs)?;
    }

    #[test]
    fn any_text_of_the_alphabet_compiles_or_is_refused(
        words in proptest::collection::vec(proptest::sample::select(&[
            "a", "b", "1", "2.5", ".5", "1e3", "+", "-", "*", "/", "%", "^", "(", ")", ",", "<", ">", "=", "<=", "<>",
            "and", "or", "not", "if(", "min(", "clamp(", "coalesce(", "round(", "pow(", "sqrt(", "pi", "true", " ", "é",
        ][..]), 0..60),
        inputs in inputs(),
    ) {
        check_total(&words.concat(), &inputs)?;
    }
}

fn check_total(text: &str, inputs: &[Option<f64>]) -> Result<(), TestCaseError> {
    match Expression::compile(text, &NAMES) {
        Ok(expression) => {
            if let Ok(Some(value)) = expression.evaluate(inputs) {
                prop_assert!(value.is_finite());
            }
            prop_assert!(
                expression.evaluate(&[]).is_ok_and(|value| value.is_none_or(f64::is_finite))
                    || expression.evaluate(&[]).is_err()
            );
        }
        Err(error) => {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.character));
            prop_assert!(error.hint().ends_with('.') && !error.to_string().is_empty());
        }
    }
    Ok(())
}

#[test]
fn limits() {
    let problem = |text: &str| Expression::compile(text, &NAMES).unwrap_err().problem;
    let nested =
        |open: &str, depth: usize, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("(", ")"), ("-", ""), ("abs(", ")"), ("1^", ""), ("clamp(1,2,", ")"), ("not ", "")]
    {
        assert!(Expression::compile(&nested(open, MAXIMUM_NESTING - 1, close), &NAMES).is_ok(), "{open}");
        assert_eq!(problem(&nested(open, MAXIMUM_NESTING, close)), ExpressionProblem::TooDeep, "{open}");
        assert_eq!(problem(&nested(open, 4000 / open.len() / 2, "")), ExpressionProblem::TooDeep, "{open}");
    }
    let deepest = Expression::compile(&nested("clamp(1,2,", MAXIMUM_NESTING - 1, ")"), &NAMES).unwrap();
    assert!(deepest.evaluate(&[]).is_err(), "a minimum of 2 above a maximum of 1");
    let deepest = Expression::compile(&nested("clamp(1,0,", MAXIMUM_NESTING - 1, ")"), &NAMES).unwrap();
    assert_eq!(deepest.evaluate(&[]), Ok(Some(1.0)), "{deepest:?}");
    assert!(Expression::compile(&format!("1{}", "+1".repeat(MAXIMUM_NODES / 2 - 1)), &NAMES).is_ok());
    assert_eq!(problem(&format!("1{}", "+1".repeat(MAXIMUM_NODES / 2))), ExpressionProblem::TooManyNodes);
    let long = " ".repeat(MAXIMUM_LENGTH);
    assert_eq!(problem(&format!("1{long}")), ExpressionProblem::TooLong { length: MAXIMUM_LENGTH + 1 });
}

#[test]
fn values() {
    for (text, value) in [
        ("1 + 2 * 3", 7.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 ^ -1 * 4", 2.0),
        ("-7 % 3", -1.0),
        ("10 - 4 - 3", 3.0),
        ("1 < 2 and not 3 = 4", 1.0),
        ("0 OR 0.5", 1.0),
        ("if(0, 1 / 0, 2)", 2.0),
        ("0 and 1 / 0", 0.0),
        ("coalesce(b, 3)", 3.0),
        ("coalesce(a, 1 / 0)", 2.0),
        ("round(2.5) + round(-2.5)", 0.0),
        ("round(1.2345, 2)", 1.23),
        ("round(1250, -2)", 1300.0),
        ("clamp(5, 0, 3)", 3.0),
        ("MAX(1, a, 0.5)", 2.0),
        ("atan2(0, -1) - pi", 0.0),
        ("hypot(3, 4)", 5.0),
        ("sign(-3) + sign(0) + trunc(-1.5)", -2.0),
        ("log10(1000) + ln(exp(1)) + ceil(0.2) + floor(0.8)", 5.0),
        (".5e1 + 1.", 6.0),
        ("a*-a", -4.0),
        ("0 * -1", 0.0),
    ] {
        let expression = Expression::compile(text, &NAMES).unwrap();
        assert_eq!(expression.evaluate(&[Some(2.0)]), Ok(Some(value)), "{text}");
    }
    let zero = Expression::compile("0 * -1", &[]).unwrap().evaluate(&[]).unwrap().unwrap();
    assert!(zero.is_sign_positive());
    for missing in ["b", "a + b", "if(b, 1, 2)", "b and 0", "min(a, b)", "coalesce(b, b)"] {
        assert_eq!(
            Expression::compile(missing, &NAMES).unwrap().evaluate(&[Some(2.0)]),
            Ok(None),
            "{missing}"
        );
    }
}

#[test]
fn errors_of_evaluation() {
    for (text, message) in [
        ("a / 0", "division by zero"),
        ("a % (1 - 1)", "division by zero"),
        ("sqrt(-a)", "\"sqrt\" is not defined for -2"),
        ("ln(0)", "\"ln\" is not defined for 0"),
        ("(-8) ^ 0.5", "\"pow\" is not defined for -8"),
        ("clamp(1, a, 0)", "\"clamp\" is not defined for 2"),
        ("round(1, 0.5)", "\"round\" is not defined for 0.5"),
        ("1e300 * 1e300", "result of \"*\" is not a finite number"),
        ("exp(1000)", "result of \"exp\" is not a finite number"),
        ("b", "result of \"input\" is not a finite number"),
    ] {
        let expression = Expression::compile(text, &NAMES).unwrap();
        let error = expression.evaluate(&[Some(2.0), Some(f64::INFINITY)]).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().ends_with('.'));
    }
}

#[test]
fn malformed_expressions_name_place_and_token() {
    for (text, message) in [
        ("", "expression must have a number, a name or \"(\", not its end, at character 1"),
        ("1 +", "expression must have a number, a name or \"(\", not its end, at character 4"),
        ("1 2", "expression must have an operator, not \"2\", at character 3"),
        ("(1", "expression must have an operator or \")\", not its end, at character 3"),
        ("2 * not 1", "expression must have a number, a name or \"(\", not \"not\", at character 5"),
        ("é", "expression must not contain 'é' at character 1"),
        ("a + c", "expression has an unknown name \"c\" at character 5"),
        ("min", "expression has an unknown name \"min\" at character 1"),
        ("minimum(1)", "expression has an unknown function \"minimum\" at character 1"),
        ("sqrt()", "expression has a call of \"sqrt\" with 0 arguments at character 1"),
        ("if(1, 2)", "expression has a call of \"if\" with 2 arguments at character 1"),
        ("if(1, 2, 3, 4)", "expression has a call of \"if\" with 4 arguments at character 1"),
        ("1.2.3", "expression has a malformed number \"1.2.3\" at character 1"),
        ("2x", "expression has a malformed number \"2x\" at character 1"),
        ("1e999", "expression has a malformed number \"1e999\" at character 1"),
        ("1 < 2 < 3", "expression must not compare a comparison at character 7"),
    ] {
        assert_eq!(Expression::compile(text, &NAMES).unwrap_err().to_string(), message);
    }
    let unknown = Expression::compile("c", &NAMES).unwrap_err();
    assert_eq!(unknown.hint(), "Known names are a, b, long_name2.");
}
