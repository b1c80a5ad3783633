//! Numbers: PostgreSQL's `numeric` as it is stored.

use std::cmp::Ordering;
use std::fmt::{self, Write};

const FLAGS_MASK: u16 = 0xC000;
const FLAGS_NEGATIVE: u16 = 0x4000;
const FLAGS_SHORT: u16 = 0x8000;
const FLAGS_SPECIAL: u16 = 0xC000;

const SHORT_SIGN: u16 = 0x2000;
const SHORT_SCALE_MASK: u16 = 0x1F80;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;

const LONG_SCALE_MASK: u16 = 0x3FFF;

const SPECIAL_MASK: u16 = 0xF000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Decimal digits in a digit of base 10,000.
const DECIMALS_PER_DIGIT: i32 = 4;
/// Largest digit of base 10,000.
const LARGEST_DIGIT: u16 = 9_999;
/// Every integer up to here is a `f64`.
const LARGEST_EXACT_MANTISSA: u64 = 1 << 53;

/// The powers of ten that are exact in a `f64`.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Digits of base 10,000 that decide how a number is rounded: no `f64` and no middle between two of them has more
/// than 767 decimal digits, so all that is left to know of the rest is whether it is zero.
const DECISIVE_DIGITS: usize = 200;

/// A number of any precision.
///
/// `Display` writes all its digits, those after the decimal point as many as were given: `1.50` stays `1.50`.
/// Equality and order are by value; NaN equals itself and is greater than everything else, as in PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub struct Numeric<'a> {
    form: Form<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Finite(Finite<'a>),
    NotANumber,
    Infinity { negative: bool },
}

/// The sum of `digits[i]` × 10,000^(`weight` - i).
#[derive(Clone, Copy, Debug)]
struct Finite<'a> {
    negative: bool,
    weight: i16,
    /// Decimal digits after the point to show.
    scale: u16,
    /// Base 10,000, most significant first.
    digits: &'a [[u8; 2]],
}

impl<'a> Numeric<'a> {
    /// The number in `image`, a datum with its length word. `None` if it is cut short.
    pub(super) fn new(image: &'a [u8]) -> Option<Self> {
        let (header, rest) = payload(image)?.split_first_chunk::<2>()?;
        let header = u16::from_ne_bytes(*header);
        let form = match header & FLAGS_MASK {
            FLAGS_SPECIAL => match header & SPECIAL_MASK {
                POSITIVE_INFINITY => Form::Infinity { negative: false },
                NEGATIVE_INFINITY => Form::Infinity { negative: true },
                _ => Form::NotANumber,
            },
            FLAGS_SHORT => {
                let magnitude = header & SHORT_WEIGHT_MASK;
                let extended =
                    if header & SHORT_WEIGHT_SIGN != 0 { magnitude | !SHORT_WEIGHT_MASK } else { magnitude };
                Form::Finite(Finite {
                    negative: header & SHORT_SIGN != 0,
                    weight: extended.cast_signed(),
                    scale: (header & SHORT_SCALE_MASK) >> SHORT_SCALE_SHIFT,
                    digits: rest.as_chunks().0,
                })
            }
            flags => {
                let (weight, rest) = rest.split_first_chunk::<2>()?;
                Form::Finite(Finite {
                    negative: flags == FLAGS_NEGATIVE,
                    weight: i16::from_ne_bytes(*weight),
                    scale: header & LONG_SCALE_MASK,
                    digits: rest.as_chunks().0,
                })
            }
        };
        Some(Self { form })
    }

    /// Whether this is neither NaN nor infinite. JSON knows only such numbers.
    pub fn is_finite(&self) -> bool {
        matches!(self.form, Form::Finite(_))
    }

    /// Whether this is 0.
    pub fn is_zero(&self) -> bool {
        matches!(self.form, Form::Finite(finite) if finite.is_zero())
    }

    /// The nearest `f64`, ties to even: what parsing the digits gives, infinite or 0 beyond the range of `f64`.
    #[inline]
    pub fn to_f64(&self) -> f64 {
        match self.form {
            Form::Finite(finite) => {
                let magnitude = finite.exact_f64().unwrap_or_else(|| finite.rounded_f64());
                if finite.negative && magnitude != 0.0 { -magnitude } else { magnitude }
            }
            Form::NotANumber => f64::NAN,
            Form::Infinity { negative: false } => f64::INFINITY,
            Form::Infinity { negative: true } => f64::NEG_INFINITY,
        }
    }

    /// The number if it is an integer in the range of `i64`.
    pub fn to_i64(&self) -> Option<i64> {
        let Form::Finite(finite) = self.form else { return None };
        let last = if finite.is_zero() { 0 } else { usize::try_from(finite.weight).ok()? };
        // Summed up below zero, where the range is wider by one.
        let mut sum = 0_i64;
        for position in 0..=last {
            // Zeros in front of a malformed number may make it long, but do not make it large.
            sum = sum.checked_mul(10_000)?.checked_sub(i64::from(finite.digit(position)))?;
        }
        if finite.digits.iter().skip(last + 1).any(|digit| *digit != [0, 0]) && !finite.is_zero() {
            return None;
        }
        if finite.negative { Some(sum) } else { sum.checked_neg() }
    }

    /// The number as `mantissa` × 10^`exponent`, exactly. `None` if the mantissa does not fit.
    pub(crate) fn to_decimal(self) -> Option<(i128, i32)> {
        let Form::Finite(finite) = self.form else { return None };
        let mut mantissa = 0_i128;
        for position in 0..finite.digits.len() {
            mantissa = mantissa.checked_mul(10_000)?.checked_add(i128::from(finite.digit(position)))?;
        }
        let exponent = finite.exponent(finite.digits.len());
        Some((if finite.negative { -mantissa } else { mantissa }, exponent))
    }
}

impl Finite<'_> {
    /// Digit of base 10,000 at `position` from the front; 0 after the last.
    fn digit(&self, position: usize) -> u16 {
        self.digits.get(position).map_or(0, |digit| u16::from_ne_bytes(*digit).min(LARGEST_DIGIT))
    }

    fn is_zero(&self) -> bool {
        self.digits.iter().all(|digit| *digit == [0, 0])
    }

    /// The power of ten that the integer made of the first `count` digits is to be multiplied by.
    fn exponent(&self, count: usize) -> i32 {
        let count = i32::try_from(count).unwrap_or(i32::MAX / 8);
        (i32::from(self.weight) + 1 - count) * DECIMALS_PER_DIGIT
    }

    /// The magnitude, if it is an integer below 2⁵³ times or divided by a power of ten that is a `f64`: one
    /// operation of two exact numbers is rounded once, so correctly.
    #[inline]
    fn exact_f64(&self) -> Option<f64> {
        let mut mantissa = 0_u64;
        if self.digits.len() > 4 {
            return None;
        }
        for position in 0..self.digits.len() {
            mantissa = mantissa * 10_000 + u64::from(self.digit(position));
        }
        if mantissa == 0 {
            return Some(0.0);
        }
        let mut exponent = self.exponent(self.digits.len());
        while mantissa > LARGEST_EXACT_MANTISSA && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            exponent += 1;
        }
        if mantissa > LARGEST_EXACT_MANTISSA {
            return None;
        }
        let power = *EXACT_POWERS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
        Some(if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power })
    }

    /// The magnitude by way of its decimal digits.
    #[cold]
    fn rounded_f64(&self) -> f64 {
        let mut text = Decimals::default();
        let count = self.digits.len().min(DECISIVE_DIGITS);
        for position in 0..count {
            text.push_digit(self.digit(position));
        }
        let mut exponent = self.exponent(count);
        if self.digits.iter().skip(count).any(|digit| *digit != [0, 0]) {
            text.push(b'1');
            exponent -= 1;
        }
        // The buffer has room for all of it, and what is written there is a number.
        let written = write!(text, "e{exponent}");
        let parsed = text.as_str().and_then(|digits| digits.parse().ok());
        parsed.filter(|_| written.is_ok()).unwrap_or(f64::NAN)
    }

    /// Decimal digits before the first non-zero digit of base 10,000 are not counted.
    fn significant(&self) -> (i32, &[[u8; 2]]) {
        let leading = self.digits.iter().take_while(|digit| **digit == [0, 0]).count();
        let trailing = self.digits.iter().rev().take_while(|digit| **digit == [0, 0]).count();
        let digits = self.digits.get(leading..self.digits.len().saturating_sub(trailing)).unwrap_or(&[]);
        (i32::from(self.weight).saturating_sub(i32::try_from(leading).unwrap_or(i32::MAX)), digits)
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let ((weight, digits), (other_weight, other_digits)) = (self.significant(), other.significant());
        match (digits.is_empty(), other_digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => weight.cmp(&other_weight).then_with(|| {
                let value = |digit: &[u8; 2]| u16::from_ne_bytes(*digit).min(LARGEST_DIGIT);
                digits.iter().map(value).cmp(other_digits.iter().map(value))
            }),
        }
    }
}

impl PartialEq for Numeric<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric<'_> {}

impl PartialOrd for Numeric<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Numeric<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |form: &Form<'_>| match form {
            Form::Infinity { negative: true } => -2,
            Form::Finite(finite) if finite.is_zero() => 0,
            Form::Finite(finite) if finite.negative => -1,
            Form::Finite(_) => 1,
            Form::Infinity { negative: false } => 2,
            Form::NotANumber => 3,
        };
        rank(&self.form).cmp(&rank(&other.form)).then_with(|| match (&self.form, &other.form) {
            (Form::Finite(left), Form::Finite(right)) if left.negative => right.compare_magnitude(left),
            (Form::Finite(left), Form::Finite(right)) => left.compare_magnitude(right),
            _ => Ordering::Equal,
        })
    }
}

impl fmt::Display for Numeric<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finite = match self.form {
            Form::Finite(finite) => finite,
            Form::NotANumber => return formatter.write_str("NaN"),
            Form::Infinity { negative: false } => return formatter.write_str("Infinity"),
            Form::Infinity { negative: true } => return formatter.write_str("-Infinity"),
        };
        if finite.negative && !finite.is_zero() {
            formatter.write_char('-')?;
        }
        let weight = i32::from(finite.weight);
        // Digit of base 10,000 that is multiplied by 10,000^`power`.
        let digit_of =
            |power: i32| usize::try_from(weight - power).map_or(0, |position| finite.digit(position));

        let mut leading = true;
        for power in (1..=weight).rev() {
            let digit = digit_of(power);
            match (leading, digit) {
                (true, 0) => {}
                (true, _) => write!(formatter, "{digit}")?,
                (false, _) => write!(formatter, "{digit:04}")?,
            }
            leading &= digit == 0;
        }
        let units = digit_of(0);
        if leading {
            write!(formatter, "{units}")?
        } else {
            write!(formatter, "{units:04}")?
        }

        if finite.scale == 0 {
            return Ok(());
        }
        formatter.write_char('.')?;
        let mut left = finite.scale;
        let mut power = -1;
        while left > 0 {
            let mut digit = digit_of(power);
            let mut divisor = 1_000;
            while left > 0 && divisor > 0 {
                write!(formatter, "{}", digit / divisor)?;
                digit %= divisor;
                divisor /= 10;
                left -= 1;
            }
            power -= 1;
        }
        Ok(())
    }
}

/// What follows the length of a datum, which is a word of four bytes or, for a short one, a byte.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let little = cfg!(target_endian = "little");
    let first = *image.first()?;
    let (is_short, short_length) =
        if little { (first & 1 != 0, first >> 1) } else { (first & 0x80 != 0, first & 0x7F) };
    if is_short {
        return image.get(1..usize::from(short_length));
    }
    let word = u32::from_ne_bytes(*image.first_chunk::<4>()?);
    let length = if little { word >> 2 } else { word & 0x3FFF_FFFF };
    image.get(4..usize::try_from(length).ok()?)
}

/// Decimal text on the stack: the decisive digits, one for the rest, and an exponent.
struct Decimals {
    bytes: [u8; DECISIVE_DIGITS * 4 + 16],
    length: usize,
}

impl Default for Decimals {
    fn default() -> Self {
        Self { bytes: [0; DECISIVE_DIGITS * 4 + 16], length: 0 }
    }
}

impl Decimals {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn push_digit(&mut self, digit: u16) {
        for divisor in [1_000, 100, 10, 1] {
            // Below ten.
            self.push(b'0' + (digit / divisor % 10) as u8);
        }
    }

    fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(..self.length)?).ok()
    }
}

impl Write for Decimals {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}
