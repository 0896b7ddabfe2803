//! Arguments of Python's functions: by place and by name.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};

/// Widest padded text, so that a template cannot ask for all memory.
pub(super) const WIDEST: usize = 100_000;

/// The arguments of `function` in the order of `names`, each given by place or by name.
///
/// # Errors
/// More arguments than names, a name that is not known, or one given twice.
pub(super) fn bound<const N: usize>(
    function: &str,
    args: &[Value],
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    let (by_place, by_name) = match args.split_last() {
        Some((last, others)) if last.is_kwargs() => (others, Kwargs::try_from(last.clone())?),
        _ => (args, Kwargs::try_from(Value::UNDEFINED)?),
    };
    if by_place.len() > N {
        return Err(Error::new(
            ErrorKind::TooManyArguments,
            format!("{function} takes {N} arguments at most, and is given {}", by_place.len()),
        ));
    }
    let mut values = names.map(|_| None);
    for (value, given) in values.iter_mut().zip(by_place) {
        *value = Some(given.clone());
    }
    for (name, value) in names.iter().zip(&mut values) {
        if by_name.has(name) {
            if value.is_some() {
                return Err(Error::new(ErrorKind::TooManyArguments, format!("{function} is given `{name}` twice")));
            }
            *value = Some(by_name.get::<Value>(name)?);
        }
    }
    by_name.assert_all_used().map_err(|error| {
        Error::new(ErrorKind::TooManyArguments, format!("{function} has an {}", error.detail().unwrap_or_default()))
    })?;
    Ok(values)
}

/// An argument that must be a string.
///
/// # Errors
/// It is missing, or none.
pub(super) fn string<'v>(function: &str, value: Option<&'v Value>) -> Result<&'v str, Error> {
    value.and_then(Value::as_str).ok_or_else(|| wrong(function, "takes a string"))
}

/// An argument that may be a whole number.
///
/// # Errors
/// It is given and is none.
pub(super) fn integer(function: &str, value: Option<&Value>) -> Result<Option<i64>, Error> {
    match value.filter(|value| !value.is_none()) {
        None => Ok(None),
        Some(value) if value.is_integer() => {
            value.as_i64().map(Some).ok_or_else(|| wrong(function, "takes smaller numbers"))
        }
        Some(value) => Err(wrong(function, &format!("takes a whole number, and is given a {}", value.kind()))),
    }
}

pub(super) fn wrong(function: &str, problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{function} {problem}"))
}
