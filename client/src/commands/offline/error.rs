//! Why an offline command fails.

use std::path::PathBuf;

use rondo_base::BaseError;
use rondo_data::DataError;
use rondo_methods::MethodError;
use rondo_proto::run_file::RunFileError;
use rondo_trainer::error::TrainerError;
use rondo_trainer_api::memory::{ModelSizesError, TooLarge};
use rondo_trainer_api::work::WorkError;

/// Why an offline command failed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The base model's folder.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The options do not make a run.
    #[error(transparent)]
    Run(#[from] RunFileError),
    /// An option's value.
    #[error("{option} {problem}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The method, its options or the adapter's folder.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// The data file.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device or the model.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// Training or evaluating.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The adapter's folder holds no head and no labels are given.
    #[error("{} holds no classifier head (rondo_head.safetensors); only adapters that Rondo exported can be evaluated", .dir.display())]
    NoHead {
        /// The folder.
        dir: PathBuf,
    },
    /// A conversation without the template that lays it out.
    #[error("the model in {} {problem}; {fix}", .model.display())]
    NoChatTemplate {
        /// The base model.
        model: PathBuf,
        /// What is wrong with its template.
        problem: String,
        /// What to do instead.
        fix: &'static str,
    },
    /// The folder is no adapter.
    #[error("no adapter in {}: adapter_config.json is not there; name a folder that `rondo-client train` or `rondo adapter export` wrote, or leave --adapter out for the bare base", .dir.display())]
    NoAdapter {
        /// The folder.
        dir: PathBuf,
    },
    /// The adapter does not fit the model.
    #[error("adapter {} does not fit the model in {}; it was made for {made_for:?}, name that one with --model: {source}", .dir.display(), .model.display())]
    AnotherBase {
        /// The adapter's folder.
        dir: PathBuf,
        /// The base model.
        model: PathBuf,
        /// The base model that the adapter names.
        made_for: String,
        /// What does not fit.
        source: Box<TrainerError>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model's sizes.
    #[error(transparent)]
    ModelSizes(#[from] ModelSizesError),
    /// A step does not fit.
    #[error(transparent)]
    Memory(#[from] Box<TooLarge>),
    /// The process that takes a measured step.
    #[error("the measured step failed: {problem}")]
    Measure {
        /// How.
        problem: String,
    },
    /// Standard output.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
}
