//! `rondo privacy sigma`: from epsilon to noise.

use clap::{Args, ValueEnum};
use rondo_dp::calibration::{self, CalibrationError, Target};
use serde::Serialize;

use super::figures::{Figures, shown, warned};
use super::schedule::{Schedule, ScheduleArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::output::facts;

/// A budget and a schedule.
#[derive(Debug, Args)]
pub struct SigmaArgs {
    /// The epsilon to stay within
    #[arg(long, value_name = "E")]
    epsilon: f64,
    #[command(flatten)]
    schedule: ScheduleArgs,
    /// Which figure has to stay within it: rdp is what budgets are held against, pld is tighter
    #[arg(long, value_enum, default_value = "rdp")]
    figure: Figure,
}

/// An accountant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Figure {
    /// Renyi accounting at integer orders, the enforced figure
    Rdp,
    /// Privacy loss distribution, for a schedule that is fixed in advance
    Pld,
}

#[derive(Debug, Serialize)]
struct Answer {
    noise_multiplier: f64,
    figure: Figure,
    target: f64,
    #[serde(flatten)]
    schedule: Schedule,
    epsilon: Figures,
    warnings: Vec<String>,
}

/// Computes the noise and prints it.
pub(super) fn run(args: &SigmaArgs, context: &mut Context) -> Result<(), CliError> {
    let (schedule, mut warnings) = args.schedule.read()?;
    let target = Target::new(args.epsilon, schedule.delta).map_err(|error| CliError::usage(error.to_string()))?;
    let figure = match args.figure {
        Figure::Rdp => calibration::Figure::Enforced,
        Figure::Pld => calibration::Figure::Pld,
    };
    let least = calibration::noise_multiplier(target, schedule.sampling_rate, schedule.steps, figure)
        .map_err(|error| no_answer(&error))?;
    // Up to six digits, so that what is copied from the text keeps within the budget too.
    let noise_multiplier = (least * 1e6).ceil() / 1e6;
    let epsilon = Figures::of(noise_multiplier, &schedule)?;
    if epsilon.rdp > args.epsilon {
        warnings.push(format!(
            "budgets are held against the enforced figure, {}: a run that promises epsilon {} with this noise ends before \
             its last step",
            shown(epsilon.rdp),
            args.epsilon
        ));
    }
    let answer = Answer { noise_multiplier, figure: args.figure, target: args.epsilon, schedule, epsilon, warnings };
    context.output.show(&answer, text)
}

fn no_answer(error: &CalibrationError) -> CliError {
    let failure = CliError::failed(error.to_string());
    match error {
        CalibrationError::Accounting(rondo_dp::AccountingError::Pld(_)) => failure.hint("take --figure rdp"),
        _ => failure,
    }
}

fn text(answer: &Answer) -> String {
    let held = match answer.figure {
        Figure::Rdp => "the least that keeps the enforced figure",
        Figure::Pld => "the least that keeps the PLD figure",
    };
    let noise = format!("{:.6} ({held} within epsilon {})", answer.noise_multiplier, answer.target);
    let mut about = vec![("noise multiplier", noise)];
    about.extend(answer.schedule.facts());
    format!("{}\n{}{}", facts(&about), answer.epsilon.table(), warned(&answer.warnings))
}
