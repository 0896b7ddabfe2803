//! A method's settings, checked and with defaults filled in.

use std::collections::{BTreeMap, BTreeSet};

use rondo_proto::nearest::nearest;
use rondo_proto::run_file::MethodChoice;

use crate::error::MethodError;

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number from `min` to `max`, both included.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A finite number above zero.
    Positive,
    /// A finite number of zero or more.
    NonNegative,
    /// A number from 0 to 1, both included.
    Fraction,
    /// `true` or `false`.
    Toggle,
    /// A list of whole numbers from `min` to `max`, both included.
    Counts {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A list of words, none empty and none twice.
    Names,
}

/// One option of a method, as `rondo method list` shows it and as the run file is checked against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionSpec {
    /// Key in the `[method]` table.
    pub name: &'static str,
    /// Values it takes.
    pub kind: OptionKind,
    /// Value when the run file is silent, as it would be written there; `None` = the method decides
    /// (see `help`).
    pub default: Option<&'static str>,
    /// What it does, in one line.
    pub help: &'static str,
}

/// A checked option value.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// A word.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number.
    Number(f64),
    /// A choice of yes or no.
    Toggle(bool),
    /// Whole numbers.
    Counts(Vec<u64>),
    /// Words.
    Names(Vec<String>),
}

/// Settings of a method in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodConfig {
    /// The run's rank r, at least 1.
    pub rank: usize,
    /// LoRA's alpha. Where every client has an adapter of its own (FLoRA, FlexLoRA) the scale is
    /// alpha over the client's rank; where all share one basis (FFA-LoRA, RoLoRA, zero padding) it
    /// is the basis' own, alpha over the run's rank.
    pub alpha: f64,
    /// The run's learning rate.
    pub lr: f64,
    /// The run's seed.
    pub seed: u64,
    /// Checked options with defaults.
    pub options: BTreeMap<String, OptionValue>,
}

impl MethodConfig {
    /// Checks a run file's `[method]` table against a method's options.
    ///
    /// # Errors
    /// A key is no option of the method, an option's value is not allowed, or `alpha` is not finite
    /// and above 0.
    pub fn new(choice: &MethodChoice, specs: &[OptionSpec], lr: f64, seed: u64) -> Result<Self, MethodError> {
        for key in choice.options.keys() {
            if !specs.iter().any(|spec| spec.name == key) {
                return Err(MethodError::UnknownOption {
                    method: choice.id.clone(),
                    option: key.clone(),
                    nearest: nearest(key, specs.iter().map(|spec| spec.name)).map(str::to_owned),
                    known: specs.iter().map(|spec| spec.name.to_owned()).collect(),
                });
            }
        }
        let mut options = BTreeMap::new();
        for spec in specs {
            let given = match (choice.options.get(spec.name), spec.default) {
                (Some(value), _) => value.clone(),
                (None, Some(text)) => default_value(spec, text),
                (None, None) => continue,
            };
            let value = check(spec, &given).map_err(|problem| MethodError::OptionValue {
                method: choice.id.clone(),
                option: spec.name.to_owned(),
                problem,
            })?;
            options.insert(spec.name.to_owned(), value);
        }
        let alpha = choice.alpha.unwrap_or(choice.rank as f64);
        if !alpha.is_finite() || alpha <= 0.0 {
            return Err(MethodError::OptionValue {
                method: choice.id.clone(),
                option: "alpha".into(),
                problem: format!("is {alpha}; it must be finite and above 0"),
            });
        }
        Ok(Self { rank: choice.rank, alpha, lr, seed, options })
    }

    /// LoRA's scale at the run's rank, alpha / r.
    pub fn scale(&self) -> f64 {
        self.scale_at(self.rank)
    }

    /// LoRA's scale of an adapter of this rank, alpha / r_k.
    pub fn scale_at(&self, rank: usize) -> f64 {
        self.alpha / rank as f64
    }

    /// A word option.
    pub fn text(&self, option: &str) -> Option<&str> {
        match self.options.get(option) {
            Some(OptionValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole-number option.
    pub fn count(&self, option: &str) -> Option<u64> {
        match self.options.get(option) {
            Some(OptionValue::Count(count)) => Some(*count),
            _ => None,
        }
    }

    /// A yes-or-no option.
    pub fn toggle(&self, option: &str) -> Option<bool> {
        match self.options.get(option) {
            Some(OptionValue::Toggle(toggle)) => Some(*toggle),
            _ => None,
        }
    }

    /// A list-of-whole-numbers option.
    pub fn counts(&self, option: &str) -> Option<&[u64]> {
        match self.options.get(option) {
            Some(OptionValue::Counts(counts)) => Some(counts),
            _ => None,
        }
    }

    /// A list-of-words option.
    pub fn names(&self, option: &str) -> Option<&[String]> {
        match self.options.get(option) {
            Some(OptionValue::Names(names)) => Some(names),
            _ => None,
        }
    }

    /// A number option.
    pub fn number(&self, option: &str) -> Option<f64> {
        match self.options.get(option) {
            Some(OptionValue::Number(number)) => Some(*number),
            _ => None,
        }
    }
}

/// Key under which a default is parsed.
const DEFAULT: &str = "default";

/// A default is written as in a run file; a word needs no quotes.
fn default_value(spec: &OptionSpec, text: &str) -> toml::Value {
    match spec.kind {
        OptionKind::Choice(_) => toml::Value::String(text.to_owned()),
        OptionKind::Count { .. } => {
            text.parse().map_or_else(|_| toml::Value::String(text.to_owned()), toml::Value::Integer)
        }
        OptionKind::Positive | OptionKind::NonNegative | OptionKind::Fraction => {
            text.parse().map_or_else(|_| toml::Value::String(text.to_owned()), toml::Value::Float)
        }
        OptionKind::Toggle | OptionKind::Counts { .. } | OptionKind::Names => {
            let table = toml::from_str::<toml::Table>(&format!("{DEFAULT} = {text}"));
            let value = table.ok().and_then(|mut table| table.remove(DEFAULT));
            value.unwrap_or_else(|| toml::Value::String(text.to_owned()))
        }
    }
}

fn check(spec: &OptionSpec, value: &toml::Value) -> Result<OptionValue, String> {
    match spec.kind {
        OptionKind::Choice(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(OptionValue::Text(word.to_owned())),
            Some(word) => {
                let near = nearest(word, words.iter().copied());
                let hint = near.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
                Err(format!("is \"{word}\"; it takes {}{hint}", quoted(words)))
            }
            None => Err(format!("is {value}; it takes {}", quoted(words))),
        },
        OptionKind::Count { min, max } => match value.as_integer().map(u64::try_from) {
            Some(Ok(count)) if (min..=max).contains(&count) => Ok(OptionValue::Count(count)),
            _ => Err(format!("is {value}; it takes a whole number from {min} to {max}")),
        },
        OptionKind::Positive => number(value, |number| number > 0.0, "a finite number above 0"),
        OptionKind::NonNegative => number(value, |number| number >= 0.0, "a finite number of 0 or more"),
        OptionKind::Fraction => number(value, |number| (0.0..=1.0).contains(&number), "a number from 0 to 1"),
        OptionKind::Toggle => match value.as_bool() {
            Some(toggle) => Ok(OptionValue::Toggle(toggle)),
            None => Err(format!("is {value}; it takes true or false")),
        },
        OptionKind::Counts { min, max } => {
            let count = |value: &toml::Value| value.as_integer().and_then(|whole| u64::try_from(whole).ok());
            let counts: Option<Vec<u64>> = value.as_array().and_then(|list| list.iter().map(count).collect());
            match counts.filter(|counts| counts.iter().all(|count| (min..=max).contains(count))) {
                Some(counts) => Ok(OptionValue::Counts(counts)),
                None => Err(format!("is {value}; it takes a list of whole numbers from {min} to {max}")),
            }
        }
        OptionKind::Names => {
            let name = |value: &toml::Value| value.as_str().map(str::to_owned);
            let names: Option<Vec<String>> = value.as_array().and_then(|list| list.iter().map(name).collect());
            let is_sound = |names: &Vec<String>| {
                let different: BTreeSet<&String> = names.iter().collect();
                different.len() == names.len() && names.iter().all(|name| !name.is_empty())
            };
            match names.filter(is_sound) {
                Some(names) => Ok(OptionValue::Names(names)),
                None => Err(format!("is {value}; it takes a list of different words")),
            }
        }
    }
}

fn number(value: &toml::Value, allowed: fn(f64) -> bool, what: &str) -> Result<OptionValue, String> {
    match value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)) {
        Some(number) if number.is_finite() && allowed(number) => Ok(OptionValue::Number(number)),
        _ => Err(format!("is {value}; it takes {what}")),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}
