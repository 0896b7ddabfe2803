//! What a schedule costs, by each accountant.

use rondo_dp::{Accountant, Event};
use serde::Serialize;

use super::schedule::Schedule;
use crate::error::CliError;
use crate::output::table;

/// The epsilons of one schedule. In JSON a figure that is infinite or unknown is null.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Renyi accounting at integer orders: the enforced figure.
    pub(super) rdp: f64,
    /// Renyi accounting over all orders.
    rdp_all_orders: f64,
    /// Privacy loss distribution.
    pub(super) pld: Option<f64>,
    /// Why the last one is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pld_problem: Option<String>,
}

impl Figures {
    /// The figures of a schedule with this noise.
    pub(super) fn of(noise_multiplier: f64, schedule: &Schedule) -> Result<Self, CliError> {
        let Schedule { sampling_rate, steps, delta, .. } = *schedule;
        let wrong = |error: rondo_dp::AccountingError| CliError::usage(error.to_string());
        let mut accountant = Accountant::new();
        accountant.record(Event::new(noise_multiplier, sampling_rate, steps).map_err(wrong)?);
        let (pld, pld_problem) = match accountant.epsilon_pld(delta) {
            Ok(epsilon) => (Some(epsilon), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Self {
            rdp: accountant.epsilon_enforced(delta).map_err(wrong)?,
            rdp_all_orders: accountant.epsilon_rdp(delta).map_err(wrong)?,
            pld,
            pld_problem,
        })
    }

    /// One line a figure, with what it is good for.
    pub(super) fn table(&self) -> String {
        let row = |name: &str, epsilon: String, meaning: &str| vec![name.to_owned(), epsilon, meaning.to_owned()];
        let pld = self.pld.map_or_else(|| "-".to_owned(), shown);
        let rows = vec![
            row(
                "RDP, enforced",
                shown(self.rdp),
                "Renyi accounting at integer orders, proven for the integer noise that is really added: budgets are held \
                 against it",
            ),
            row(
                "RDP, all orders",
                shown(self.rdp_all_orders),
                "Renyi accounting as other programs do it, for continuous Gaussian noise",
            ),
            row(
                "PLD",
                pld,
                self.pld_problem.as_deref().unwrap_or(
                    "privacy loss distribution: the tightest, for a schedule that is fixed in advance and kept to",
                ),
            ),
        ];
        table(&["FIGURE", "EPSILON", "WHAT IT IS"], rows, "")
    }
}

/// An epsilon as a person reads it.
pub(super) fn shown(epsilon: f64) -> String {
    if epsilon.is_finite() { format!("{epsilon:.6}") } else { "no bound".to_owned() }
}

/// Warnings, one a line.
pub(super) fn warned(warnings: &[String]) -> String {
    warnings.iter().map(|warning| format!("\nwarning: {warning}\n")).collect()
}
