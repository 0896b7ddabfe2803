//! What an export should say, and what it wrote.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A measurement of the adapter, for the model card.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Whose held-out examples, or which group of them.
    pub name: String,
    /// How many.
    pub examples: u64,
    /// Cross entropy in nats and accuracy of the model as the run found it, where that was
    /// measured.
    pub before: Option<(f64, f64)>,
    /// The same of the exported adapter.
    pub after: (f64, f64),
}

/// What the export should say and do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExportInfo {
    /// Name or path of the base model, as Python will load it.
    pub base_model_name: String,
    /// Facts for the files' metadata and the model card: run, round, digests, privacy...
    pub provenance: BTreeMap<String, String>,
    /// The data owners whose updates are in it.
    pub owners: Vec<String>,
    /// What was measured on held-out examples.
    pub measured: Vec<Measured>,
    /// Re-compress every target to at most this rank, by QR and SVD; the error is reported.
    pub recompress: Option<usize>,
}

/// What an export to a PEFT folder wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportReport {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Largest rank of a target.
    pub rank: usize,
    /// Numbers in the adapter, head excluded.
    pub parameters: usize,
    /// ||exported - adapter||_F / ||adapter||_F over all targets, when re-compression was asked for.
    pub recompression_error: Option<f64>,
}

/// What an export of full weights wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedReport {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Weights that were changed.
    pub merged: usize,
    /// ||rounded - exact||_F / ||dW||_F over all changed weights: what the files' own number format costs.
    pub rounding: Option<f64>,
}
