//! Jinja2's filters and tests where minijinja's are others.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::arguments::{WIDEST, bound, integer, wrong};
use super::text::text;
use super::{format, json, source, strings};

/// Puts Jinja2's filters and tests into place, and takes away what transformers has not or has
/// otherwise: templates that use it are refused by its name.
pub(super) fn set_up(environment: &mut Environment<'_>) {
    for name in ["split", "lines", "bool", "chain", "zip", "pprint", "attr"] {
        environment.remove_filter(name);
    }
    environment.add_filter(source::MODULO, super::python::modulo);
    environment.add_filter(source::ITEMS, items);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("string", |state: &State<'_, '_>, value: &Value| text(state, value));
    environment.add_filter("list", list);
    environment.add_filter("join", join);
    environment.add_filter("trim", trim);
    environment.add_filter("center", center);
    environment.add_filter("indent", indent);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("format", |state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
        let format = text(state, value)?;
        let args = args.into_values();
        match args.split_last() {
            Some((last, [])) if last.is_kwargs() => {
                let keys = last.try_iter()?.map(|key| last.get_item(&key).map(|value| (key, value)));
                format::percent(state, &format, &Value::from_pairs(keys.collect::<Result<Vec<_>, _>>()?))
            }
            _ => {
                let values = Value::from(minijinja::value::Tuple::new(args));
                format::percent(state, &format, &values)
            }
        }
    });
    for name in ["escape", "e", "forceescape"] {
        environment.add_filter(name, escape);
    }
    // minijinja goes over none as over an empty list.
    environment.add_test("iterable", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Iterable | Map | Undefined)
    });
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Iterable | Map | Undefined)
    });
}

/// What a loop goes over. Python has no loop over none, and minijinja one over nothing.
fn items(value: Value) -> Result<Value, Error> {
    match value.is_none() {
        true => Err(wrong("a loop", "goes over none, which has no items")),
        false => Ok(value),
    }
}

fn list(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(wrong("list", "takes what has items, and is given none"));
    }
    if let Some(text) = value.as_str() {
        state.consume_fuel(text.len() as u64)?;
    }
    minijinja::filters::list(state, value)
}

/// The number of words, as Jinja2 counts them: runs of letters, digits and underscores.
fn wordcount(state: &State<'_, '_>, value: &Value) -> Result<usize, Error> {
    let text = text(state, value)?;
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    Ok(words.filter(|word| !word.is_empty()).count())
}

fn join(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [by, attribute] = bound("join", &args.into_values(), ["d", "attribute"])?;
    let by = by.map_or_else(|| Ok(String::new()), |by| text(state, &by))?;
    let mut out = String::new();
    for (index, item) in items(value.clone())?.try_iter()?.enumerate() {
        let mut item = item;
        if let Some(path) = &attribute {
            for key in text(state, path)?.split('.') {
                item = match key.parse::<usize>() {
                    Ok(index) => item.get_item(&Value::from(index))?,
                    Err(_) => item.get_attr(key)?,
                };
            }
        }
        let item = text(state, &item)?;
        state.consume_fuel(1 + (by.len() + item.len()) as u64 / 64)?;
        out.push_str(if index > 0 { &by } else { "" });
        out.push_str(&item);
    }
    Ok(out)
}

fn trim(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [letters] = bound("trim", &args.into_values(), ["chars"])?;
    let text = text(state, value)?;
    strings::stripped("strip", &text, letters.as_ref()).map(str::to_owned)
}

fn center(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [width] = bound("center", &args.into_values(), ["width"])?;
    let text = text(state, value)?;
    let centred = strings::method(state, &text, "center", &[width.unwrap_or_else(|| Value::from(80))])?;
    Ok(centred.unwrap_or_default())
}

/// Jinja2's `indent(width=4, first=false, blank=false)`.
fn indent(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [width, first, blank] = bound("indent", &args.into_values(), ["width", "first", "blank"])?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(first), is_true(blank));
    let indent = match width.as_ref().and_then(Value::as_str) {
        Some(indent) => indent.to_owned(),
        None => {
            let width = usize::try_from(integer("indent", width.as_ref())?.unwrap_or(4).max(0)).unwrap_or(usize::MAX);
            if width > WIDEST {
                return Err(wrong("indent", &format!("takes a width of at most {}", WIDEST)));
            }
            " ".repeat(width)
        }
    };
    // Jinja2 puts a line break behind, so that a last empty line counts.
    let lines = strings::lines(&(text(state, value)? + "\n"), false);
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        state.consume_fuel(1 + (indent.len() + line.len()) as u64 / 64)?;
        out.push_str(if index > 0 { "\n" } else { "" });
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn default(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other, also_false] = bound("default", &args.into_values(), ["default_value", "boolean"])?;
    let is_missing = value.is_undefined() || (also_false.is_some_and(|also| also.is_true()) && !value.is_true());
    Ok(if is_missing { other.unwrap_or_else(|| Value::from("")) } else { value })
}

/// Python's `int`, then `int(float)`, then the default.
fn int(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default, base] = bound("int", &args.into_values(), ["default", "base"])?;
    let base = integer("int", base.as_ref())?.unwrap_or(10);
    let default = default.unwrap_or_else(|| Value::from(0));
    let whole = match value.kind() {
        ValueKind::Undefined => return Err(wrong("int", "is given an undefined value")),
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => return Ok(value.clone()),
        ValueKind::Number => cut(f64::try_from(value.clone())?)?,
        ValueKind::String => {
            let text = without_underscores(value.as_str().unwrap_or_default());
            match (whole(&text, base)?, decimal(&text)) {
                (Some(whole), _) => Some(whole),
                (None, Some(number)) => cut(number)?,
                (None, None) => None,
            }
        }
        _ => None,
    };
    Ok(whole.map_or(default, Value::from))
}

fn whole(text: &str, base: i64) -> Result<Option<i128>, Error> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    let prefixes: &[&str] = match base {
        2 => &["0b", "0B"],
        8 => &["0o", "0O"],
        16 => &["0x", "0X"],
        _ => &[],
    };
    let digits = prefixes.iter().find_map(|prefix| digits.strip_prefix(*prefix)).unwrap_or(digits);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| wrong("int", "takes a base from 2 to 36"))?;
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Ok(None);
    }
    let read = i128::from_str_radix(&format!("{sign}{digits}"), base);
    read.map(Some).map_err(|_| wrong("int", "is given a larger number than is supported"))
}

/// Underscores may stand between digits.
fn without_underscores(text: &str) -> String {
    let text = text.trim_matches(super::text::is_space);
    let letters: Vec<char> = text.chars().collect();
    let is_between = |at: usize| {
        at > 0
            && letters[at - 1].is_ascii_alphanumeric()
            && letters.get(at + 1).is_some_and(char::is_ascii_alphanumeric)
    };
    let kept = letters.iter().enumerate().filter(|(at, letter)| **letter != '_' || !is_between(*at));
    kept.map(|(_, letter)| *letter).collect()
}

fn decimal(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A float without what is behind the point; none for one that is not a number.
fn cut(number: f64) -> Result<Option<i128>, Error> {
    if number.is_nan() {
        return Ok(None);
    }
    if number.abs() >= 1e38 {
        return Err(wrong("int", "is given a larger number than is supported"));
    }
    Ok(Some(number.trunc() as i128))
}

fn float(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default] = bound("float", &args.into_values(), ["default"])?;
    let number = match value.kind() {
        ValueKind::Undefined => return Err(wrong("float", "is given an undefined value")),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => Some(f64::try_from(value.clone())?),
        ValueKind::String => decimal(&without_underscores(value.as_str().unwrap_or_default())),
        _ => None,
    };
    Ok(number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

/// Python's `markupsafe.escape`.
fn escape(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let text = text(state, value)?;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(letter),
        }
    }
    Ok(out)
}
