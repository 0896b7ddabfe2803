//! The settings and tensors of a method when no run file says more.

use rondo_methods::{At, Method, MethodConfig, Target, TensorSpec};
use rondo_proto::run_file::MethodChoice;

use crate::error::CliError;

/// A method's settings with defaults for what does not matter offline.
///
/// # Errors
/// `alpha` is not finite or not above 0, or a default of the method is not valid.
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

/// The tensors a method has for every target, at rank 1. Their dimensions are known by name
/// ([`TensorSpec::dims`]); their lengths mean nothing.
///
/// # Errors
/// A default of the method is not valid.
pub fn tensors(method: &dyn Method) -> Result<Vec<TensorSpec>, CliError> {
    let target = Target { name: "target".to_owned(), out: 1, inp: 1 };
    let at = At { target: &target, rank: 1, round: None, client: None };
    Ok(method.layout(&config(method, 1, None)?, at))
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
            let tensors = tensors(registry.get(method).unwrap()).unwrap();
            let found = tensors.iter().find(|found| found.part == part).unwrap();
            assert_eq!(found.dims_in_words(), shape, "{method}");
            assert_eq!(found.rank_in(&[5, 5]), Some(5));
            assert_eq!(found.rank_in(&[5]), None);
        }
    }
}
