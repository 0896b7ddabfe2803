//! What of a text is the answer, in a form in which equal answers are equal strings.
//!
//! Numbers are compared as decimals, digit by digit and never as floats: `1,234.50`, `$1234.5` and
//! `1234.500` are one answer, and so are `50%` and `50`. A comma between groups of three digits
//! separates thousands; any other comma ends the number.

use rondo_proto::run_file::AnswerRule;

/// What stands before the answer in GSM8K's solutions.
const MARK: &str = "####";
const CURRENCIES: [char; 4] = ['$', '€', '£', '¥'];
/// Decimal exponents beyond this are no answers but hashes and the like.
const MAX_EXPONENT: i64 = 60;

/// The answer in a generated or a reference text; `None` when it holds none.
pub fn extract(rule: AnswerRule, text: &str) -> Option<String> {
    match rule {
        AnswerRule::Number => number(text),
        AnswerRule::Text => words(text),
    }
}

/// The first number behind the last `####`; without one, the last number of the text.
fn number(text: &str) -> Option<String> {
    let marked = text.rfind(MARK).and_then(|at| numbers(&text[at + MARK.len()..]).into_iter().next());
    marked.or_else(|| numbers(text).pop())
}

/// The text in lower case, without punctuation and spaces at its ends, and with single spaces
/// inside.
fn words(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let bare = lower.trim_matches(|c: char| !c.is_alphanumeric());
    // An answer of nothing but signs, such as "+", is one too.
    let kept = if bare.is_empty() { lower.trim() } else { bare };
    let words: Vec<&str> = kept.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// All numbers of a text, in order, in their shortest decimal form.
fn numbers(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let before = |back: usize| at.checked_sub(back).map(|place| chars[place]);
        let starts_with_point =
            chars[at] == '.' && digit(&chars, at + 1) && !before(1).is_some_and(|c| c.is_ascii_digit());
        if !chars[at].is_ascii_digit() && !starts_with_point {
            at += 1;
            continue;
        }
        let sign_back = if before(1).is_some_and(|c| CURRENCIES.contains(&c)) { 2 } else { 1 };
        // Behind a digit, a letter or a bracket the sign is a subtraction's, or a hyphen.
        let negative = matches!(before(sign_back), Some('-' | '−'))
            && !before(sign_back + 1).is_some_and(|c| c.is_alphanumeric() || c == ')' || c == ']');
        let (number, next) = read(&chars, at, negative);
        found.push(number);
        at = next;
    }
    found
}

fn digit(chars: &[char], at: usize) -> bool {
    chars.get(at).is_some_and(char::is_ascii_digit)
}

/// Reads the number that starts at `at`; returns it with the place behind it.
fn read(chars: &[char], mut at: usize, negative: bool) -> (String, usize) {
    let digits = |at: &mut usize, into: &mut String| {
        while digit(chars, *at) {
            into.push(chars[*at]);
            *at += 1;
        }
    };
    let mut whole = String::new();
    digits(&mut at, &mut whole);
    if (1..=3).contains(&whole.len()) {
        let group = |at: usize| (1..=3).all(|ahead| digit(chars, at + ahead)) && !digit(chars, at + 4);
        while chars.get(at) == Some(&',') && group(at) {
            whole.extend(&chars[at + 1..at + 4]);
            at += 4;
        }
    }
    let mut part = String::new();
    if chars.get(at) == Some(&'.') && digit(chars, at + 1) {
        at += 1;
        digits(&mut at, &mut part);
    }
    let exponent = exponent(chars, at);
    let shift = exponent.map_or(0, |(shift, _)| shift);
    (decimal(negative, &whole, &part, shift), exponent.map_or(at, |(_, next)| next))
}

/// `e5`, `E-05`, `e+10` at `at`: the exponent and the place behind it.
fn exponent(chars: &[char], at: usize) -> Option<(i64, usize)> {
    if !matches!(chars.get(at), Some('e' | 'E')) {
        return None;
    }
    let signed = matches!(chars.get(at + 1), Some('+' | '-'));
    let first = at + 1 + usize::from(signed);
    let length = chars[first.min(chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
    let next = first + length;
    if length == 0 || length > 3 || chars.get(next).is_some_and(|c| c.is_alphanumeric()) {
        return None;
    }
    let size: i64 = chars[first..next].iter().collect::<String>().parse().ok()?;
    let shift = if chars[at + 1] == '-' { -size } else { size };
    (size <= MAX_EXPONENT).then_some((shift, next))
}

/// The shortest decimal of `whole.part * 10^shift`.
fn decimal(negative: bool, whole: &str, part: &str, shift: i64) -> String {
    let digits = format!("{whole}{part}");
    let point = whole.len() as i64 + shift;
    let (whole, part) = if point <= 0 {
        (String::new(), format!("{}{digits}", "0".repeat(point.unsigned_abs() as usize)))
    } else if point as usize >= digits.len() {
        (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
    } else {
        let (whole, part) = digits.split_at(point as usize);
        (whole.to_owned(), part.to_owned())
    };
    let whole = whole.trim_start_matches('0');
    let part = part.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative && (whole, part) != ("0", "") { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_table() {
        let table: [(&str, Option<&str>); 43] = [
            ("She has 3 + 4 = 7 apples.\n#### 7", Some("7")),
            ("#### 18", Some("18")),
            ("####18", Some("18")),
            ("#### $1,234.50", Some("1234.5")),
            ("#### 5 apples, 6 pears", Some("5")),
            ("#### 1\nNext question\n#### 2", Some("2")),
            ("7 #### none", Some("7")),
            ("The answer is 12.", Some("12")),
            ("12.0", Some("12")),
            ("12.50", Some("12.5")),
            ("1,234,567", Some("1234567")),
            ("12,34", Some("34")),
            ("1234,567", Some("567")),
            ("1,2345", Some("2345")),
            ("3, 4", Some("4")),
            ("0.5", Some("0.5")),
            (".5", Some("0.5")),
            ("007", Some("7")),
            ("-0.0", Some("0")),
            ("-5", Some("-5")),
            ("it is -5.25 degrees", Some("-5.25")),
            ("−3", Some("-3")),
            ("-$5", Some("-5")),
            ("$-5", Some("-5")),
            ("+8", Some("8")),
            ("9-3", Some("3")),
            ("x-3", Some("3")),
            ("(2)-3", Some("3")),
            ("= -3", Some("-3")),
            ("=-3", Some("-3")),
            ("50%", Some("50")),
            ("50.0 %", Some("50")),
            ("€20", Some("20")),
            ("the 3rd", Some("3")),
            ("1e3", Some("1000")),
            ("1.5E-05", Some("0.000015")),
            ("2e", Some("2")),
            ("3e4x", Some("4")),
            ("100000000000000000001", Some("100000000000000000001")),
            ("$x=\\boxed{42}$", Some("42")),
            ("1.2.3", Some("3")),
            ("no number", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(extract(AnswerRule::Number, text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn texts_by_table() {
        let table = [
            (" Paris. ", Some("paris")),
            ("\"New   York\n City\"!", Some("new york city")),
            ("the U.S.", Some("the u.s")),
            ("ÉTÉ", Some("été")),
            ("+", Some("+")),
            (" \n", None),
        ];
        for (text, expected) in table {
            assert_eq!(extract(AnswerRule::Text, text).as_deref(), expected, "{text:?}");
        }
    }
}
