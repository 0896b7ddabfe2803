//! Commands that train, evaluate and generate without a coordinator, one file each.

mod adapted_model;
mod arguments;
pub mod chat;
mod error;
pub mod evaluate;
mod figures;
pub mod generate;
mod logits;
pub mod merge;
mod out_dir;
pub mod plan;
mod predictions;
mod progress_bar;
mod sampling;
mod task;
pub mod train;
#[cfg(test)]
mod wording_tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Subcommand;
use tokio::runtime::Runtime;

pub use error::OfflineError;

/// Commands that need no coordinator and are set by options alone.
#[derive(Debug, Subcommand)]
pub enum OfflineCommand {
    /// Trains an adapter on local data alone, without a coordinator.
    Train(Box<train::TrainArgs>),
    /// Evaluates an adapter, or a bare base model, on local data, without a coordinator.
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Writes a base model's weights with an adapter in them.
    Merge(merge::MergeArgs),
    /// Generates text from a prompt, with or without an adapter.
    Generate(Box<generate::GenerateArgs>),
    /// Talks with a model in a terminal, with or without an adapter.
    Chat(Box<chat::ChatArgs>),
    /// Predicts how much memory a training step takes here.
    Plan(Box<plan::PlanArgs>),
}

impl OfflineCommand {
    /// Whether it takes training steps.
    pub fn trains(&self) -> bool {
        matches!(self, Self::Train(_) | Self::Plan(_))
    }

    /// Carries the command out on standard input and output.
    /// `runtime` listens for Ctrl-C while a model generates.
    ///
    /// # Errors
    /// Whatever stopped the command.
    pub fn run(&self, runtime: &Runtime) -> Result<(), OfflineError> {
        let mut out = io::stdout().lock();
        match self {
            Self::Train(args) => train::train(args, &mut out),
            Self::Evaluate(args) => evaluate::evaluate(args, &mut out),
            Self::Merge(args) => merge::merge(args, &mut out),
            Self::Generate(args) => generate::generate(args, &mut out),
            Self::Chat(args) => {
                let stop = Arc::new(chat::Stop::default());
                runtime.spawn(stop_on_ctrl_c(Arc::clone(&stop)));
                chat::chat(args, &mut io::stdin().lock(), &mut out, &stop)
            }
            Self::Plan(args) => plan::plan(args, &mut out),
        }
    }
}

/// Ctrl-C stops the answer that is being generated, and not the program.
async fn stop_on_ctrl_c(stop: Arc<chat::Stop>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::SeqCst);
    }
}
