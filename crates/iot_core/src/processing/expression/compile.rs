//! From text to steps, in one pass: a Pratt parser that emits postfix code as it goes and builds no tree.

use super::evaluate::Step;
use super::expression_error::{ExpressionError, ExpressionProblem};
use super::function::{Binary, Function, Unary};
use super::token::{Placed, Token, error_at, next_token};

/// Longest expression, in bytes.
pub const MAXIMUM_LENGTH: usize = 4096;

/// Deepest nesting. Parentheses, arguments, prefix operators and right operands each count as one.
pub const MAXIMUM_NESTING: usize = 64;

/// Most numbers, names, operators and calls in one expression.
pub const MAXIMUM_NODES: usize = 1000;

/// Most numbers on the stack: at each depth at most two arguments of `clamp` wait for the third.
pub(super) const MAXIMUM_STACK: usize = 2 * MAXIMUM_NESTING + 2;

/// An expression, checked once and ready to be evaluated any number of times.
///
/// From the weakest binding to the strongest:
///
/// - `or`, `and`, `not`
/// - `=` (`==`), `<>` (`!=`), `<`, `<=`, `>`, `>=`, which cannot be chained
/// - `+`, `-`; `*`, `/`, `%` (the remainder has the sign of the left operand)
/// - unary `-`
/// - `^` (power), from right to left: `2 ^ 3 ^ 2` is 512 and `-2 ^ 2` is −4
///
/// Functions: `abs atan2 ceil clamp(x, minimum, maximum) coalesce cos exp floor hypot if(condition, a, b) ln
/// log10 max min pow round(x [, decimals]) sign sin sqrt tan trunc`; angles are in radians, halves round away
/// from zero. Constants: `pi`, `true` (1), `false` (0). Keywords and functions may be written in any case;
/// inputs may not.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub(super) steps: Vec<Step>,
    /// The most numbers that are on the stack at once.
    pub(super) stack: usize,
}

impl Expression {
    /// Compiles `text`, in which the inputs have these names. Time and memory are linear in the length of the
    /// text.
    ///
    /// # Errors
    /// When the text is not an expression, uses a name that is not an input, or exceeds a limit.
    pub fn compile(text: &str, names: &[&str]) -> Result<Self, ExpressionError> {
        if text.len() > MAXIMUM_LENGTH {
            let problem = ExpressionProblem::TooLong { length: text.len() };
            return Err(ExpressionError { character: 1, problem });
        }
        let next = next_token(text, 0)?;
        let mut compiler =
            Compiler { text, names, next, steps: Vec::new(), nodes: 0, nesting: 0, depth: 0, stack: 0 };
        compiler.expression(LOOSEST)?;
        if compiler.next.token != Token::End {
            return Err(compiler.unexpected("an operator"));
        }
        Ok(Self { steps: compiler.steps, stack: compiler.stack })
    }

    /// Whether the input at this index of the names is used.
    pub fn uses(&self, input: usize) -> bool {
        self.steps.contains(&Step::Input(input))
    }
}

/// How strongly an operator binds.
type Power = u8;

const LOOSEST: Power = OR;
const OR: Power = 1;
const AND: Power = 2;
const NOT: Power = 3;
const COMPARISON: Power = 4;
const SUM: Power = 5;
const PRODUCT: Power = 6;
/// Above unary minus, which is the operand of nothing weaker than `^`.
const POWER: Power = 8;

/// What an infix operator does.
#[derive(Clone, Copy)]
enum Infix {
    Logic { decisive: bool },
    Binary(Binary),
}

fn infix(token: Token<'_>) -> Option<(Power, Infix)> {
    let Token::Symbol(symbol) = token else { return None };
    Some(match symbol {
        "or" => (OR, Infix::Logic { decisive: true }),
        "and" => (AND, Infix::Logic { decisive: false }),
        "=" | "==" => (COMPARISON, Infix::Binary(Binary::Equal)),
        "<>" | "!=" => (COMPARISON, Infix::Binary(Binary::NotEqual)),
        "<" => (COMPARISON, Infix::Binary(Binary::Less)),
        "<=" => (COMPARISON, Infix::Binary(Binary::LessOrEqual)),
        ">" => (COMPARISON, Infix::Binary(Binary::Greater)),
        ">=" => (COMPARISON, Infix::Binary(Binary::GreaterOrEqual)),
        "+" => (SUM, Infix::Binary(Binary::Add)),
        "-" => (SUM, Infix::Binary(Binary::Subtract)),
        "*" => (PRODUCT, Infix::Binary(Binary::Multiply)),
        "/" => (PRODUCT, Infix::Binary(Binary::Divide)),
        "%" => (PRODUCT, Infix::Binary(Binary::Remainder)),
        "^" => (POWER, Infix::Binary(Binary::Power)),
        _ => return None,
    })
}

struct Compiler<'a> {
    text: &'a str,
    names: &'a [&'a str],
    /// The token that comes next.
    next: Placed<'a>,
    steps: Vec<Step>,
    nodes: usize,
    nesting: usize,
    /// How many numbers are on the stack after the steps so far.
    depth: usize,
    /// The most there have been.
    stack: usize,
}

type Compiled<T> = Result<T, ExpressionError>;

impl<'a> Compiler<'a> {
    /// Compiles an operand and the operators after it that bind at least as strongly as `weakest`.
    fn expression(&mut self, weakest: Power) -> Compiled<()> {
        if self.nesting == MAXIMUM_NESTING {
            return Err(self.error(ExpressionProblem::TooDeep));
        }
        self.nesting += 1;
        self.operand(weakest)?;
        let mut compared = false;
        while let Some((power, operator)) = infix(self.next.token).filter(|(power, _)| *power >= weakest) {
            if power == COMPARISON && compared {
                return Err(self.error(ExpressionProblem::ChainedComparison));
            }
            compared = power == COMPARISON;
            self.node()?;
            self.advance()?;
            match operator {
                Infix::Logic { decisive } => {
                    let short_circuit = self.emit(Step::ShortCircuit { decisive, end: 0 })?;
                    self.expression(power + 1)?;
                    self.emit(Step::Unary(Unary::Truth))?;
                    self.steps[short_circuit] = Step::ShortCircuit { decisive, end: self.steps.len() };
                }
                Infix::Binary(operation) => {
                    self.expression(if power == POWER { POWER } else { power + 1 })?;
                    self.emit(Step::Binary(operation))?;
                }
            }
        }
        self.nesting -= 1;
        Ok(())
    }

    fn operand(&mut self, weakest: Power) -> Compiled<()> {
        let Placed { token, start, .. } = self.next;
        match token {
            Token::Number(number) => self.constant(number),
            Token::Symbol("true") => self.constant(1.0),
            Token::Symbol("false") => self.constant(0.0),
            Token::Symbol("pi") => self.constant(std::f64::consts::PI),
            Token::Symbol("-") => self.prefix(Unary::Negate, POWER),
            Token::Symbol("not") if weakest <= NOT => self.prefix(Unary::Not, NOT),
            Token::Symbol("(") => {
                self.advance()?;
                self.expression(LOOSEST)?;
                self.expect(")", "an operator or \")\"")
            }
            Token::Name(name) => {
                self.node()?;
                self.advance()?;
                if self.next.token == Token::Symbol("(") {
                    return self.call(name, start);
                }
                let known = || self.names.iter().map(|name| (*name).to_owned()).collect();
                let index = self.names.iter().position(|known| *known == name).ok_or_else(|| {
                    let problem = ExpressionProblem::UnknownName { name: name.to_owned(), known: known() };
                    error_at(self.text, start, problem)
                })?;
                self.emit(Step::Input(index))?;
                Ok(())
            }
            _ => Err(self.unexpected("a number, a name or \"(\"")),
        }
    }

    fn constant(&mut self, number: f64) -> Compiled<()> {
        self.node()?;
        self.emit(Step::Number(number))?;
        self.advance()
    }

    fn prefix(&mut self, operation: Unary, weakest: Power) -> Compiled<()> {
        self.node()?;
        self.advance()?;
        self.expression(weakest)?;
        self.emit(Step::Unary(operation))?;
        Ok(())
    }

    /// Compiles the arguments of a function and its call. The next token is the opening parenthesis.
    fn call(&mut self, name: &str, start: usize) -> Compiled<()> {
        let (function_name, function, minimum, maximum) = Function::named(name).ok_or_else(|| {
            error_at(self.text, start, ExpressionProblem::UnknownFunction { name: name.to_owned() })
        })?;
        self.advance()?;
        let mut arguments = 0;
        let mut jumps = Jumps::default();
        if self.next.token != Token::Symbol(")") {
            loop {
                self.expression(LOOSEST)?;
                arguments += 1;
                let more = self.next.token == Token::Symbol(",");
                self.after_argument(function, arguments, more, &mut jumps)?;
                if !more {
                    break;
                }
                self.advance()?;
            }
        }
        if self.next.token == Token::Symbol(")")
            && (arguments < minimum || maximum.is_some_and(|maximum| arguments > maximum))
        {
            let problem = ExpressionProblem::ArgumentCount {
                function: function_name,
                minimum,
                maximum,
                found: arguments,
            };
            return Err(error_at(self.text, start, problem));
        }
        self.expect(")", "an operator, \",\" or \")\"")?;
        self.after_call(function, arguments, &jumps)
    }

    /// Emits what stands between or after the arguments. With too many of them, what is emitted does not
    /// matter, because the call is refused.
    fn after_argument(
        &mut self,
        function: Function,
        arguments: usize,
        more: bool,
        jumps: &mut Jumps,
    ) -> Compiled<()> {
        match (function, arguments) {
            (Function::If, 1) => jumps.branch = Some(self.emit(Step::Branch { otherwise: 0, end: 0 })?),
            (Function::If, 2) => {
                jumps.to_end.push(self.emit(Step::Jump(0))?);
                jumps.otherwise = self.steps.len();
                // On the way to the third argument, the second one has not been evaluated.
                self.depth = self.depth.saturating_sub(1);
            }
            (Function::Coalesce, _) if more => {
                jumps.to_end.push(self.emit(Step::KeepPresent { end: 0 })?);
            }
            (Function::Minimum, 2..) => {
                self.emit(Step::Binary(Binary::Minimum))?;
            }
            (Function::Maximum, 2..) => {
                self.emit(Step::Binary(Binary::Maximum))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn after_call(&mut self, function: Function, arguments: usize, jumps: &Jumps) -> Compiled<()> {
        let end = self.steps.len();
        let operation = match function {
            Function::If | Function::Coalesce => {
                if let Some(branch) = jumps.branch {
                    self.steps[branch] = Step::Branch { otherwise: jumps.otherwise, end };
                }
                for jump in &jumps.to_end {
                    self.steps[*jump] = match self.steps[*jump] {
                        Step::KeepPresent { .. } => Step::KeepPresent { end },
                        _ => Step::Jump(end),
                    };
                }
                return Ok(());
            }
            Function::Minimum | Function::Maximum => return Ok(()),
            Function::Clamp => Step::Clamp,
            Function::Hypotenuse => Step::Binary(Binary::Hypotenuse),
            Function::ArcTangent => Step::Binary(Binary::ArcTangent),
            Function::Power => Step::Binary(Binary::Power),
            Function::Round if arguments == 2 => Step::Binary(Binary::RoundTo),
            _ => Step::Unary(Unary::Call(function)),
        };
        self.emit(operation)?;
        Ok(())
    }

    /// Appends a step and returns its index.
    fn emit(&mut self, step: Step) -> Compiled<usize> {
        self.depth = match step {
            Step::Number(_) | Step::Input(_) => self.depth + 1,
            Step::Binary(_) | Step::Branch { .. } | Step::ShortCircuit { .. } | Step::KeepPresent { .. } => {
                self.depth.saturating_sub(1)
            }
            Step::Clamp => self.depth.saturating_sub(2),
            Step::Unary(_) | Step::Jump(_) => self.depth,
        };
        self.stack = self.stack.max(self.depth);
        // A call with too many arguments could get here before it is refused.
        if self.stack > MAXIMUM_STACK {
            return Err(self.error(ExpressionProblem::TooDeep));
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    /// Counts a number, name, operator or call.
    fn node(&mut self) -> Compiled<()> {
        if self.nodes == MAXIMUM_NODES {
            return Err(self.error(ExpressionProblem::TooManyNodes));
        }
        self.nodes += 1;
        Ok(())
    }

    fn advance(&mut self) -> Compiled<()> {
        self.next = next_token(self.text, self.next.end)?;
        Ok(())
    }

    fn expect(&mut self, symbol: &'static str, expected: &'static str) -> Compiled<()> {
        if self.next.token == Token::Symbol(symbol) { self.advance() } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> ExpressionError {
        let found = self.next.token.describe(&self.text[self.next.start..self.next.end]);
        self.error(ExpressionProblem::Unexpected { expected, found })
    }

    fn error(&self, problem: ExpressionProblem) -> ExpressionError {
        error_at(self.text, self.next.start, problem)
    }
}

/// The steps of a call whose targets are known only at its end.
#[derive(Default)]
struct Jumps {
    branch: Option<usize>,
    otherwise: usize,
    to_end: Vec<usize>,
}
