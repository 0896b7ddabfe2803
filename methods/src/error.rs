//! What can go wrong with a method, a job or an aggregation.

use std::path::{Path, PathBuf};

use rondo_proto::wording::{self, SettingKey};

use crate::delta::DeltaError;
use crate::file::FileError;
use crate::linalg::LinalgError;
use crate::start_adapter::error::StartAdapterError;

/// Why something about a method was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum MethodError {
    /// The run file names a method that is not registered.
    #[error("unknown method `{id}`{}; there are {}", hint(.nearest), .known.join(", "))]
    UnknownMethod {
        /// The id asked for.
        id: String,
        /// The known id most like it.
        nearest: Option<String>,
        /// All known ids.
        known: Vec<String>,
    },
    /// The run file sets an option that the method does not have.
    #[error(
        "{}unknown key {} for method `{method}`{}; {}",
        wording::run_file_prefix(), method_key(.option), hint(.nearest), options(.known)
    )]
    UnknownOption {
        /// The method.
        method: String,
        /// The key.
        option: String,
        /// The known option most like it.
        nearest: Option<String>,
        /// The method's options.
        known: Vec<String>,
    },
    /// An option has a value the method cannot work with.
    #[error("{}{} of method `{method}` {problem}", wording::run_file_prefix(), method_key(.option))]
    OptionValue {
        /// The method.
        method: String,
        /// The key.
        option: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A value of the run file, outside of its method's table, that the method cannot work with.
    #[error("{}{} does not go with method `{method}`: {problem}", wording::run_file_prefix(), wording::quoted(.key))]
    RunValue {
        /// Dotted path of the key.
        key: &'static str,
        /// The method.
        method: String,
        /// Why not, and how to fix it.
        problem: String,
    },
    /// A method cannot be registered.
    #[error("method `{method}` cannot be registered: {problem}")]
    Registration {
        /// The method.
        method: String,
        /// What is wrong.
        problem: String,
    },
    /// What a method answers about the run as a whole does
    /// not fit together (a fault of the method's code).
    #[error("method `{method}`: {problem}")]
    Answers {
        /// The method.
        method: String,
        /// What does not fit.
        problem: String,
    },
    /// The answers of a method do not fit together (a fault of the method's code).
    #[error("method `{method}` on target `{target}`: {problem}")]
    Layout {
        /// The method.
        method: String,
        /// The target.
        target: String,
        /// What does not fit.
        problem: String,
    },
    /// The targets of the run file do not fit the base model.
    #[error("{prefix}{key}: {0}", prefix = wording::run_file_prefix(), key = SettingKey::Targets.quoted())]
    Targets(#[from] rondo_base::BaseError),
    /// A rank that a target's weight cannot have.
    #[error(
        "rank {rank} is outside 1 to {largest} for target `{target}` of shape [{out}, {inp}]; lower {}",
        SettingKey::Rank.quoted()
    )]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Largest rank of this target.
        largest: usize,
        /// The target.
        target: String,
        /// Its output features.
        out: usize,
        /// Its input features.
        inp: usize,
    },
    /// A client's rank is not one the run can take.
    #[error("rank {rank} does not fit a run of method `{method}` at rank {run_rank}: {problem}")]
    ClientRank {
        /// The client's rank.
        rank: usize,
        /// The run's rank.
        run_rank: usize,
        /// The method.
        method: String,
        /// What is allowed.
        problem: String,
    },
    /// A tensor that should be there is not.
    #[error("tensor `{tensor}` is missing from {place}")]
    Missing {
        /// Full name.
        tensor: String,
        /// Where it was looked for, and what would bring it.
        place: String,
    },
    /// A tensor has another shape than the layout says.
    #[error("tensor `{tensor}` has shape {got:?} in {place}, the layout says {expected:?}")]
    Shape {
        /// Full name.
        tensor: String,
        /// Where it was found.
        place: String,
        /// Shape of the layout.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// A published or frozen file does not hold what the job says.
    #[error("{path} does not fit this run: {problem}", path = .path.display())]
    Artefact {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// The seeded tensors of this program differ from the publisher's.
    #[error("the tensors drawn from the run's seed differ from those of {}: the programs' versions do not match", .0.display())]
    Seeds(PathBuf),
    /// Contributions that cannot be aggregated.
    #[error("cannot aggregate: {0}")]
    Contributions(String),
    /// A result is beyond what its number format can hold.
    #[error(
        "cannot aggregate: {tensor} would hold {value}: {culprits}; leave such an update out, or lower the learning rate or the scale"
    )]
    NotFinite {
        /// The tensor that would not be finite.
        tensor: String,
        /// What it would hold.
        value: f64,
        /// The updates with the largest numbers.
        culprits: String,
    },
    /// Statistics that should agree do not.
    #[error("warm-up factors of target `{target}` disagree, and no more than half of the clients have the same: {}; their base weights differ, compare the files with `rondo base show`", .clients.join(", "))]
    Disagree {
        /// The target.
        target: String,
        /// All clients: those of the largest group that agrees, then the others, with how far off
        /// each is.
        clients: Vec<String>,
    },
    /// A delta expression and its tensors do not fit.
    #[error("delta of target `{target}`: {source}")]
    Delta {
        /// The target.
        target: String,
        /// Why.
        source: DeltaError,
    },
    /// A decomposition failed.
    #[error("target `{target}`: {source}")]
    Linalg {
        /// The target.
        target: String,
        /// Why.
        source: LinalgError,
    },
    /// Weights in blocks cannot take an adapter.
    #[error("{path} is a GGUF file: its packed weights cannot take an adapter without loss; merge into the Hugging Face folder that it was made from, or use it with the adapter beside it", path = .path.display())]
    PackedBase {
        /// The file.
        path: PathBuf,
    },
    /// The adapter cannot be written in the format asked for.
    #[error("cannot export: {0}")]
    Export(String),
    /// An adapter folder cannot be read.
    #[error("{path}: {problem}", path = .path.display())]
    Adapter {
        /// File or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An adapter cannot be what a run starts from.
    #[error(transparent)]
    StartAdapter(#[from] StartAdapterError),
    /// A tensor file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Some other file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl MethodError {
    /// How to fix it, where there is more to say than the message does.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::StartAdapter(error) => error.hint(),
            _ => None,
        }
    }

    pub(crate) fn delta(target: &str, source: DeltaError) -> Self {
        Self::Delta { target: target.to_owned(), source }
    }

    pub(crate) fn linalg(target: &str, source: LinalgError) -> Self {
        Self::Linalg { target: target.to_owned(), source }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default()
}

/// The name of a method's option, as the run file or the command line has it.
fn method_key(option: &str) -> String {
    wording::quoted(&format!("method.{option}"))
}

fn options(known: &[String]) -> String {
    if known.is_empty() { "it has no options".into() } else { format!("its options are {}", known.join(", ")) }
}
