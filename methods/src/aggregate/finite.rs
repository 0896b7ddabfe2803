//! Results that a number format cannot hold: finite updates can have an infinite product, sum or
//! moment. Such a result is never handed on, and the updates with the largest numbers are named.

use super::input::Contribution;
use crate::error::MethodError;
use crate::file::TensorFile;
use crate::tensor::Tensor;

/// Updates whose largest number is at least this share of the largest of all are named.
const NAMED_FROM: f64 = 1e-3;

/// Refuses a tensor that holds a number that is not finite. `owner` is its target, or the head.
pub(crate) fn check(owner: &str, name: &str, tensor: &Tensor, updates: &[Contribution]) -> Result<(), MethodError> {
    match tensor.data.iter().find(|number| !number.is_finite()) {
        None => Ok(()),
        Some(value) => Err(not_finite(owner, format!("tensor `{name}`"), f64::from(*value), updates)),
    }
}

/// The error for a result `what` of a target that would hold `value`.
pub(crate) fn not_finite(owner: &str, what: String, value: f64, updates: &[Contribution]) -> MethodError {
    let culprits = match culprits(owner, updates) {
        Ok(culprits) => culprits,
        Err(error) => return error,
    };
    MethodError::NotFinite { tensor: what, value, culprits }
}

/// Whose numbers of a target are the largest.
fn culprits(owner: &str, updates: &[Contribution]) -> Result<String, MethodError> {
    let prefix = format!("{owner}.");
    let mut largest = Vec::new();
    for update in updates {
        let file = TensorFile::open(&update.path)?;
        let mut most = 0.0_f64;
        for entry in file.entries().iter().filter(|entry| entry.name.starts_with(&prefix)) {
            file.for_each_block(&entry.name, |block| {
                most = block.iter().fold(most, |most, number| most.max(f64::from(number.abs())));
            })?;
        }
        largest.push((update.client.as_str(), most));
    }
    let most = largest.iter().fold(0.0, |most: f64, (_, own)| most.max(*own));
    let named = largest.iter().filter(|(_, own)| *own >= most * NAMED_FROM);
    let named: Vec<String> = named.map(|(client, own)| format!("{own:.1e} of {client}")).collect();
    Ok(format!("the largest numbers of `{owner}` are {}", named.join(", ")))
}
