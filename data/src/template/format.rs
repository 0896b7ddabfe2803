//! Python's two ways to format: `'%s' % value` and `'{}'.format(value)`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, State, Value};

use super::arguments::wrong;
use super::number_format::{Spec, padded, written};
use super::text::{repr, text};

/// What a format is called in messages.
const PERCENT: &str = "the format of `%`";
const BRACES: &str = "the format of `format`";

/// `format % values`.
///
/// # Errors
/// The format is none of Python's, or does not fit the values; a result that is too large.
pub(super) fn percent(state: &State<'_, '_>, format: &str, values: &Value) -> Result<String, Error> {
    let is_tuple = values.is_tuple();
    let mut given = if is_tuple { values.try_iter()?.collect::<Vec<_>>() } else { vec![values.clone()] }.into_iter();
    let mut by_name = false;
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut named = None;
        if rest.next_if_eq(&'(').is_some() {
            by_name = true;
            let key = rest.by_ref().take_while(|letter| *letter != ')').collect::<String>();
            if values.kind() != ValueKind::Map {
                return Err(wrong(PERCENT, "names a key, and is given no mapping"));
            }
            let value = values.get_item(&Value::from(&*key))?;
            if value.is_undefined() {
                return Err(wrong(PERCENT, &format!("names the key {key:?}, which is not there")));
            }
            named = Some(value);
        }
        let mut spec = Spec { align: '>', ..Spec::default() };
        while let Some(flag) = rest.next_if(|letter| "-+ #0".contains(*letter)) {
            match flag {
                '-' => spec.align = '<',
                '+' => spec.sign = '+',
                ' ' if spec.sign != '+' => spec.sign = ' ',
                '#' => spec.alternate = true,
                '0' => spec.zeros = true,
                _ => {}
            }
        }
        let mut next = || given.next().ok_or_else(|| wrong(PERCENT, "has more places than there are values"));
        if rest.next_if_eq(&'*').is_some() {
            let width = next()?.as_i64().ok_or_else(|| wrong(PERCENT, "takes a number for `*`"))?;
            if width < 0 {
                spec.align = '<';
            }
            spec.set_width(width.unsigned_abs())?;
        } else if let Some(width) = number(&mut rest) {
            spec.set_width(width)?;
        }
        if rest.next_if_eq(&'.').is_some() {
            let digits = match rest.next_if_eq(&'*') {
                Some(_) => next()?.as_i64().and_then(|digits| u64::try_from(digits).ok()),
                None => Some(number(&mut rest).unwrap_or(0)),
            };
            spec.set_precision(digits.unwrap_or(0))?;
        }
        while rest.next_if(|letter| "hlL".contains(*letter)).is_some() {}
        let kind = rest.next().ok_or_else(|| wrong(PERCENT, "ends within a place"))?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        out.push_str(&one(state, &value, kind, &mut spec)?);
        state.consume_fuel(1 + spec.width as u64 / 64)?;
    }
    if !by_name && given.next().is_some() && (is_tuple || !matches!(values.kind(), ValueKind::Map | ValueKind::Seq)) {
        return Err(wrong(PERCENT, "has fewer places than there are values"));
    }
    Ok(out)
}

fn one(state: &State<'_, '_>, value: &Value, kind: char, spec: &mut Spec) -> Result<String, Error> {
    let plain = match kind {
        's' => text(state, value)?,
        'r' => repr(state, value)?,
        'c' => match (value.as_str(), value.as_i64()) {
            (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
            (None, Some(code)) => {
                u32::try_from(code).ok().and_then(char::from_u32).map(String::from).unwrap_or_default()
            }
            _ => return Err(wrong(PERCENT, "`%c` takes one letter")),
        },
        'd' | 'i' | 'u' => {
            spec.kind = Some('d');
            let whole = match f64::try_from(value.clone()) {
                // `%d` cuts a float.
                Ok(number) if value.is_number() && !value.is_integer() && number.is_finite() => {
                    Value::from(number.trunc() as i128)
                }
                _ => value.clone(),
            };
            return written(PERCENT, &whole, spec);
        }
        'x' | 'X' | 'o' if value.is_integer() || value.kind() == ValueKind::Bool => {
            spec.kind = Some(kind);
            return written(PERCENT, value, spec);
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            spec.kind = Some(kind);
            return written(PERCENT, value, spec);
        }
        'x' | 'X' | 'o' => return Err(wrong(PERCENT, &format!("`%{kind}` takes a whole number"))),
        other => return Err(wrong(PERCENT, &format!("has the place `%{other}`, which is not supported"))),
    };
    spec.zeros = false;
    Ok(padded(&cut(&plain, spec.precision), spec))
}

fn cut(text: &str, letters: Option<usize>) -> String {
    letters.map_or_else(|| text.to_owned(), |letters| text.chars().take(letters).collect())
}

fn number(rest: &mut Peekable<Chars<'_>>) -> Option<u64> {
    let mut found = None;
    while let Some(digit) = rest.peek().and_then(|letter| letter.to_digit(10)) {
        found = Some(found.unwrap_or(0_u64).saturating_mul(10).saturating_add(u64::from(digit)));
        rest.next();
    }
    found
}

/// `format.format(*args, **kwargs)`.
///
/// # Errors
/// As of [`percent`].
pub(super) fn braces(state: &State<'_, '_>, format: &str, args: &[Value]) -> Result<String, Error> {
    let (by_place, by_name) = match args.split_last() {
        Some((last, others)) if last.is_kwargs() => (others, Kwargs::try_from(last.clone())?),
        _ => (args, Kwargs::try_from(Value::UNDEFINED)?),
    };
    let mut next = 0;
    Braces { state, by_place, by_name: &by_name, next: &mut next }.write(format, 0)
}

struct Braces<'b, 't, 'e> {
    state: &'b State<'t, 'e>,
    by_place: &'b [Value],
    by_name: &'b Kwargs,
    next: &'b mut usize,
}

impl Braces<'_, '_, '_> {
    fn write(&mut self, format: &str, depth: usize) -> Result<String, Error> {
        if depth > 1 {
            return Err(wrong(BRACES, "is nested too deeply"));
        }
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if depth == 0 && rest.starts_with(brace) {
                out.push_str(brace);
                rest = &rest[1..];
                continue;
            }
            let end = match brace {
                "{" => closing(rest),
                _ => None,
            };
            let end = end.ok_or_else(|| wrong(BRACES, "has a single brace"))?;
            out.push_str(&self.place(&rest[..end], depth)?);
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn place(&mut self, place: &str, depth: usize) -> Result<String, Error> {
        let (field, spec) = match place.find([':', '!']) {
            Some(at) if place[at..].starts_with(':') => (&place[..at], &place[at..]),
            Some(at) => (&place[..at], &place[at..]),
            None => (place, ""),
        };
        let mut value = self.field(field)?;
        let mut spec = spec;
        if let Some(conversion) = spec.strip_prefix('!') {
            let kind = conversion.chars().next();
            value = Value::from(match kind {
                Some('r') => repr(self.state, &value)?,
                Some('s') => text(self.state, &value)?,
                _ => return Err(wrong(BRACES, "has a conversion other than `!r` and `!s`")),
            });
            spec = &conversion[1..];
        }
        let spec = match spec.strip_prefix(':') {
            Some(spec) => self.write(spec, depth + 1)?,
            None if spec.is_empty() => String::new(),
            None => return Err(wrong(BRACES, "has letters behind a conversion")),
        };
        let spec = Spec::parsed(&spec)?;
        self.state.consume_fuel(1 + spec.width as u64 / 64)?;
        match value.kind() {
            ValueKind::String => {
                if spec.sign != '-'
                    || spec.alternate
                    || spec.grouping.is_some()
                    || !matches!(spec.kind, None | Some('s'))
                {
                    return Err(wrong(BRACES, "asks for a number, and is given a string"));
                }
                Ok(padded(&cut(value.as_str().unwrap_or_default(), spec.precision), &spec))
            }
            ValueKind::Bool if spec.is_plain => text(self.state, &value),
            ValueKind::Number | ValueKind::Bool => written(BRACES, &value, &spec),
            _ if spec.is_plain => text(self.state, &value),
            kind => Err(wrong(BRACES, &format!("asks for a width or kind, which a {kind} does not have"))),
        }
    }

    fn field(&mut self, field: &str) -> Result<Value, Error> {
        let end = field.find(['.', '[']).unwrap_or(field.len());
        let (first, mut rest) = field.split_at(end);
        let missing = || wrong(BRACES, &format!("has the place {field:?}, for which there is no value"));
        let mut value = if first.is_empty() {
            *self.next += 1;
            self.by_place.get(*self.next - 1).cloned().ok_or_else(missing)?
        } else if let Ok(index) = first.parse::<usize>() {
            self.by_place.get(index).cloned().ok_or_else(missing)?
        } else if self.by_name.has(first) {
            self.by_name.get::<Value>(first)?
        } else {
            return Err(missing());
        };
        while !rest.is_empty() {
            let (key, behind) = match rest.strip_prefix('[') {
                Some(inner) => inner.split_once(']').ok_or_else(missing)?,
                None => {
                    let inner = &rest[1..];
                    inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
                }
            };
            value = match key.parse::<usize>() {
                Ok(index) => value.get_item(&Value::from(index))?,
                Err(_) => value.get_item(&Value::from(key))?,
            };
            if value.is_undefined() {
                return Err(missing());
            }
            rest = behind;
        }
        Ok(value)
    }
}

/// The brace that closes a place, behind all places within it.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.bytes().position(|byte| match byte {
        b'{' => {
            depth += 1;
            false
        }
        b'}' if depth == 0 => true,
        b'}' => {
            depth -= 1;
            false
        }
        _ => false,
    })
}
