//! `rondo privacy epsilon`: from noise to epsilon.

use clap::Args;
use serde::Serialize;

use super::figures::{Figures, warned};
use super::schedule::{Schedule, ScheduleArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::output::facts;

/// A schedule with its noise.
#[derive(Debug, Args)]
pub struct EpsilonArgs {
    /// Standard deviation of the noise in units of the clip norm
    #[arg(long, value_name = "S")]
    noise_multiplier: f64,
    #[command(flatten)]
    schedule: ScheduleArgs,
}

#[derive(Debug, Serialize)]
struct Answer {
    noise_multiplier: f64,
    #[serde(flatten)]
    schedule: Schedule,
    epsilon: Figures,
    warnings: Vec<String>,
}

/// Computes the figures and prints them.
pub(super) fn run(args: &EpsilonArgs, context: &mut Context) -> Result<(), CliError> {
    let (schedule, warnings) = args.schedule.read()?;
    let noise_multiplier = args.noise_multiplier;
    let epsilon = Figures::of(noise_multiplier, &schedule)?;
    context.output.show(&Answer { noise_multiplier, schedule, epsilon, warnings }, text)
}

fn text(answer: &Answer) -> String {
    let mut about = vec![("noise multiplier", answer.noise_multiplier.to_string())];
    about.extend(answer.schedule.facts());
    format!("{}\n{}{}", facts(&about), answer.epsilon.table(), warned(&answer.warnings))
}
