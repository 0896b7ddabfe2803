//! Composition of losses by FFT.

use libm::{expm1, log1p};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex64;

use super::error::PldError;
use super::loss::{Direction, Loss, StepKind};
use crate::rdp::{self, is_integer, orders};

/// Points of a transform, where a fine step allows it: an answer takes about half a second.
const POINTS: f64 = 1_048_576.0;
const MAX_POINTS: usize = 1 << 22;
/// Up to this step the figures agree with Google's to six digits; above it more points are taken.
const FINE_STEP: f64 = 1e-4;
/// The coarsest step. Figures rise with it, to the safe side.
const COARSE_STEP: f64 = 1e-3;
/// Losses up to which e^loss is a number.
const MAX_REACH: f64 = 600.0;
/// Minus ln of the mass that may lie outside the window, at either end. It is added to delta.
const LN_TAIL: f64 = 34.5;

/// The grid for a composition, and the tilts at which Chernoff
/// bounds on the composed loss are near their best.
#[derive(Debug, Clone, Copy)]
pub(super) struct PldGrid {
    step: f64,
    upward: f64,
    downward: f64,
}

impl PldGrid {
    /// The finest grid that holds the composed loss. Where that lies is bounded by Renyi
    /// losses of integer orders a: E_P[e^((a-1) L)] = e^((a-1) RDP(a)) in the worse
    /// direction, and E_P[e^(-a L)] = E_Q[e^((1-a) L)].
    pub(super) fn around(kinds: &[StepKind]) -> Result<Self, PldError> {
        let mut reach = kinds.iter().map(StepKind::reach).fold(0.0, f64::max);
        if reach > MAX_REACH {
            return Err(PldError::Reach { reach });
        }
        let mut up = f64::INFINITY;
        let mut upward = 1.0;
        // E_P[e^-L] is at most 1.
        let mut down = LN_TAIL;
        let mut downward = 1.0;
        for order in orders().filter(|&order| is_integer(order)) {
            let step_loss =
                |kind: &StepKind| Some(kind.steps as f64 * rdp::poisson_step(kind.sigma, kind.rate, order)?);
            let Some(loss) = kinds.iter().map(step_loss).sum::<Option<f64>>() else { continue };
            let moment = (order - 1.0) * loss;
            for (bound, best, tilt, end) in [
                ((moment + LN_TAIL) / (order - 1.0), &mut upward, order - 1.0, &mut up),
                ((moment + LN_TAIL) / order, &mut downward, order, &mut down),
            ] {
                if bound < *end {
                    (*end, *best) = (bound, tilt);
                }
            }
        }
        reach = reach.max(up);
        // A tenth for the discretised losses, which spread a little more.
        let width = (1.1 * (up + down)).max(2.0 * reach);
        let mut step = width / POINTS;
        if step > FINE_STEP {
            step = (step / 2.0).max(FINE_STEP);
        }
        if step.is_nan() || step > COARSE_STEP {
            return Err(PldError::Reach { reach });
        }
        Ok(Self { step, upward, downward })
    }

    /// The loss of all steps together, record removed and record added.
    pub(super) fn compose(&self, kinds: &[StepKind]) -> Result<[Composed; 2], PldError> {
        let losses: Vec<[Loss; 2]> = kinds
            .iter()
            .map(|kind| [Direction::Remove, Direction::Add].map(|direction| kind.discretised(direction, self.step)))
            .collect();
        let sum = |direction: usize, of: &dyn Fn(&Loss) -> f64| -> f64 {
            losses.iter().zip(kinds).map(|(loss, kind)| kind.steps as f64 * of(&loss[direction])).sum()
        };
        let end = |tilt: f64| {
            let moments = [0, 1].map(|direction| sum(direction, &|loss| self.ln_moment(loss, tilt)));
            // Not `max`, which would let a NaN pass.
            let larger = if moments[0] < moments[1] { moments[1] } else { moments[0] };
            (larger + LN_TAIL) / tilt.abs()
        };
        let up = end(self.upward);
        let down = end(-self.downward);
        let window = (up + down) / self.step + 4.0;
        if window.is_nan() || window > MAX_POINTS as f64 {
            return Err(PldError::Reach { reach: up });
        }
        let points = (window as usize).next_power_of_two();
        let first = (-down / self.step).floor() as i64 - 1;
        let steps: Vec<u64> = kinds.iter().map(|kind| kind.steps).collect();
        let [remove, add] = power(&losses, &steps, first, points);
        let composed = |direction, masses| Composed {
            masses,
            first,
            step: self.step,
            infinite: -expm1(sum(direction, &|loss| log1p(-loss.infinite))) + 2.0 * (-LN_TAIL).exp(),
        };
        Ok([composed(0, remove), composed(1, add)])
    }

    /// ln E[e^(tilt L)] of the finite losses.
    fn ln_moment(&self, loss: &Loss, tilt: f64) -> f64 {
        let exponents = || {
            let present = loss.masses.iter().enumerate().filter(|&(_, &mass)| mass > 0.0);
            present.map(|(i, &mass)| mass.ln() + tilt * (loss.first + i as i64) as f64 * self.step)
        };
        let largest = exponents().fold(f64::NEG_INFINITY, f64::max);
        largest + exponents().map(|exponent| (exponent - largest).exp()).sum::<f64>().ln()
    }
}

/// The masses of the sums of all losses, in both directions, on `points` nodes from `first`. The
/// transform is cyclic: what lies outside the window falls back into it, which the grid has
/// bounded. Both directions go through one complex transform, as its real and its imaginary part,
/// and come apart again because real signals have symmetric spectra.
fn power(losses: &[[Loss; 2]], steps: &[u64], first: i64, points: usize) -> [Vec<f64>; 2] {
    let mut planner = FftPlanner::new();
    let forward = planner.plan_fft_forward(points);
    let inverse = planner.plan_fft_inverse(points);
    let mut scratch = vec![Complex64::ZERO; forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len())];
    let place = |node: i64| node.rem_euclid(points as i64) as usize;
    let half = points / 2 + 1;
    let mut products = [vec![Complex64::ONE; half], vec![Complex64::ONE; half]];
    let mut signal = vec![Complex64::ZERO; points];
    for ([remove, add], &steps) in losses.iter().zip(steps) {
        signal.fill(Complex64::ZERO);
        for (i, &mass) in remove.masses.iter().enumerate() {
            signal[place(remove.first + i as i64)].re += mass;
        }
        for (i, &mass) in add.masses.iter().enumerate() {
            signal[place(add.first + i as i64)].im += mass;
        }
        forward.process_with_scratch(&mut signal, &mut scratch);
        for k in 0..half {
            let here = signal[k];
            let mirrored = signal[(points - k) % points].conj();
            let even = (here + mirrored) * 0.5;
            let odd = (here - mirrored) * 0.5;
            products[0][k] *= raised(even, steps);
            products[1][k] *= raised(Complex64::new(odd.im, -odd.re), steps);
        }
    }
    let turned = |value: Complex64| Complex64::new(-value.im, value.re);
    for k in 0..half {
        let remove = products[0][k];
        let add = products[1][k];
        signal[k] = remove + turned(add);
        signal[(points - k) % points] = remove.conj() + turned(add.conj());
    }
    inverse.process_with_scratch(&mut signal, &mut scratch);
    let scale = 1.0 / points as f64;
    let masses = |part: fn(&Complex64) -> f64| {
        (0..points as i64).map(|i| (part(&signal[place(first + i)]) * scale).max(0.0)).collect()
    };
    [masses(|value| value.re), masses(|value| value.im)]
}

/// `base` to a power, by squaring. (`powu` stops at 2^32.)
fn raised(mut base: Complex64, mut exponent: u64) -> Complex64 {
    let mut result = Complex64::ONE;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

/// The loss of all releases together, in one direction.
pub(super) struct Composed {
    masses: Vec<f64>,
    first: i64,
    step: f64,
    infinite: f64,
}

impl Composed {
    /// delta = E[(1 - e^(epsilon - L))+].
    pub(super) fn delta(&self, epsilon: f64) -> f64 {
        let finite: f64 = self
            .nodes()
            .take_while(|&(loss, _)| loss > epsilon)
            .map(|(loss, mass)| -mass * expm1(epsilon - loss))
            .sum();
        self.infinite + finite
    }

    /// The smallest epsilon whose delta is at most `delta`.
    pub(super) fn epsilon(&self, delta: f64) -> Result<f64, PldError> {
        if self.infinite > 0.5 * delta {
            return Err(PldError::Resolution { delta });
        }
        // From the top down, with A the mass of the nodes from `loss` on and
        // B its mean of e^(loss - L): delta at an epsilon between this node
        // and the next lower is A - e^(epsilon - loss) B.
        let mut mass_above = 0.0;
        let mut tilted_above = 0.0;
        let shrink = (-self.step).exp();
        for (loss, mass) in self.nodes() {
            mass_above += mass;
            tilted_above = tilted_above * shrink + mass;
            let lower = loss - self.step;
            if lower > 0.0 && mass_above - shrink * tilted_above + self.infinite <= delta {
                continue;
            }
            let excess = mass_above + self.infinite - delta;
            if excess <= 0.0 {
                return Ok(0.0);
            }
            return Ok((loss + (excess / tilted_above).ln()).max(0.0));
        }
        Ok(0.0)
    }

    /// Losses and masses, from the largest loss down.
    fn nodes(&self) -> impl Iterator<Item = (f64, f64)> {
        let masses = self.masses.iter().enumerate().rev();
        masses.map(|(i, &mass)| ((self.first + i as i64) as f64 * self.step, mass))
    }
}
