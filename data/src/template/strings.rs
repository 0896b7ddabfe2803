//! Python's methods of strings.

use minijinja::value::Tuple;
use minijinja::{Error, State, Value};

use super::arguments::{WIDEST, bound, integer, string, wrong};
use super::format;
use super::text::{is_printable, is_space};

/// A method of a string; none where it is not one of those here.
///
/// # Errors
/// The method refuses its arguments, as Python does, or would write too much.
pub(super) fn method(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let one = || bound(name, args, ["text"]);
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let [letters] = bound(name, args, ["chars"])?;
            Value::from(stripped(name, text, letters.as_ref())?)
        }
        "split" | "rsplit" => {
            let [by, most] = bound(name, args, ["sep", "maxsplit"])?;
            let most = integer(name, most.as_ref())?.and_then(|most| usize::try_from(most).ok());
            Value::from(split(name, text, by.filter(|by| !by.is_none()).as_ref(), most)?)
        }
        "splitlines" => {
            let [ends] = bound(name, args, ["keepends"])?;
            Value::from(lines(text, ends.is_some_and(|ends| ends.is_true())))
        }
        "startswith" | "endswith" => Value::from(starts_or_ends(name, text, args)?),
        "find" | "rfind" | "index" | "rindex" | "count" => found(name, text, args)?,
        "replace" => {
            let [old, new, count] = bound(name, args, ["old", "new", "count"])?;
            let (old, new) = (string(name, old.as_ref())?, string(name, new.as_ref())?);
            let most = integer(name, count.as_ref())?.and_then(|count| usize::try_from(count).ok());
            let times = text.matches(old).count().min(most.unwrap_or(usize::MAX));
            state.consume_fuel(times.saturating_mul(new.len()) as u64 / 64)?;
            Value::from(text.replacen(old, new, times))
        }
        "join" => {
            let [items] = bound(name, args, ["iterable"])?;
            let items = items.ok_or_else(|| wrong(name, "takes a list of strings"))?;
            let mut out = String::new();
            for (index, item) in items.try_iter()?.enumerate() {
                let item = string("join", Some(&item))?.to_owned();
                state.consume_fuel(1 + (text.len() + item.len()) as u64 / 64)?;
                out.push_str(if index > 0 { text } else { "" });
                out.push_str(&item);
            }
            Value::from(out)
        }
        "format" => Value::from(format::braces(state, text, args)?),
        "removeprefix" => Value::from(text.strip_prefix(string(name, one()?[0].as_ref())?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(string(name, one()?[0].as_ref())?).unwrap_or(text)),
        "partition" | "rpartition" => {
            let [by] = one()?;
            let by = string(name, by.as_ref())?;
            if by.is_empty() {
                return Err(wrong(name, "takes no empty separator"));
            }
            let (before, by, behind) = match name {
                "partition" => text.split_once(by).map_or((text, "", ""), |(before, behind)| (before, by, behind)),
                _ => text.rsplit_once(by).map_or(("", "", text), |(before, behind)| (before, by, behind)),
            };
            Value::from(Tuple::new([before, by, behind].map(Value::from).to_vec()))
        }
        "zfill" => {
            let [width] = bound(name, args, ["width"])?;
            let zeros = room(name, text, width.as_ref())?;
            let sign = text.len() - text.strip_prefix(['-', '+']).unwrap_or(text).len();
            Value::from(format!("{}{}{}", &text[..sign], "0".repeat(zeros), &text[sign..]))
        }
        "ljust" | "rjust" | "center" => {
            let [width, filler] = bound(name, args, ["width", "fillchar"])?;
            let filler = filler.as_ref().map_or(Ok(" "), |filler| string(name, Some(filler)))?;
            let width_of_text = text.chars().count();
            let room = room(name, text, width.as_ref())?;
            if filler.chars().count() != 1 {
                return Err(wrong(name, "fills with one letter"));
            }
            let left = match name {
                "ljust" => 0,
                "rjust" => room,
                // Where the room is odd, Python puts the odd letter before if the width is odd.
                _ => room / 2 + (room & (room + width_of_text) & 1),
            };
            Value::from(format!("{}{text}{}", filler.repeat(left), filler.repeat(room - left)))
        }
        "title" => Value::from(title(text)),
        "istitle" => Value::from(text.chars().any(is_cased) && title(text) == text),
        "swapcase" => Value::from(
            text.chars()
                .flat_map(|letter| match letter.is_uppercase() {
                    true => letter.to_lowercase().collect::<Vec<_>>(),
                    false => letter.to_uppercase().collect(),
                })
                .collect::<String>(),
        ),
        "casefold" if text.is_ascii() => Value::from(text.to_lowercase()),
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "isprintable" => Value::from(text.chars().all(is_printable)),
        "isdigit" | "isdecimal" | "isnumeric" => {
            // Which letters beyond ASCII are digits, and which only numerals, needs Unicode's tables.
            let is_unclear = |letter: char| {
                !letter.is_ascii() && (letter.is_numeric() || (name == "isnumeric" && letter >= '\u{3000}'))
            };
            if text.chars().any(is_unclear) {
                return Err(wrong(name, "is not supported for numerals beyond ASCII"));
            }
            Value::from(!text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit()))
        }
        "isidentifier" if text.is_ascii() => {
            let is_name = |letter: char| letter == '_' || letter.is_alphanumeric();
            Value::from(
                !text.starts_with(|letter: char| letter.is_ascii_digit())
                    && !text.is_empty()
                    && text.chars().all(is_name),
            )
        }
        "expandtabs" => {
            let [size] = bound(name, args, ["tabsize"])?;
            let size = integer(name, size.as_ref())?.unwrap_or(8).max(0);
            let size = usize::try_from(size).ok().filter(|size| *size <= 256);
            let size = size.ok_or_else(|| wrong(name, "takes a size of at most 256"))?;
            state.consume_fuel((text.matches('\t').count() * size) as u64 / 64)?;
            Value::from(without_tabs(text, size))
        }
        _ => return Ok(None),
    }))
}

/// `strip` and its halves; without letters they take off space.
pub(super) fn stripped<'t>(name: &str, text: &'t str, letters: Option<&Value>) -> Result<&'t str, Error> {
    let letters = match letters.filter(|letters| !letters.is_none()) {
        Some(letters) => Some(string(name, Some(letters))?),
        None => None,
    };
    let goes = |letter: char| letters.map_or_else(|| is_space(letter), |letters| letters.contains(letter));
    Ok(match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    })
}

fn split(name: &str, text: &str, by: Option<&Value>, most: Option<usize>) -> Result<Vec<String>, Error> {
    let parts = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let Some(by) = by else { return Ok(words(name, text, parts)) };
    let by = string(name, Some(by))?;
    if by.is_empty() {
        return Err(wrong(name, "takes no empty separator"));
    }
    Ok(match name {
        "split" => text.splitn(parts, by).map(str::to_owned).collect(),
        _ => {
            let mut found: Vec<_> = text.rsplitn(parts, by).map(str::to_owned).collect();
            found.reverse();
            found
        }
    })
}

/// Words between spaces, `parts` at most; the last one, or for `rsplit` the first, has the rest.
fn words(name: &str, text: &str, parts: usize) -> Vec<String> {
    let mut found = Vec::new();
    if name == "split" {
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() {
            if found.len() + 1 == parts {
                found.push(rest.to_owned());
                break;
            }
            let end = rest.find(is_space).unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            rest = rest[end..].trim_start_matches(is_space);
        }
        return found;
    }
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        let word = if found.len() + 1 == parts { rest } else { rest.rsplit(is_space).next().unwrap_or(rest) };
        found.push(word.to_owned());
        rest = rest[..rest.len() - word.len()].trim_end_matches(is_space);
    }
    found.reverse();
    found
}

/// Lines, as `splitlines` has them.
pub(super) fn lines(text: &str, ends: bool) -> Vec<String> {
    const BREAKS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(BREAKS).unwrap_or(rest.len());
        let length = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            Some(letter) => letter.len_utf8(),
            None => 0,
        };
        found.push(rest[..if ends { end + length } else { end }].to_owned());
        rest = &rest[end + length..];
    }
    found
}

fn starts_or_ends(name: &str, text: &str, args: &[Value]) -> Result<bool, Error> {
    let [one, start, end] = bound(name, args, ["text", "start", "end"])?;
    let one = one.ok_or_else(|| wrong(name, "takes a string or a tuple of strings"))?;
    let Some((_, part)) = part(name, text, start.as_ref(), end.as_ref())? else { return Ok(false) };
    let fits = |one: &str| if name == "startswith" { part.starts_with(one) } else { part.ends_with(one) };
    if !one.is_tuple() {
        return Ok(fits(string(name, Some(&one))?));
    }
    for one in one.try_iter()? {
        if fits(string(name, Some(&one))?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `text[start:end]` and the letters before it; none where it starts behind the end.
fn part<'t>(
    name: &str,
    text: &'t str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Result<Option<(usize, &'t str)>, Error> {
    let (start, end) = (integer(name, start)?, integer(name, end)?);
    if start.is_none() && end.is_none() {
        return Ok(Some((0, text)));
    }
    let letters = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at.saturating_add(letters).max(0) } else { at };
    let (start, end) = (from_end(start.unwrap_or(0)), from_end(end.unwrap_or(letters)).min(letters));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i64| {
        let at = usize::try_from(at).unwrap_or(0);
        text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
    };
    Ok(Some((usize::try_from(start).unwrap_or(0), &text[byte(start)..byte(end)])))
}

/// `find` and its kin count in letters.
fn found(name: &str, text: &str, args: &[Value]) -> Result<Value, Error> {
    let [one, start, end] = bound(name, args, ["text", "start", "end"])?;
    let one = string(name, one.as_ref())?;
    let part = part(name, text, start.as_ref(), end.as_ref())?;
    let at = part.and_then(|(before, part)| match name {
        "count" => Some(match one {
            "" => part.chars().count() + 1,
            _ => part.matches(one).count(),
        }),
        "find" | "index" => part.find(one).map(|at| before + part[..at].chars().count()),
        _ => part.rfind(one).map(|at| before + part[..at].chars().count()),
    });
    match (at, name) {
        (Some(at), _) => Ok(Value::from(at)),
        (None, "count") => Ok(Value::from(0)),
        (None, "index" | "rindex") => Err(wrong(name, "does not find its text")),
        (None, _) => Ok(Value::from(-1)),
    }
}

/// Letters that are missing to a width.
fn room(name: &str, text: &str, width: Option<&Value>) -> Result<usize, Error> {
    let width = integer(name, width)?.ok_or_else(|| wrong(name, "takes a width"))?.max(0);
    let width = usize::try_from(width).ok().filter(|width| *width <= WIDEST);
    let width = width.ok_or_else(|| wrong(name, &format!("takes a width of at most {WIDEST}")))?;
    Ok(width.saturating_sub(text.chars().count()))
}

fn is_cased(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase()
}

/// Every letter that follows no letter large, all others small.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut follows = false;
    for letter in text.chars() {
        match follows {
            true => out.extend(letter.to_lowercase()),
            false => out.extend(letter.to_uppercase()),
        }
        follows = is_cased(letter);
    }
    out
}

fn without_tabs(text: &str, size: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for letter in text.chars() {
        match letter {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\t' => {}
            _ => {
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
                out.push(letter);
            }
        }
    }
    out
}
