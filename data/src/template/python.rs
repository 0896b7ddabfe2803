//! What templates use of Python beyond Jinja: methods, and `%`.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::{bound, wrong};
use super::{format, strings};

/// `a % b`: printf-style formatting where `a` is a string, else the remainder as Python has it.
///
/// # Errors
/// A format that does not fit its values; values that are neither strings nor numbers; a remainder
/// of 0.
pub(super) fn modulo(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        return format::percent(state, text, right).map(Value::from);
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

/// A method of a value. Those that Python has otherwise than `minijinja_contrib` come first.
///
/// # Errors
/// The method is not known, or refuses its arguments.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = strings::method(state, text, name, args)?
    {
        return Ok(result);
    }
    match (value.kind(), name) {
        (ValueKind::Seq | ValueKind::Map, "copy") => {
            let [] = bound(name, args, [])?;
            Ok(value.clone())
        }
        (ValueKind::Seq, "index") => {
            let [wanted] = bound(name, args, ["value"])?;
            let wanted = wanted.ok_or_else(|| wrong(name, "takes a value"))?;
            let at = value.try_iter()?.position(|item| item == wanted);
            at.map(Value::from).ok_or_else(|| wrong(name, "does not find its value"))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}
