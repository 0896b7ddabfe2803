//! The privacy loss distribution of Poisson-sampled Gaussian releases, composed by FFT.
//!
//! Sommer, Meiser and Mohammadi 2019 and Koskela, Jalko and Honkela 2020 for the
//! composition; Doroshenko et al., "Connect the Dots" (2022), for a discretisation that
//! never understates a loss. Losses of both directions (the record removed, the record
//! added) are composed, and the larger figure counts.

mod compose;
pub(crate) mod error;
mod loss;

use crate::event::Event;
use crate::gaussian;
use compose::{Composed, PldGrid};
use error::PldError;
use loss::StepKind;

/// Kinds of step one answer may mix: each takes a transform of a million points.
const MAX_KINDS: usize = 12;
/// Each step multiplies a rounding of 2^-53 into every frequency.
const MAX_STEPS: u64 = 100_000_000;
/// Rounding in a transform leaves about 1e-13 of mass where there is none.
const MIN_DELTA: f64 = 1e-11;

/// The smallest epsilon of `events` at `delta`, which the caller keeps in (0, 1).
pub(crate) fn epsilon(events: &[Event], delta: f64) -> Result<f64, PldError> {
    match kinds(events)?.as_slice() {
        [] => Ok(0.0),
        // Noise so large that the precision underflows hides everything.
        [kind] if kind.is_plain() => Ok(gaussian::epsilon(1.0 / kind.sigma, delta)),
        _ if delta < MIN_DELTA => Err(PldError::Resolution { delta }),
        kinds => {
            let answers = both(kinds)?.map(|composed| composed.epsilon(delta));
            let [remove, add] = answers;
            Ok(remove?.max(add?))
        }
    }
}

/// The smallest delta of `events` at `epsilon`, which the caller keeps finite and not negative.
pub(crate) fn delta(events: &[Event], epsilon: f64) -> Result<f64, PldError> {
    match kinds(events)?.as_slice() {
        [] => Ok(0.0),
        [kind] if kind.is_plain() => Ok(gaussian::delta(1.0 / kind.sigma, epsilon)),
        kinds => {
            let [remove, add] = both(kinds)?.map(|composed| composed.delta(epsilon));
            Ok(remove.max(add).min(1.0))
        }
    }
}

fn both(kinds: &[StepKind]) -> Result<[Composed; 2], PldError> {
    PldGrid::around(kinds)?.compose(kinds)
}

/// The kinds of step in `events`; those without sampling are one Gaussian release together.
fn kinds(events: &[Event]) -> Result<Vec<StepKind>, PldError> {
    let mut kinds: Vec<StepKind> = Vec::new();
    let mut plain_precision = 0.0;
    for event in events.iter().filter(|event| event.steps() > 0) {
        let sigma = event.noise_multiplier();
        let rate = event.sampling_rate();
        let steps = event.steps();
        if rate == 1.0 {
            plain_precision += steps as f64 / (sigma * sigma);
            continue;
        }
        match kinds.iter_mut().find(|kind| kind.sigma == sigma && kind.rate == rate) {
            Some(kind) => kind.steps = kind.steps.saturating_add(steps),
            None => kinds.push(StepKind { sigma, rate, steps }),
        }
    }
    let steps = kinds.iter().fold(0u64, |sum, kind| sum.saturating_add(kind.steps));
    if steps > MAX_STEPS {
        return Err(PldError::Steps { steps });
    }
    if plain_precision.is_infinite() {
        return Err(PldError::Reach { reach: f64::INFINITY });
    }
    if plain_precision > 0.0 {
        kinds.push(StepKind { sigma: 1.0 / plain_precision.sqrt(), rate: 1.0, steps: 1 });
    }
    if kinds.len() > MAX_KINDS {
        return Err(PldError::Kinds { kinds: kinds.len() });
    }
    Ok(kinds)
}
