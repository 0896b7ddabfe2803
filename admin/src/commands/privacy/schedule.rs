//! A schedule of noised steps, as it stands on the command line.

use clap::Args;
use rondo_dp::Event;
use serde::Serialize;

use crate::error::CliError;

/// How many steps on how large samples.
#[derive(Debug, Args)]
pub(super) struct ScheduleArgs {
    /// Chance with which every example, by its own coin, is in a step's batch
    #[arg(
        long,
        value_name = "Q",
        required_unless_present = "examples",
        conflicts_with_all = ["examples", "batch"]
    )]
    sampling_rate: Option<f64>,
    /// Training examples of the data owner; with --batch, in place of --sampling-rate
    #[arg(long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u64).range(1..))]
    examples: Option<u64>,
    /// Expected examples of a batch: the sampling rate is B / N
    #[arg(long, value_name = "B", requires = "examples", value_parser = clap::value_parser!(u64).range(1..))]
    batch: Option<u64>,
    /// Noised steps in all: local steps times rounds
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Chance with which the bound may fail; it has to be below 1 / N
    #[arg(long, value_name = "D")]
    delta: f64,
}

/// What the figures are for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Schedule {
    /// Chance with which an example is in a batch.
    pub(super) sampling_rate: f64,
    /// Noised steps.
    pub(super) steps: u64,
    /// Chance of failure.
    pub(super) delta: f64,
    adjacency: &'static str,
    sampling: &'static str,
}

impl ScheduleArgs {
    /// The schedule, and what is doubtful about it.
    pub(super) fn read(&self) -> Result<(Schedule, Vec<String>), CliError> {
        let mut warnings = Vec::new();
        let sampling_rate = match (self.sampling_rate, self.examples, self.batch) {
            (Some(rate), ..) => rate,
            (None, Some(examples), Some(batch)) => {
                warnings.extend(doubts(examples, batch, self.delta));
                // As clients do with a run's batch.
                (batch as f64 / examples as f64).min(1.0)
            }
            _ => {
                return Err(
                    CliError::usage("say the sampling rate").hint("--sampling-rate Q, or --examples N --batch B")
                );
            }
        };
        // Any usable noise: what is asked here is whether the rest is.
        let event = Event::new(1.0, sampling_rate, self.steps).map_err(|error| CliError::usage(error.to_string()))?;
        if !(self.delta > 0.0 && self.delta < 1.0) {
            let problem = format!("delta {} is not usable: it must be above 0 and below 1", self.delta);
            return Err(CliError::usage(problem).hint("well below 1 over the number of examples, such as 1e-5"));
        }
        let steps = event.steps();
        let delta = self.delta;
        let schedule = Schedule { sampling_rate, steps, delta, adjacency: "add-or-remove", sampling: "poisson" };
        Ok((schedule, warnings))
    }
}

impl Schedule {
    /// For [`crate::output::facts`].
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("sampling rate", self.sampling_rate.to_string()),
            ("steps", self.steps.to_string()),
            ("delta", format!("{:e}", self.delta)),
            ("adjacency", ADJACENCY.to_owned()),
            ("sampling", "Poisson: every example is in a step's batch by its own coin".to_owned()),
        ]
    }
}

/// Which neighbours all figures speak of.
pub(super) const ADJACENCY: &str = "one example, or nothing in its place (add/remove at a fixed sampling rate)";

fn doubts(examples: u64, batch: u64, delta: f64) -> Vec<String> {
    let mut doubts = Vec::new();
    if delta >= 1.0 / examples as f64 {
        doubts.push(format!(
            "delta {delta:e} is not below 1/{examples}: a mechanism that publishes one of the examples in full would keep \
             it, and clients refuse such a run; take a smaller delta"
        ));
    }
    if batch > examples {
        doubts.push(format!("a batch of {batch} out of {examples} examples is all of them: the sampling rate is 1"));
    }
    doubts
}
