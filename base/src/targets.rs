//! Which linear layers a run's target patterns name.

use rondo_proto::nearest::nearest;
use rondo_proto::v1;

use crate::error::BaseError;

/// Names every linear layer that may be adapted, as PEFT's `target_modules = "all-linear"` does: a
/// model's output head and a classifier are not among them.
pub const ALL_LINEAR: &str = "all-linear";

/// The linear layers that the patterns name, in the order of the base, each once. A pattern is a
/// layer's full name or a dotted suffix of it ("query", "self.query", "attention.output.dense"), or
/// [`ALL_LINEAR`] in any case.
///
/// # Errors
/// [`BaseError::NoTarget`]: a pattern matches no linear layer.
pub fn find_targets(base: &v1::BaseModel, patterns: &[String]) -> Result<Vec<v1::LinearLayer>, BaseError> {
    for pattern in patterns {
        if !base.linears.iter().any(|linear| matches(&linear.name, pattern)) {
            let mut names: Vec<&str> = Vec::new();
            for linear in &base.linears {
                let name = without_layer(&linear.name);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let parts = names.iter().flat_map(|name| suffixes(name));
            return Err(BaseError::NoTarget {
                pattern: pattern.clone(),
                base: base.name.clone(),
                nearest: nearest(pattern, parts).map(str::to_owned),
                there_are: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
            });
        }
    }
    let wanted = |linear: &&v1::LinearLayer| patterns.iter().any(|pattern| matches(&linear.name, pattern));
    Ok(base.linears.iter().filter(wanted).cloned().collect())
}

fn matches(name: &str, pattern: &str) -> bool {
    pattern.eq_ignore_ascii_case(ALL_LINEAR) || (!pattern.is_empty() && suffixes(name).any(|suffix| suffix == pattern))
}

/// The name itself and what is left of it after each dot.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('.').map(|(at, _)| &name[at + 1..]))
}

/// What comes after the layer's number, which is the same in every layer.
fn without_layer(name: &str) -> &str {
    let mut rest = name;
    for suffix in suffixes(name) {
        let head = suffix.split('.').next().unwrap_or_default();
        if !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit()) {
            rest = suffix.get(head.len() + 1..).unwrap_or(suffix);
        }
    }
    rest
}
