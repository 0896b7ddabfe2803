//! The privacy loss of one step, on a grid.

use libm::{expm1, log1p};

use crate::gaussian::upper_tail;
use crate::rdp::ln_add;

/// `steps` releases with noise `sigma` (over the clip norm) on Poisson samples at `rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StepKind {
    pub(super) sigma: f64,
    pub(super) rate: f64,
    pub(super) steps: u64,
}

/// Which of the two neighbours was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The one with the record: P is the mixture (1-q) N(0,
    /// sigma^2) + q N(1, sigma^2), Q is N(0, sigma^2).
    Remove,
    /// The one without: P and Q change places.
    Add,
}

/// The loss ln(P/Q) under P: mass `masses[i]` at `(first + i) step`, and `infinite` above all.
pub(super) struct Loss {
    pub(super) first: i64,
    pub(super) masses: Vec<f64>,
    pub(super) infinite: f64,
}

/// Beyond so many sigma the mass (1e-19) counts as an infinite loss.
const REACH: f64 = 9.0;

impl StepKind {
    /// Without sampling the composition is a Gaussian release again.
    pub(super) fn is_plain(&self) -> bool {
        self.rate == 1.0
    }

    /// The largest loss of a step that the grid holds.
    pub(super) fn reach(&self) -> f64 {
        let exponent = (2.0 * (1.0 + REACH * self.sigma) - 1.0) / (2.0 * self.sigma * self.sigma);
        if exponent > 50.0 {
            ln_add(log1p(-self.rate), exponent + self.rate.ln())
        } else {
            log1p(self.rate * expm1(exponent))
        }
    }

    /// Range of the losses of a step on the grid.
    pub(super) fn range(&self, direction: Direction) -> (f64, f64) {
        // The mixture is at least (1-q) Q.
        let reach = self.reach();
        let least = -log1p(-self.rate);
        match direction {
            Direction::Remove => (-least.min(reach), reach),
            Direction::Add => (-reach, least.min(reach)),
        }
    }

    /// The x at which ln((1-q) + q exp((2x - 1) / (2
    /// sigma^2))) is `loss`; minus infinity if there is none.
    fn position(&self, loss: f64) -> f64 {
        let q = self.rate;
        let variance = self.sigma * self.sigma;
        let ln_ratio = if self.is_plain() {
            loss
        } else if loss > 50.0 {
            loss + log1p(-(1.0 - q) * (-loss).exp()) - q.ln()
        } else {
            let ratio = expm1(loss) / q;
            if ratio <= -1.0 { f64::NEG_INFINITY } else { log1p(ratio) }
        };
        variance * ln_ratio + 0.5
    }

    /// The losses on the grid of `step`. Each bin's mass under P is split between
    /// its two nodes so that its mass under Q is kept too, which "connects the dots"
    /// of delta as a function of e^epsilon from above.
    pub(super) fn discretised(&self, direction: Direction, step: f64) -> Loss {
        let (low, high) = self.range(direction);
        let first = (low / step).floor() as i64;
        let last = (high / step).ceil() as i64;
        let mut masses = vec![0.0; (last - first + 1) as usize];
        let mut edge = self.edge(direction, first as f64 * step);
        // What lies below the grid is rounded up onto it.
        masses[0] = self.between(direction, &Edge::least(direction), &edge).0;
        let shortest = -expm1(-step);
        for i in 0..masses.len() - 1 {
            let loss = (first + i as i64) as f64 * step;
            let next = self.edge(direction, (first + i as i64 + 1) as f64 * step);
            let (mass_p, mass_q) = self.between(direction, &edge, &next);
            edge = next;
            if mass_p > 0.0 {
                let upper = ((mass_p - loss.exp() * mass_q) / shortest).clamp(0.0, mass_p);
                masses[i + 1] += upper;
                masses[i] += mass_p - upper;
            }
        }
        Loss { first, masses, infinite: self.between(direction, &edge, &Edge::greatest(direction)).0 }
    }

    fn edge(&self, direction: Direction, loss: f64) -> Edge {
        let x = match direction {
            Direction::Remove => self.position(loss),
            Direction::Add => self.position(-loss),
        };
        Edge { without: Tail::beyond(x / self.sigma), with: Tail::beyond((x - 1.0) / self.sigma) }
    }

    /// Mass under (P, Q) of the losses from one edge to a larger one.
    fn between(&self, direction: Direction, from: &Edge, to: &Edge) -> (f64, f64) {
        // The loss falls with x when the record is added.
        let (left, right) = if direction == Direction::Remove { (from, to) } else { (to, from) };
        let without = left.without.until(&right.without);
        let mixture = (1.0 - self.rate) * without + self.rate * left.with.until(&right.with);
        if direction == Direction::Remove { (mixture, without) } else { (without, mixture) }
    }
}

/// An edge of a bin, as seen by N(0, sigma^2) and by N(1, sigma^2).
struct Edge {
    without: Tail,
    with: Tail,
}

impl Edge {
    fn least(direction: Direction) -> Self {
        let x = if direction == Direction::Remove { f64::NEG_INFINITY } else { f64::INFINITY };
        Self { without: Tail::beyond(x), with: Tail::beyond(x) }
    }

    fn greatest(direction: Direction) -> Self {
        Self::least(if direction == Direction::Remove { Direction::Add } else { Direction::Remove })
    }
}

/// A point of the standard normal by the smaller tail it cuts off,
/// so that differences far out keep their digits.
struct Tail {
    mass: f64,
    right: bool,
}

impl Tail {
    fn beyond(z: f64) -> Self {
        Self { mass: upper_tail(z.abs()), right: z > 0.0 }
    }

    /// Mass from here to a point further right, not below zero.
    fn until(&self, to: &Self) -> f64 {
        let mass = match (self.right, to.right) {
            (true, true) => self.mass - to.mass,
            (false, false) => to.mass - self.mass,
            (false, true) => 1.0 - self.mass - to.mass,
            (true, false) => 0.0,
        };
        mass.max(0.0)
    }
}
