//! A run that this client takes part in.

use std::path::PathBuf;
use std::sync::Arc;

use rondo_data::Dataset;
use rondo_dp::ExamplePlan;
use rondo_methods::Job;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1;

/// A run with all that this client needs to work on it.
#[derive(Clone)]
pub struct AcceptedRun {
    /// The run, resolved against its base.
    pub job: Job,
    /// The run file.
    pub run: Arc<RunFile>,
    /// The base model.
    pub base: Arc<v1::BaseModel>,
    /// The base model's folder or .gguf file on this machine.
    pub model_dir: PathBuf,
    /// This client's examples.
    pub data: Arc<Dataset>,
    /// The rank this client trains with.
    pub rank: u32,
    /// How its examples are clipped and noised.
    pub privacy: Option<ExamplePlan>,
}
