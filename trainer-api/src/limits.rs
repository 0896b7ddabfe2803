//! How much of this machine a trainer takes: the `[limits]` table of client.toml.

use serde::{Deserialize, Serialize};

/// The `[limits]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest adapter rank; 0 = no limit. Methods that mix ranks train with less here, others are
    /// declined.
    #[serde(default)]
    pub max_rank: u32,
    /// Threads that libtorch computes with; 0 = one per core.
    #[serde(default)]
    pub threads: u32,
    /// "cpu", "cuda:N" ("cuda" = "cuda:0") or "auto" (the first CUDA device when there is one, else
    /// the CPU).
    #[serde(default = "default_device")]
    pub device: String,
    /// Most held-out examples per evaluation; 0 = all.
    #[serde(default)]
    pub max_eval_examples: u32,
    /// Memory that a run may take, in megabytes (10^6 bytes); 0 = what the machine has available
    /// when it starts. With a number here a run takes the same steps every time.
    #[serde(default)]
    pub memory_mb: u32,
    /// Most texts that go through the model at once; a step's batch is split and its gradients
    /// added. 0 = as the memory allows.
    #[serde(default)]
    pub micro_batch: u32,
    /// Whether layers run again for their gradients, so that only the states between them are kept.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Largest data file that is held in memory, in MiB; the rows of a larger one are read when
    /// they are needed. With its tokens a data set takes some three times this. 0 = no limit.
    #[serde(default = "default_data_mb")]
    pub data_mb: u64,
}

fn default_data_mb() -> u64 {
    256
}

/// Whether a training step trades time for memory by running each layer twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoint {
    /// Where memory asks for it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never, but on a quantised base, which needs it.
    Off,
}

fn default_device() -> String {
    "auto".to_owned()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rank: 0,
            threads: 0,
            device: default_device(),
            max_eval_examples: 0,
            memory_mb: 0,
            micro_batch: 0,
            checkpoint: Checkpoint::Auto,
            data_mb: default_data_mb(),
        }
    }
}
