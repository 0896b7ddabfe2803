//! Numbers in the formats of Python: sign, width, digits and kind.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::{WIDEST, wrong};
use super::text::float;

/// Most digits behind the point.
const DIGITS: u64 = 1_000;

/// A format: `[[fill]align][sign][#][0][width][grouping][.precision][kind]`.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) fill: char,
    /// `<`, `>`, `^` or `=`; a space where the kind of value decides.
    pub(super) align: char,
    /// `-` (only where negative), `+` or a space.
    pub(super) sign: char,
    pub(super) alternate: bool,
    pub(super) zeros: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
    /// Whether nothing is asked for.
    pub(super) is_plain: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            fill: ' ',
            align: ' ',
            sign: '-',
            alternate: false,
            zeros: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: None,
            is_plain: false,
        }
    }
}

impl Spec {
    /// Out of what stands behind the colon of a place.
    ///
    /// # Errors
    /// It is no format of Python, or asks for too much.
    pub(super) fn parsed(text: &str) -> Result<Self, Error> {
        let refused = || wrong("the format of `format`", &format!("has {text:?}, which is not supported"));
        let mut spec = Self { is_plain: text.is_empty(), ..Self::default() };
        let letters: Vec<char> = text.chars().collect();
        let is_align = |at: usize| letters.get(at).is_some_and(|letter| "<>^=".contains(*letter));
        let mut at = 0;
        if is_align(1) {
            (spec.fill, spec.align, at) = (letters[0], letters[1], 2);
        } else if is_align(0) {
            (spec.align, at) = (letters[0], 1);
        }
        let mut taken = |wanted: &str| {
            let letter = letters.get(at).copied().filter(|letter| wanted.contains(*letter));
            at += usize::from(letter.is_some());
            letter
        };
        spec.sign = taken("+- ").unwrap_or('-');
        spec.alternate = taken("#").is_some();
        spec.zeros = taken("0").is_some();
        let number = |taken: &mut dyn FnMut(&str) -> Option<char>| {
            let mut found = None;
            while let Some(digit) = taken("0123456789").and_then(|digit| digit.to_digit(10)) {
                found = Some(found.unwrap_or(0_u64).saturating_mul(10).saturating_add(u64::from(digit)));
            }
            found
        };
        if let Some(width) = number(&mut taken) {
            spec.set_width(width)?;
        }
        spec.grouping = taken(",_");
        if taken(".").is_some() {
            let digits = number(&mut taken).ok_or_else(refused)?;
            spec.set_precision(digits)?;
        }
        spec.kind = taken("bcdeEfFgGosxX%");
        if at < letters.len() { Err(refused()) } else { Ok(spec) }
    }

    /// # Errors
    /// Wider than is allowed.
    pub(super) fn set_width(&mut self, width: u64) -> Result<(), Error> {
        let width = usize::try_from(width).ok().filter(|width| *width <= WIDEST);
        self.width = width.ok_or_else(|| wrong("a format", &format!("takes a width of at most {WIDEST}")))?;
        Ok(())
    }

    /// # Errors
    /// More digits than are allowed.
    pub(super) fn set_precision(&mut self, digits: u64) -> Result<(), Error> {
        let digits = usize::try_from(digits).ok().filter(|_| digits <= DIGITS);
        self.precision = Some(digits.ok_or_else(|| wrong("a format", &format!("takes at most {DIGITS} digits")))?);
        Ok(())
    }
}

/// A text with fillers to its width.
pub(super) fn padded(text: &str, spec: &Spec) -> String {
    let room = spec.width.saturating_sub(text.chars().count());
    let fill = if spec.zeros && spec.align == ' ' { '0' } else { spec.fill };
    let left = match spec.align {
        '>' => room,
        '^' => room / 2,
        _ => 0,
    };
    let filler = |letters: usize| fill.to_string().repeat(letters);
    format!("{}{text}{}", filler(left), filler(room - left))
}

/// A number in its format.
///
/// # Errors
/// The value is no number, or of another kind than the format asks for.
pub(super) fn written(what: &str, value: &Value, spec: &Spec) -> Result<String, Error> {
    let whole = match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => Some(i128::try_from(value.clone())?),
        ValueKind::Number => None,
        kind => return Err(wrong(what, &format!("asks for a number, and is given a {kind}"))),
    };
    let (is_negative, prefix, digits) = match (whole, spec.kind) {
        (Some(whole), Some(kind @ ('d' | 'b' | 'o' | 'x' | 'X'))) => integer(whole, kind, spec),
        (Some(whole), None) if spec.precision.is_none() => integer(whole, 'd', spec),
        (Some(whole), Some('c')) => {
            let letter = u32::try_from(whole).ok().and_then(char::from_u32);
            let letter = letter.ok_or_else(|| wrong(what, "takes the number of a letter"))?;
            return Ok(padded(&letter.to_string(), spec));
        }
        (None, Some('d' | 'b' | 'o' | 'x' | 'X' | 'c')) | (_, Some('s')) => {
            return Err(wrong(what, "asks for another kind of value"));
        }
        (_, kind) => {
            let number = f64::try_from(value.clone())?;
            (number.is_sign_negative() && !number.is_nan(), "", decimal(number.abs(), kind, spec))
        }
    };
    let sign = match (is_negative, spec.sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        _ => "",
    };
    let lead = format!("{sign}{prefix}");
    let with_zeros = spec.zeros && spec.align != '<' && !digits.starts_with(|letter: char| letter.is_alphabetic());
    let fills_within = with_zeros || spec.align == '=';
    if fills_within {
        let room = spec.width.saturating_sub(lead.len() + digits.len());
        let fill = if spec.zeros && (spec.align != '=' || spec.fill == ' ') { '0' } else { spec.fill };
        if spec.grouping.is_some() && fill == '0' && room > 0 {
            return Err(wrong(what, "fills with zeros between groups, which is not supported"));
        }
        return Ok(format!("{lead}{}{digits}", fill.to_string().repeat(room)));
    }
    let align = if spec.align == ' ' { '>' } else { spec.align };
    Ok(padded(&(lead + &digits), &Spec { align, zeros: false, ..spec.clone() }))
}

fn integer(whole: i128, kind: char, spec: &Spec) -> (bool, &'static str, String) {
    let size = whole.unsigned_abs();
    let (prefix, mut digits, group) = match kind {
        'b' => ("0b", format!("{size:b}"), 4),
        'o' => ("0o", format!("{size:o}"), 4),
        'x' => ("0x", format!("{size:x}"), 4),
        'X' => ("0X", format!("{size:X}"), 4),
        _ => ("", size.to_string(), 3),
    };
    // `%.5d` writes at least so many digits.
    if let Some(least) = spec.precision {
        digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
    }
    (whole < 0, if spec.alternate { prefix } else { "" }, grouped(&digits, spec.grouping, group))
}

fn grouped(digits: &str, separator: Option<char>, group: usize) -> String {
    let Some(separator) = separator else { return digits.to_owned() };
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(group) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

/// A number that is not negative.
fn decimal(number: f64, kind: Option<char>, spec: &Spec) -> String {
    let is_large = kind.is_some_and(|kind| kind.is_ascii_uppercase());
    if !number.is_finite() {
        let name = if number.is_nan() { "nan" } else { "inf" };
        let percent = if kind == Some('%') { "%" } else { "" };
        return if is_large { name.to_uppercase() } else { name.to_owned() } + percent;
    }
    let places = spec.precision.unwrap_or(6);
    let text = match kind {
        Some('f' | 'F') => format!("{number:.places$}"),
        Some('%') => format!("{:.places$}%", number * 100.0),
        Some('e' | 'E') => exponential(number, places),
        Some('g' | 'G') => general(number, places.max(1), spec.alternate),
        _ => match spec.precision {
            None => float(number),
            Some(places) => {
                let text = general(number, places.max(1), false);
                if text.contains(['.', 'e']) { text } else { text + ".0" }
            }
        },
    };
    let text = if is_large { text.to_uppercase() } else { text };
    let point = text.find(['.', 'e', 'E', '%']).unwrap_or(text.len());
    grouped(&text[..point], spec.grouping, 3) + &text[point..]
}

fn exponential(number: f64, places: usize) -> String {
    let text = format!("{number:.places$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn general(number: f64, digits: usize, keep_zeros: bool) -> String {
    let text = format!("{number:.*e}", digits - 1);
    let exponent: i64 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let last = i64::try_from(digits).unwrap_or(i64::MAX);
    let is_plain = number == 0.0 || (-4..last).contains(&exponent);
    let text = match is_plain {
        true => format!("{number:.*}", usize::try_from(last - 1 - exponent).unwrap_or(0)),
        false => exponential(number, digits - 1),
    };
    if keep_zeros || !text.contains('.') {
        return text;
    }
    let (number, exponent) = text.split_once('e').map_or((&*text, None), |(number, exponent)| (number, Some(exponent)));
    let number = number.trim_end_matches('0').trim_end_matches('.');
    exponent.map_or_else(|| number.to_owned(), |exponent| format!("{number}e{exponent}"))
}
