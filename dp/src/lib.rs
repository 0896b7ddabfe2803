//! What a run promises about its clients' data, and what it takes to keep the promise.
//!
//! A [`Privacy`] is always an explicit value, [`Privacy::None`] too, and every report carries its
//! [`Privacy::statement`]. What keeping it takes is a plan: an [`ExamplePlan`] at every data owner, or a [`ClientPlan`] at
//! the coordinator. A promise that has no plan is refused, never weakened in silence.
//!
//! Noise: contributions are clipped onto a [`Lattice`], summed in integers, and released by a [`GaussianMechanism`].
//! Accounting: an [`Accountant`] collects [`Event`]s and gives epsilons; [`calibration`] turns them into noise.
//! [`audit`] measures what the noise really hides.

mod accountant;
mod adaptive_clip;
pub mod audit;
mod budget;
pub mod calibration;
mod client_plan;
mod curve;
mod example_plan;
mod gaussian;
mod lattice;
mod ledger;
mod mechanism;
mod pld;
mod poisson;
mod privacy;
pub mod rdp;
mod sampler;
mod secure_rng;

pub use accountant::{Accountant, AccountingError, Event};
pub use adaptive_clip::{AdaptiveClip, Tally};
pub use budget::{Budget, Limit};
pub use client_plan::{ClientPlan, ClientPlanError, LEAST_COHORT};
pub use curve::Curve;
pub use example_plan::{ExamplePlan, PlanError, Schedule};
pub use lattice::{Contribution, Lattice, LatticeError, MIN_SCALE};
pub use ledger::{Books, CentralBooks, Contents, DomainBooks, Entry, Head, Ledger, LedgerError, RunBooks};
pub use mechanism::{GaussianMechanism, MechanismError};
pub use pld::PldError;
pub use poisson::poisson_sample;
pub use privacy::{Privacy, PrivacyError, Terms, Unit};
pub use sampler::{DiscreteGaussian, MAX_SCALE, ScaleError};
pub use secure_rng::{EntropyError, SecureRng};
