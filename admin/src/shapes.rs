//! What the dimensions of a method's tensors stand for. A layout is a function of out, in and rank; asked with three
//! telling numbers, it shows which of its dimensions is which.

use std::fmt;

use rondo_methods::{At, Method, MethodConfig, Target, TensorSpec};
use rondo_proto::run_file::MethodChoice;

use crate::error::CliError;

// Primes, so that no sum or multiple of others is mistaken for one of them.
const OUT: usize = 10_007;
const IN: usize = 10_009;
const RANK: usize = 97;

/// What a dimension is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Output features of the target.
    Out,
    /// Input features of the target.
    In,
    /// The adapter's rank.
    Rank,
    /// Anything else, such as a rank with some columns more.
    Other,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Rank => "r",
            Self::Other => "?",
        })
    }
}

/// One tensor of a target: its specification, and what its dimensions are.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name, role, travel.
    pub spec: TensorSpec,
    /// One per dimension.
    pub dimensions: Vec<Dimension>,
}

/// A method's settings with defaults for what does not matter offline.
pub fn config(method: &dyn Method, rank: usize, alpha: Option<f64>) -> Result<MethodConfig, CliError> {
    let choice = MethodChoice {
        id: method.id().to_owned(),
        rank,
        alpha,
        targets: Vec::new(),
        options: std::collections::BTreeMap::new(),
    };
    Ok(MethodConfig::new(&choice, method.options(), 1e-3, 0)?)
}

/// The tensors a method has for every target.
pub fn parts(method: &dyn Method) -> Result<Vec<Part>, CliError> {
    let config = config(method, RANK, None)?;
    let target = Target { name: "target".to_owned(), out: OUT, inp: IN };
    let dimension = |length: &usize| match *length {
        OUT => Dimension::Out,
        IN => Dimension::In,
        RANK => Dimension::Rank,
        _ => Dimension::Other,
    };
    let part = |spec: TensorSpec| Part { dimensions: spec.shape.iter().map(dimension).collect(), spec };
    let at = At { target: &target, rank: RANK, round: None, client: None };
    Ok(method.layout(&config, at).into_iter().map(part).collect())
}

/// Dimensions as "[out, r]".
pub fn words(dimensions: &[Dimension]) -> String {
    let words: Vec<String> = dimensions.iter().map(Dimension::to_string).collect();
    format!("[{}]", words.join(", "))
}

/// The rank that an actual shape shows, if one of its dimensions is the rank.
pub fn rank_of(part: &Part, shape: &[usize]) -> Option<usize> {
    let place = part.dimensions.iter().position(|dimension| *dimension == Dimension::Rank)?;
    shape.get(place).copied().filter(|_| shape.len() == part.dimensions.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rondo_methods::Registry;

    #[test]
    fn dimensions_of_the_builtin_methods_are_known() {
        let registry = Registry::builtin();
        for (method, part, shape) in [
            ("fedit", "lora_A", "[r, in]"),
            ("ffa-lora", "lora_B", "[out, r]"),
            ("flora", "lora_B", "[out, r]"),
            ("fed-sb", "lora_R", "[r, r]"),
        ] {
            let parts = parts(registry.get(method).unwrap()).unwrap();
            let found = parts.iter().find(|found| found.spec.part == part).unwrap();
            assert_eq!(words(&found.dimensions), shape, "{method}");
            assert_eq!(rank_of(found, &[5, 5]), Some(5));
            assert_eq!(rank_of(found, &[5]), None);
        }
    }
}
