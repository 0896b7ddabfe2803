//! What keeps this client's promises of privacy: plans held against the ledger before any work,
//! releases entered before their first byte leaves.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rondo_dp::{
    Curve, ExamplePlan, Ledger, LedgerError, LedgerState, Limit, Privacy, PrivacyError, RunAccount, Schedule, Terms,
};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::{PrivacyChoice, RunFile};
use rondo_proto::{RunId, v1};

use super::failure::Failure;
use crate::config::Config;
use crate::policy::Decline;
use crate::spool::Entry;
use rondo_data::Source;

/// The ledger of this client, and the budgets that client.toml declares.
#[derive(Clone)]
pub struct Guard {
    ledger: Arc<Mutex<Ledger>>,
    config: Arc<Config>,
}

/// The guarantee that a run asks its clients for. Every key by name, so that none can be forgotten.
///
/// # Errors
/// A run file with numbers out of range.
pub fn promise(run: &RunFile) -> Result<Privacy, PrivacyError> {
    let Some(asked) = &run.privacy else { return Ok(Privacy::None) };
    let PrivacyChoice { ref unit, epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } =
        *asked;
    Privacy::new(unit, Terms { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip })
}

impl Guard {
    /// Opens the ledger.
    ///
    /// # Errors
    /// A file that was changed or cannot be read.
    pub fn open(path: &Path, config: Arc<Config>) -> Result<Self, LedgerError> {
        Ok(Self { ledger: Arc::new(Mutex::new(Ledger::open(path)?)), config })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How this client keeps the run's promise with its data; the whole of it is set aside. `None`
    /// without a promise per example.
    ///
    /// # Errors
    /// The promise cannot be kept here, or the domain's budget has no room for the run.
    pub(super) fn agree(
        &self,
        id: &RunId,
        run: &RunFile,
        source: &Source,
        examples: usize,
    ) -> Result<Option<ExamplePlan>, Failure> {
        let promise = promise(run)?;
        // A promise per client is for the coordinator to keep, and
        // to keep books of; `admit` has seen to budgets.
        if let Privacy::None | Privacy::Client { .. } = promise {
            return Ok(None);
        }
        let (train, rounds) = (&run.train, run.rounds.count);
        let schedule = Schedule { batch: train.batch, steps: train.local_steps, rounds };
        let plan = ExamplePlan::new(&promise, examples as u64, schedule)?;
        let domain = source.domain();
        let limit = self.declared(domain)?;
        self.ledger().reserve(id.as_str(), domain, &plan, limit, unix_millis())?;
        Ok(Some(plan))
    }

    /// Whether a run may read a data set at all; asked before the file is
    /// opened. With `measures` it is measured as a whole.
    ///
    /// # Errors
    /// The domain has a budget, which only a promise per example can be held against; a run with
    /// privacy would be told a measurement on data that are not public.
    pub(super) fn admit(&self, run: &RunFile, source: &Source, measures: bool) -> Result<(), Failure> {
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
    fn declared(&self, domain: &str) -> Result<Option<Limit>, LedgerError> {
        let declared = self.config.privacy.iter().find(|declared| declared.domain == domain);
        Ok(declared.map(|declared| Limit::new(declared.epsilon, declared.delta)).transpose()?)
    }

    /// Whether another update of round `round` (0 = the warm-up)
    /// of the run may be made; asked before the work.
    ///
    /// # Errors
    /// The run has spent its budget here, or its domain the budget that client.toml declares now.
    pub(super) fn check(&self, run: &RunId, round: u32) -> Result<(), LedgerError> {
        let ledger = self.ledger();
        ledger.check(run.as_str(), round)?;
        self.check_declared(ledger.state(), run.as_str(), round)
    }

    /// Holds one more release of a run, of round `round`, against the budget declared now. The
    /// ledger holds it against the one that was declared when the run was reserved, and that may
    /// have been a larger one or none.
    fn check_declared(&self, books: &LedgerState, run: &str, round: u32) -> Result<(), LedgerError> {
        let Some(RunAccount { domain, plan, .. }) = books.runs.get(run) else { return Ok(()) };
        let Some(limit) = self.declared(domain)? else { return Ok(()) };
        let budget = match books.domains.get(domain).and_then(|books| books.budget) {
            Some(first) => limit.at_order(first.order),
            // No run was held against a budget yet: the order is that of
            // the domain's first run by name, for all of them.
            None => {
                let first = books.runs.values().find(|books| books.domain == *domain).map_or(plan, |books| &books.plan);
                limit.at_best_order(&Curve::of(&first.whole()?))
            }
        };
        let released = books.spent(domain);
        let (spent, would_be) =
            (budget.cost(&released)?, budget.cost(&released.plus(&Curve::of(&plan.release_of(round)?)))?);
        if would_be <= budget.epsilon {
            return Ok(());
        }
        let domain = domain.clone();
        Err(LedgerError::Budget { domain, limit: budget.epsilon, delta: budget.delta, spent, would_be })
    }

    /// Domains that something was released of and that no data set of
    /// client.toml has: one that was renamed starts at zero.
    pub(super) fn forgotten(&self) -> Vec<String> {
        let ledger = self.ledger();
        let named = |domain: &str| self.config.datasets.iter().any(|source| source.domain() == domain);
        let spent = ledger.state().domains.iter().filter(|(_, books)| !books.released.events().is_empty());
        spent.map(|(domain, _)| domain.clone()).filter(|domain| !named(domain)).collect()
    }

    /// Enters the release of a spooled update and says what the run has cost with it. Once this has
    /// returned the update may leave; however often it leaves then, it is the same bytes.
    ///
    /// # Errors
    /// The release cannot be entered; the update stays here.
    pub(super) fn release(&self, entry: &Entry) -> Result<v1::PrivacyReport, LedgerError> {
        let run = entry.key.run.as_str();
        let mut ledger = self.ledger();
        let update = entry.digest.to_string();
        if !ledger.state().runs.get(run).is_some_and(|books| books.updates.contains_key(&update)) {
            self.check_declared(ledger.state(), run, entry.key.round)?;
        }
        ledger.spend(run, entry.key.round, &update, unix_millis())?;
        let head = ledger.head().to_string();
        let books = ledger.state().runs.get(run).cloned();
        drop(ledger);
        let books = books.ok_or_else(|| LedgerError::NotReserved { run: run.to_owned() })?;
        let (plan, released) = (&books.plan, &books.released);
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
