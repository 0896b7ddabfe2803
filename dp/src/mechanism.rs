//! The Gaussian mechanism on a lattice, as an opendp measurement.

use opendp::core::{Function, Measurement};
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::error::Error as OpendpError;
use opendp::measurements::make_gaussian;
use opendp::measures::ZeroConcentratedDivergence;
use opendp::metrics::L2Distance;
use std::cell::RefCell;

use crate::lattice::{Lattice, LatticeError};
use crate::sampler::{DiscreteGaussian, ScaleError};
use crate::secure_rng::{EntropyError, SecureRng};

type Sums = VectorDomain<AtomDomain<i64>>;
type Released = Measurement<Sums, L2Distance<f64>, ZeroConcentratedDivergence, Vec<f64>>;

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum MechanismError {
    /// A sum of another length.
    #[error("the sum has {got} numbers where the mechanism was built for {dimension}")]
    Length {
        /// Length of the sum.
        got: usize,
        /// Length the mechanism has.
        dimension: usize,
    },
    /// A noise without a lattice.
    #[error(transparent)]
    Lattice(#[from] LatticeError),
    /// A noise the sampler cannot draw.
    #[error(transparent)]
    Scale(#[from] ScaleError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// opendp refused. The text is about the mechanism, never about the data.
    #[error("opendp refused the mechanism: {0}")]
    Opendp(String),
}

/// Adds discrete Gaussian noise to a sum of clipped contributions, and scales the result back.
///
/// The privacy map is the one opendp gives for its own `make_gaussian` over integer vectors (rho =
/// m^2 / (2 s^2), by Canonne, Kamath and Steinke 2020, theorem 14); the draws are ours
/// ([`DiscreteGaussian`]), as exact and some fifteen times faster. opendp's objects cannot change
/// threads, so they are built for each call; this type can.
#[derive(Debug, Clone)]
pub struct GaussianMechanism {
    lattice: Lattice,
    noise: DiscreteGaussian,
}

impl GaussianMechanism {
    /// The mechanism for sums on `lattice`.
    ///
    /// # Errors
    /// opendp or the sampler refuses the noise of this lattice.
    pub fn new(lattice: Lattice) -> Result<Self, MechanismError> {
        let mechanism = Self { lattice, noise: DiscreteGaussian::new(lattice.scale())? };
        mechanism.rho()?;
        Ok(mechanism)
    }

    /// The lattice of the sums.
    pub fn lattice(&self) -> &Lattice {
        &self.lattice
    }

    /// The sum with noise of standard deviation s on every coordinate, in units of the data: (sum +
    /// noise) 2^k, shape `[dimension]`. The noise is new with every call, also for the same sum;
    /// charge the ledger before calling.
    ///
    /// # Errors
    /// A sum of another length, no randomness, or opendp's refusal.
    pub fn release(&mut self, sum: &[i64]) -> Result<Vec<f64>, MechanismError> {
        let dimension = self.lattice.dimension();
        if sum.len() != dimension {
            // opendp would let it through.
            return Err(MechanismError::Length { got: sum.len(), dimension });
        }
        let noise = RefCell::new(SecureRng::new()?);
        let distribution = self.noise;
        let step = self.lattice.step();
        let function = Function::new(move |sum: &Vec<i64>| {
            let mut noise = noise.borrow_mut();
            // Saturation and scaling see noised numbers alone: they are post-processing.
            let noised = |&total: &i64| total.saturating_add(distribution.sample(&mut *noise)) as f64 * step;
            sum.iter().map(noised).collect()
        });
        self.measurement(function)?.invoke(&sum.to_vec()).map_err(refusal)
    }

    /// Zero-concentrated privacy loss of one release when a
    /// contribution is added or removed: opendp's map at m.
    ///
    /// # Errors
    /// opendp's refusal.
    pub fn rho(&self) -> Result<f64, MechanismError> {
        let unused = Function::new(|_: &Vec<i64>| Vec::new());
        self.measurement(unused)?.map(&(self.lattice.radius() as f64)).map_err(refusal)
    }

    fn measurement(&self, function: Function<Vec<i64>, Vec<f64>>) -> Result<Released, MechanismError> {
        let domain = VectorDomain::new(AtomDomain::<i64>::default()).with_size(self.lattice.dimension());
        let scale = self.lattice.scale() as f64;
        let map = make_gaussian::<Sums, L2Distance<f64>, ZeroConcentratedDivergence>(
            domain.clone(),
            L2Distance::default(),
            scale,
            None,
        )
        .map_err(refusal)?
        .privacy_map
        .clone();
        Measurement::new(domain, L2Distance::default(), ZeroConcentratedDivergence, function, map).map_err(refusal)
    }
}

fn refusal(error: OpendpError) -> MechanismError {
    MechanismError::Opendp(error.message.unwrap_or_else(|| format!("{:?}", error.variant)))
}
