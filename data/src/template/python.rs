//! What templates use of Python beyond Jinja: methods of strings, and `%` between strings.

use minijinja::formatting::{FormatStyle, format};
use minijinja::{Error, ErrorKind, State, Value};

/// `a % b`: printf-style formatting where `a` is a string, else the remainder as Python has it.
///
/// # Errors
/// A format that does not fit its values; values that are neither strings nor numbers; a remainder
/// of 0.
pub(super) fn modulo(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        // Only a tuple holds several values; a list is one.
        let values = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] };
        return format(FormatStyle::Printf, text, &values).map(Value::from);
    }
    let refused = |problem: &str| Error::new(ErrorKind::InvalidOperation, format!("`%`: {problem}"));
    if left.is_integer() && right.is_integer() {
        let [a, b] = [left, right].map(|value| i128::try_from(value.clone()));
        let (a, b) = (a?, b?);
        let remainder = a.checked_rem(b).ok_or_else(|| refused("division by zero"))?;
        return Ok(Value::from(if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder }));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(_), Ok(0.0)) => Err(refused("division by zero")),
        (Ok(a), Ok(b)) => {
            let remainder = a % b;
            let away = remainder != 0.0 && (remainder < 0.0) != (b < 0.0);
            Ok(Value::from(if away { remainder + b } else { remainder }))
        }
        _ => Err(refused(&format!("{} and {} have none", left.kind(), right.kind()))),
    }
}

/// The number of words, as Jinja2 counts them: runs of letters, digits and underscores.
pub(super) fn wordcount(text: &Value) -> usize {
    let text = text.to_string();
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty()).count()
}

/// A method of a value. Those of `minijinja_contrib` come first, then those that it lacks.
///
/// # Errors
/// The method is not known, or refuses its arguments.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(text), "rsplit") => rsplit(text, args),
        (Some(text), "removeprefix") => Ok(Value::from(text.strip_prefix(one(name, args)?).unwrap_or(text))),
        (Some(text), "removesuffix") => Ok(Value::from(text.strip_suffix(one(name, args)?).unwrap_or(text))),
        (Some(text), "partition") => {
            let by = one(name, args)?;
            let parts = text.split_once(by).map_or((text, "", ""), |(before, behind)| (before, by, behind));
            Ok(triple(parts))
        }
        (Some(text), "rpartition") => {
            let by = one(name, args)?;
            let parts = text.rsplit_once(by).map_or(("", "", text), |(before, behind)| (before, by, behind));
            Ok(triple(parts))
        }
        (Some(text), "zfill") => {
            let width = width(name, args)?;
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let zeros = width.saturating_sub(text.chars().count());
            Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(zeros))))
        }
        (Some(text), "ljust") => padded(name, text, args, |room| (0, room)),
        (Some(text), "rjust") => padded(name, text, args, |room| (room, 0)),
        (Some(text), "swapcase") => Ok(Value::from(
            text.chars()
                .flat_map(|letter| match letter.is_uppercase() {
                    true => letter.to_lowercase().collect::<Vec<_>>(),
                    false => letter.to_uppercase().collect(),
                })
                .collect::<String>(),
        )),
        (Some(text), "casefold") => Ok(Value::from(text.to_lowercase())),
        (Some(text), "isdecimal") => {
            Ok(Value::from(!text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit())))
        }
        (Some(text), "index") => position(text.find(one(name, args)?), text),
        (Some(text), "rindex") => position(text.rfind(one(name, args)?), text),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `rsplit(sep=None, maxsplit=-1)`.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (by, most): (Option<&str>, Option<i64>) = minijinja::value::from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let mut parts: Vec<String> = Vec::new();
    match by {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "rsplit: empty separator")),
        Some(by) => match most {
            Some(most) => parts.extend(text.rsplitn(most.saturating_add(1), by).map(str::to_owned)),
            None => parts.extend(text.rsplit(by).map(str::to_owned)),
        },
        None => {
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let word = match most {
                    Some(most) if parts.len() == most => rest,
                    _ => rest.rsplit(char::is_whitespace).next().unwrap_or(rest),
                };
                parts.push(word.to_owned());
                rest = rest[..rest.len() - word.len()].trim_end();
            }
        }
    }
    parts.reverse();
    Ok(Value::from(parts))
}

/// The one argument, a string.
fn one<'a>(name: &str, args: &'a [Value]) -> Result<&'a str, Error> {
    match args {
        [value] => value.as_str(),
        _ => None,
    }
    .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{name} takes one string")))
}

fn triple((before, by, behind): (&str, &str, &str)) -> Value {
    Value::from(minijinja::value::Tuple::new([before, by, behind].map(Value::from).to_vec()))
}

/// Widest padded text, so that a template cannot ask for all memory.
const WIDEST: usize = 100_000;

fn width(name: &str, args: &[Value]) -> Result<usize, Error> {
    let width = args.first().and_then(Value::as_i64).and_then(|width| usize::try_from(width.max(0)).ok());
    width
        .filter(|width| *width <= WIDEST)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{name} takes a width of at most {WIDEST}")))
}

fn padded(name: &str, text: &str, args: &[Value], sides: fn(usize) -> (usize, usize)) -> Result<Value, Error> {
    let filler = args.get(1).map_or(Some(" "), Value::as_str).filter(|filler| filler.chars().count() == 1);
    let filler =
        filler.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{name} fills with one letter")))?;
    let (left, right) = sides(width(name, args)?.saturating_sub(text.chars().count()));
    Ok(Value::from(format!("{}{text}{}", filler.repeat(left), filler.repeat(right))))
}

/// Where a text was found, in letters; Python raises an error where it was not.
fn position(found: Option<usize>, text: &str) -> Result<Value, Error> {
    let at = found.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
    Ok(Value::from(text[..at].chars().count()))
}
