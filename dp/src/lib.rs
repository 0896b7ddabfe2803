//! What a run promises about its clients' data, and what it takes to keep the promise.
//!
//! A [`Privacy`] is always an explicit value, [`Privacy::None`] too, and every report carries its
//! [`Privacy::statement`]. A plan says how it is kept: an [`ExamplePlan`] at every data owner, or a
//! [`ClientPlan`] at the coordinator. A policy that has no plan is refused.
//!
//! Accounting: an [`Accountant`] collects [`Event`]s and gives epsilons. [`calibration`] turns
//! epsilons into noise. A [`Ledger`] keeps what was spent. None of this draws randomness.
//!
//! Noise, behind the feature `noise` (on by default): contributions are clipped onto a [`Lattice`],
//! summed in integers, and released by a `GaussianMechanism`. `audit` measures what that noise
//! hides. Only this half links opendp.

mod accountant;
mod adaptive_clip;
#[cfg(feature = "noise")]
pub mod audit;
mod budget;
pub mod calibration;
mod client_plan;
mod client_plan_error;
mod curve;
mod event;
mod example_plan;
mod gaussian;
mod lattice;
mod ledger;
#[cfg(feature = "noise")]
mod mechanism;
mod pld;
#[cfg(feature = "noise")]
mod poisson;
mod privacy;
pub mod rdp;
#[cfg(feature = "noise")]
mod sampler;
#[cfg(feature = "noise")]
mod secure_rng;
#[cfg(feature = "noise")]
mod tally;

pub use accountant::Accountant;
pub use adaptive_clip::AdaptiveClip;
pub use budget::{Budget, Limit};
pub use client_plan::ClientPlan;
pub use client_plan_error::{ClientPlanError, LEAST_COHORT};
pub use curve::Curve;
pub use event::{AccountingError, Event};
pub use example_plan::{ExamplePlan, PlanError, Schedule};
pub use lattice::{ClipOutcome, Lattice, LatticeError, MAX_SCALE, MIN_SCALE};
pub use ledger::{CentralAccount, Contents, DomainAccount, Entry, Head, Ledger, LedgerError, LedgerState, RunAccount};
#[cfg(feature = "noise")]
pub use mechanism::{GaussianMechanism, MechanismError};
pub use pld::error::PldError;
#[cfg(feature = "noise")]
pub use poisson::poisson_sample;
pub use privacy::{Privacy, PrivacyError, Terms, Unit};
#[cfg(feature = "noise")]
pub use sampler::{DiscreteGaussian, ScaleError};
#[cfg(feature = "noise")]
pub use secure_rng::{EntropyError, SecureRng};
#[cfg(feature = "noise")]
pub use tally::Tally;
