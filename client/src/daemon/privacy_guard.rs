//! Keeps this client's privacy guarantees: plans are checked against the ledger before any work,
//! and releases are entered before their first byte leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rondo_data::Source;
use rondo_dp::{Curve, ExamplePlan, Ledger, LedgerError, LedgerState, Limit, Privacy, RunAccount, Schedule};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::RunFile;
use rondo_proto::{RunId, v1};

use super::failure::Failure;
use super::privacy_terms::privacy_terms;
use crate::config::Config;
use crate::home::HISTORY;
use crate::policy::Decline;
use crate::spool::Entry;

/// The ledger of this client, and the budgets that client.toml declares.
#[derive(Clone)]
pub struct PrivacyGuard {
    ledger: Arc<Mutex<Ledger>>,
    config: Arc<Config>,
}

/// Files that a daemon writes to once its ledger is there.
const WRITTEN_LATER: [&str; 2] = [HISTORY, "answers.json"];

/// Refuses a folder in which a daemon has worked and of whose ledger nothing is left: a new one would
/// hold every budget again as if nothing had been spent.
fn check_not_lost(ledger: &Path) -> Result<(), LedgerError> {
    let Some(dir) = ledger.parent() else { return Ok(()) };
    let head = ledger.with_extension("head");
    let is_written = |file: &PathBuf| fs::metadata(file).is_ok_and(|about| about.len() > 0);
    let worked = WRITTEN_LATER.iter().map(|file| dir.join(file)).find(is_written);
    match worked {
        Some(evidence) if !ledger.exists() && !head.exists() => {
            Err(LedgerError::BothLost { ledger: ledger.into(), evidence: evidence.into() })
        }
        _ => Ok(()),
    }
}

impl PrivacyGuard {
    /// Opens the ledger.
    ///
    /// # Errors
    /// A file that was changed or cannot be read; both files are gone from a folder in which a daemon
    /// has worked.
    pub fn open(path: &Path, config: Arc<Config>) -> Result<Self, LedgerError> {
        check_not_lost(path)?;
        Ok(Self { ledger: Arc::new(Mutex::new(Ledger::open(path)?)), config })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How this client keeps the run's privacy terms with its data. The ledger sets the whole cost
    /// of the plan aside. `None` for a run without privacy per example.
    ///
    /// # Errors
    /// The terms cannot be kept with these data, or the domain's budget has no room for the run.
    pub(super) fn reserve(
        &self,
        id: &RunId,
        run: &RunFile,
        source: &Source,
        examples: usize,
    ) -> Result<Option<ExamplePlan>, Failure> {
        let terms = privacy_terms(run)?;
        // With privacy per client the coordinator adds the noise and keeps the ledger.
        // `check_dataset` has refused data with a budget.
        if let Privacy::None | Privacy::Client { .. } = terms {
            return Ok(None);
        }
        let train = &run.train;
        let schedule = Schedule { batch: train.batch, steps: train.local_steps, rounds: run.rounds.count };
        let plan = ExamplePlan::new(&terms, examples as u64, schedule)?;
        let domain = source.domain();
        let limit = self.declared_limit(domain)?;
        self.ledger().reserve(id.as_str(), domain, &plan, limit, unix_millis())?;
        Ok(Some(plan))
    }

    /// Whether a run may read a data set at all; called before the file is opened. With `measures`
    /// the run measures on the whole data set.
    ///
    /// # Errors
    /// The domain has a budget and the run has no privacy per example, or a run with privacy would
    /// measure on data that are not public.
    pub(super) fn check_dataset(&self, run: &RunFile, source: &Source, measures: bool) -> Result<(), Failure> {
        let dataset = source.name.clone();
        let per_example = !measures && run.privacy.as_ref().is_some_and(|asked| !asked.is_per_client());
        if !per_example && self.config.privacy.iter().any(|declared| declared.domain == source.domain()) {
            return Err(Decline::Budgeted { dataset }.into());
        }
        if measures && run.privacy.is_some() && !source.public {
            return Err(Decline::NotPublic { dataset }.into());
        }
        Ok(())
    }

    /// The budget that client.toml declares for a domain.
    fn declared_limit(&self, domain: &str) -> Result<Option<Limit>, LedgerError> {
        let declared = self.config.privacy.iter().find(|declared| declared.domain == domain);
        Ok(declared.map(|declared| Limit::new(declared.epsilon, declared.delta)).transpose()?)
    }

    /// Whether another update of the run may be made in round `round` (0 is the warm-up); called
    /// before the work.
    ///
    /// # Errors
    /// The run has spent its budget here, or its domain the budget that client.toml declares now.
    pub(super) fn check(&self, run: &RunId, round: u32) -> Result<(), LedgerError> {
        let ledger = self.ledger();
        ledger.check(run.as_str(), round)?;
        self.check_declared(ledger.state(), run.as_str(), round)
    }

    /// Checks one more release of a run, of round `round`, against the budget that client.toml
    /// declares now. The ledger checks it against the budget of the time when the run was reserved,
    /// which may have been larger, or none.
    fn check_declared(&self, state: &LedgerState, run: &str, round: u32) -> Result<(), LedgerError> {
        let Some(RunAccount { domain, plan, .. }) = state.runs.get(run) else { return Ok(()) };
        let Some(limit) = self.declared_limit(domain)? else { return Ok(()) };
        let budget = match state.domains.get(domain).and_then(|account| account.budget) {
            Some(first) => limit.at_order(first.order),
            // No run was checked against a budget yet. The order is that of the
            // domain's first run by name, for all its runs.
            None => {
                let first =
                    state.runs.values().find(|account| account.domain == *domain).map_or(plan, |account| &account.plan);
                limit.at_best_order(&Curve::of(&first.whole()?))
            }
        };
        let released = state.spent(domain);
        let spent = budget.cost(&released)?;
        let would_be = budget.cost(&released.plus(&Curve::of(&plan.release_of(round)?)))?;
        if would_be <= budget.epsilon {
            return Ok(());
        }
        let domain = domain.clone();
        Err(LedgerError::Budget { domain, limit: budget.epsilon, delta: budget.delta, spent, would_be })
    }

    /// Domains with releases that no data set of client.toml
    /// names: a domain that was renamed starts at zero.
    pub(super) fn unnamed_domains(&self) -> Vec<String> {
        let ledger = self.ledger();
        let named = |domain: &str| self.config.datasets.iter().any(|source| source.domain() == domain);
        let spent = ledger.state().domains.iter().filter(|(_, account)| !account.released.events().is_empty());
        spent.map(|(domain, _)| domain.clone()).filter(|domain| !named(domain)).collect()
    }

    /// Enters the release of a spooled update and reports what the run has cost with it. Once this
    /// has returned the update may leave. However often it is sent then, it is the same bytes.
    ///
    /// # Errors
    /// The release cannot be entered; the update must stay on this machine.
    pub(super) fn release(&self, entry: &Entry) -> Result<v1::PrivacyReport, LedgerError> {
        let run = entry.key.run.as_str();
        let mut ledger = self.ledger();
        let update = entry.digest.to_string();
        if !ledger.state().runs.get(run).is_some_and(|account| account.updates.contains_key(&update)) {
            self.check_declared(ledger.state(), run, entry.key.round)?;
        }
        ledger.spend(run, entry.key.round, &update, unix_millis())?;
        let head = ledger.head().to_string();
        let account = ledger.state().runs.get(run).cloned();
        drop(ledger);
        let account = account.ok_or_else(|| LedgerError::NotReserved { run: run.to_owned() })?;
        let plan = &account.plan;
        let released = &account.released;
        let epsilon = released.epsilon_enforced(plan.delta)?;
        Ok(v1::PrivacyReport {
            unit: "example".to_owned(),
            noise_multiplier: plan.noise_multiplier,
            sampling_rate: plan.sampling_rate,
            steps: plan.steps_of(entry.key.round),
            total_steps: u32::try_from(released.events().iter().map(|event| event.steps()).sum::<u64>())
                .unwrap_or(u32::MAX),
            delta: plan.delta,
            epsilon,
            // The tighter figure may be out of its grid's reach; then the other one stands for it.
            epsilon_pld: released.epsilon_pld(plan.delta).map_or(epsilon, |tighter| tighter.min(epsilon)),
            next_epsilon: plan.cost_after_another(released)?,
            ledger_head: head,
            clip: plan.clip_of(entry.key.round),
        })
    }

    /// Runs for which something is set aside.
    pub(super) fn open_runs(&self) -> Vec<String> {
        self.ledger().state().runs.iter().filter(|(_, run)| !run.closed).map(|(id, _)| id.clone()).collect()
    }

    /// Frees what ended runs have set aside and not released.
    pub(super) fn close(&self, runs: &[String]) {
        for run in runs {
            if let Err(error) = self.ledger().close(run, unix_millis()) {
                tracing::error!(run, %error, "what the run has set aside stays so");
            }
        }
    }
}

#[cfg(test)]
mod tests;
