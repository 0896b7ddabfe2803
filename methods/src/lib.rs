//! Federated LoRA methods as data: layouts, delta expressions, aggregation laws, initialisers and
//! export.
//!
//! A [`Method`] says what tensors an adapter has ([`layout`]), what change of the weights they
//! stand for ([`delta`]), how updates become one ([`law`]) and where tensors start ([`init`]).
//! Everybody else talks to a [`Job`]: a run file resolved against a base model and a [`Registry`].
//! Nothing here knows libtorch, a network or a clock; all sums and decompositions are done in f64.

pub mod aggregate;
pub mod answers;
pub mod at;
pub mod change;
pub mod config;
pub mod delta;
pub mod dim;
pub mod error;
pub mod exactness;
pub mod export;
pub mod factors;
pub mod file;
pub mod head;
pub mod init;
pub mod job;
pub mod law;
pub mod layout;
pub mod linalg;
pub mod method;
pub mod methods;
pub mod native;
pub mod offline;
pub mod registry;
pub mod start_adapter;
pub mod tensor;
pub mod update_validation;
pub mod warm_up;

pub use aggregate::{AggregateInput, AggregateOutput, Contribution};
pub use answers::{DpSupport, Exactness, Publication};
pub use at::{At, Instance};
pub use change::RoundStart;
pub use config::{MethodConfig, OptionKind, OptionSpec, OptionValue};
pub use delta::{Delta, DeltaError};
pub use dim::{Dim, SymbolicShape};
pub use error::MethodError;
pub use export::peft::PeftAdapter;
pub use export::report::{ExportInfo, ExportReport, Measured, MergedReport};
pub use factors::PeftFactors;
pub use file::{FileError, TensorFile, TensorWriter};
pub use head::HeadShape;
pub use job::{AdapterState, Job, Kind, MergedDelta, Probe, WarmUpStep};
pub use law::LawKind;
pub use layout::{NamedSpec, Origin, Role, Start, Target, TensorSpec, Travel};
pub use linalg::Matrix;
pub use method::Method;
pub use native::{Native, OffsetBy};
pub use offline::{OfflineInput, OfflineOutput, aggregate_files};
pub use registry::Registry;
pub use start_adapter::{StartAdapter, StartAdapterError};
pub use tensor::{Tensor, TensorSet};
pub use update_validation::{UpdateFacts, UpdateRefusal};
pub use warm_up::{BaseFactors, Statistic, Statistics, WarmUp};
