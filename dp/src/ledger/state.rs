//! What a ledger's entries add up to. No files in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::LedgerError;
use crate::accountant::Accountant;
use crate::budget::{Budget, Limit};
use crate::curve::Curve;
use crate::event::Event;
use crate::example_plan::ExamplePlan;

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A run's whole plan is set aside in a domain.
    Reserve {
        /// The run.
        run: String,
        /// The domain, as the data owner declares it.
        domain: String,
        /// What the run may release.
        plan: ExamplePlan,
        /// The domain's budget it was held against, where the owner declared one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        /// Milliseconds since 1970, for people.
        at_ms: i64,
    },
    /// One update is released.
    Spend {
        /// The run.
        run: String,
        /// Its round.
        round: u32,
        /// Digest of the very bytes that are released; sending them again costs nothing.
        update: String,
        /// What the release costs.
        event: Event,
        /// As of a reservation.
        at_ms: i64,
    },
    /// A coordinator releases the noised sum of a round; every try is
    /// an entry of its own, since each has new noise.
    Release {
        /// The run.
        run: String,
        /// The domain: the name of the data set that the clients map.
        domain: String,
        /// Its round.
        round: u32,
        /// The attempt at the round.
        attempt: u32,
        /// What it costs every client.
        event: Event,
        /// As of a reservation.
        at_ms: i64,
    },
    /// A run has ended: what it did not spend is free again.
    Close {
        /// The run.
        run: String,
        /// As of a reservation.
        at_ms: i64,
    },
}

/// One run's account.
#[derive(Debug, Clone, PartialEq)]
pub struct RunAccount {
    /// The domain its releases count in.
    pub domain: String,
    /// What was reserved.
    pub plan: ExamplePlan,
    /// What was released.
    pub released: Accountant,
    /// Updates released, by digest, with their rounds.
    pub updates: BTreeMap<String, u32>,
    /// Nothing more is set aside for it.
    pub closed: bool,
}

impl RunAccount {
    /// Where another plan in another domain differs from what was reserved. Every number by name,
    /// so that none can be forgotten.
    pub(super) fn differences(&self, domain: &str, plan: &ExamplePlan) -> Vec<String> {
        let mut differences = Vec::new();
        let mut hold = |what: &str, was: String, is: String| {
            if was != is {
                differences.push(format!("{what} was {was} and is {is}"));
            }
        };
        let ExamplePlan {
            clip,
            noise_multiplier,
            sampling_rate,
            expected_batch,
            steps,
            rounds,
            epsilon,
            delta,
            warm_up_clip,
        } = self.plan;
        hold("the privacy domain", format!("{:?}", self.domain), format!("{domain:?}"));
        for (what, was, is) in [
            ("the sampling rate, which the number of training examples fixes,", sampling_rate, plan.sampling_rate),
            ("the noise multiplier", noise_multiplier, plan.noise_multiplier),
            ("the clip", clip, plan.clip),
            ("the expected batch", expected_batch, plan.expected_batch),
            ("epsilon", epsilon, plan.epsilon),
            ("delta", delta, plan.delta),
        ] {
            // Written to the last digit, so that numbers are alike only if they are the same.
            hold(what, was.to_string(), is.to_string());
        }
        let spell = |clip: Option<f64>| clip.map_or("none".to_owned(), |clip| clip.to_string());
        hold("the clip of the warm-up", spell(warm_up_clip), spell(plan.warm_up_clip));
        hold("the number of steps", steps.to_string(), plan.steps.to_string());
        hold("the number of rounds", rounds.to_string(), plan.rounds.to_string());
        differences
    }

    fn reserved(&self) -> Result<Curve, LedgerError> {
        if self.closed {
            return Ok(Curve::zero());
        }
        let done = u32::try_from(self.rounds_released()).unwrap_or(u32::MAX);
        Ok(Curve::enforceable(&self.plan.rest(done, self.has_warmed_up())?))
    }

    /// Whether a warm-up was released.
    fn has_warmed_up(&self) -> bool {
        self.plan.warm_up_clip.is_some() && self.updates.values().any(|&round| round == 0)
    }

    /// Updates of rounds that were released; a paid warm-up is none of them.
    fn rounds_released(&self) -> usize {
        let is_round = |round: u32| round > 0 || self.plan.warm_up_clip.is_none();
        self.updates.values().filter(|&&round| is_round(round)).count()
    }

    /// Whether the reservation has room for a release of this round.
    fn foresees(&self, round: u32) -> bool {
        if self.closed {
            return false;
        }
        match round == 0 && self.plan.warm_up_clip.is_some() {
            true => !self.has_warmed_up(),
            false => self.rounds_released() < self.plan.rounds as usize,
        }
    }
}

/// What a coordinator has released of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct CentralAccount {
    /// The domain its releases count in.
    pub domain: String,
    /// What was released.
    pub released: Accountant,
    /// Round and attempt of each release, in order.
    pub releases: Vec<(u32, u32)>,
}

/// One domain's account.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainAccount {
    /// The latest budget that was declared; its order is the first one's.
    pub budget: Option<Budget>,
    /// What was released, over all runs.
    pub released: Accountant,
}

impl DomainAccount {
    fn empty() -> Self {
        Self { budget: None, released: Accountant::new() }
    }
}

/// All accounts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LedgerState {
    /// By run.
    pub runs: BTreeMap<String, RunAccount>,
    /// Releases of a coordinator, by run.
    pub central: BTreeMap<String, CentralAccount>,
    /// By domain.
    pub domains: BTreeMap<String, DomainAccount>,
}

impl LedgerState {
    /// What a domain has released, at the integer orders.
    pub fn spent(&self, domain: &str) -> Curve {
        match self.domains.get(domain) {
            Some(account) => account.released.enforceable(),
            None => Curve::zero(),
        }
    }

    /// What a domain has released and what its open runs may still release, at the integer orders.
    ///
    /// # Errors
    /// Numbers out of range, in an entry that was read.
    pub fn committed(&self, domain: &str) -> Result<Curve, LedgerError> {
        let mut sum = self.spent(domain);
        for run in self.runs.values().filter(|run| run.domain == domain) {
            sum = sum.plus(&run.reserved()?);
        }
        Ok(sum)
    }

    /// The budget to hold a domain to: what is declared, at the order that was fixed first.
    pub(super) fn budget(&self, domain: &str, declared: Limit, plan: &Curve) -> Budget {
        match self.domains.get(domain).and_then(|account| account.budget) {
            Some(first) => declared.at_order(first.order),
            None => declared.at_best_order(plan),
        }
    }

    /// Checks that an update of round `round` (0 = the warm-up) of a run may be released.
    pub(super) fn check_spend(&self, run: &str, round: u32) -> Result<&RunAccount, LedgerError> {
        let account = self.runs.get(run).ok_or_else(|| LedgerError::NotReserved { run: run.to_owned() })?;
        let event = account.plan.release_of(round)?;
        let would_be = account.plan.cost_after(&account.released, event)?;
        if would_be > account.plan.epsilon {
            return Err(LedgerError::RunSpent {
                run: run.to_owned(),
                limit: account.plan.epsilon,
                spent: account.released.epsilon_enforced(account.plan.delta)?,
                would_be,
            });
        }
        // Within what was reserved the domain was asked already; a
        // round that is trained once more was not foreseen.
        let foreseen = account.foresees(round);
        if let Some(budget) = self.domains.get(&account.domain).and_then(|domain| domain.budget).filter(|_| !foreseen) {
            self.check_budget(&account.domain, budget, &Curve::enforceable(&event))?;
        }
        Ok(account)
    }

    /// Checks that something more fits a domain's budget.
    pub(super) fn check_budget(&self, domain: &str, budget: Budget, more: &Curve) -> Result<(), LedgerError> {
        let committed = self.committed(domain)?;
        let spent = budget.cost(&committed)?;
        let would_be = budget.cost(&committed.plus(more))?;
        if would_be <= budget.epsilon {
            return Ok(());
        }
        let domain = domain.to_owned();
        Err(LedgerError::Budget { domain, limit: budget.epsilon, delta: budget.delta, spent, would_be })
    }

    /// Takes an entry in.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Reserve { run, domain, plan, budget, .. } => {
                if self.runs.contains_key(run) {
                    return Err(format!("run {run} is reserved a second time"));
                }
                let account = self.domains.entry(domain.clone()).or_insert_with(DomainAccount::empty);
                account.budget = budget.or(account.budget);
                let account = RunAccount {
                    domain: domain.clone(),
                    plan: *plan,
                    released: Accountant::new(),
                    updates: BTreeMap::new(),
                    closed: false,
                };
                self.runs.insert(run.clone(), account);
            }
            Entry::Spend { run, round, update, event, .. } => {
                let account = self.runs.get_mut(run).ok_or_else(|| format!("nothing was reserved for run {run}"))?;
                if account.updates.insert(update.clone(), *round).is_some() {
                    return Err(format!("update {update} is spent a second time"));
                }
                account.released.record(*event);
                let domain = self.domains.get_mut(&account.domain);
                domain.ok_or_else(|| format!("there is no domain {}", account.domain))?.released.record(*event);
            }
            Entry::Release { run, domain, round, attempt, event, .. } => {
                let empty =
                    || CentralAccount { domain: domain.clone(), released: Accountant::new(), releases: Vec::new() };
                let account = self.central.entry(run.clone()).or_insert_with(empty);
                if account.domain != *domain {
                    return Err(format!("run {run} releases of domain {domain} and of {}", account.domain));
                }
                account.released.record(*event);
                account.releases.push((*round, *attempt));
                let domain = self.domains.entry(domain.clone()).or_insert_with(DomainAccount::empty);
                domain.released.record(*event);
            }
            Entry::Close { run, .. } => {
                self.runs.get_mut(run).ok_or_else(|| format!("nothing was reserved for run {run}"))?.closed = true;
            }
        }
        Ok(())
    }
}
