//! What a ledger adds up to, by domain and by run.

use std::path::PathBuf;

use rondo_dp::{
    Budget, CentralAccount, Contents, DomainAccount, Entry, ExamplePlan, Head, LedgerError, LedgerState, RunAccount,
};
use serde::Serialize;

/// The whole ledger. In JSON a figure that is infinite is null.
#[derive(Debug, Serialize)]
pub(super) struct LedgerReport {
    pub(super) ledger: PathBuf,
    /// How many.
    pub(super) entries: u64,
    /// Pins them all.
    pub(super) head: String,
    pub(super) domains: Vec<DomainReport>,
    pub(super) runs: Vec<RunReport>,
    /// Runs that a coordinator released, in a ledger of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) central: Vec<CentralReport>,
    /// The entries themselves, where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<Vec<Dated>>,
}

/// A privacy domain.
#[derive(Debug, Serialize)]
pub(super) struct DomainReport {
    pub(super) domain: String,
    /// As it was declared last.
    pub(super) budget: Option<Budget>,
    /// At the budget's delta or, without one, at the delta of each of its runs.
    pub(super) costs: Vec<DomainCost>,
}

/// What a domain has spent over all runs.
#[derive(Debug, Serialize)]
pub(super) struct DomainCost {
    pub(super) delta: f64,
    pub(super) spent: f64,
    /// With all that open runs may still release.
    pub(super) with_set_aside: f64,
}

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    pub(super) run: String,
    pub(super) domain: String,
    pub(super) plan: ExamplePlan,
    /// The rounds whose updates were released, in order; a
    /// round that was trained once more is there twice.
    pub(super) released: Vec<u32>,
    /// What that cost.
    pub(super) epsilon: f64,
    /// Whether something may still be set aside for it.
    pub(super) open: bool,
}

/// A run that a coordinator releases. What it costs
/// its own records say, which have the run's delta.
#[derive(Debug, Serialize)]
pub(super) struct CentralReport {
    pub(super) run: String,
    pub(super) domain: String,
    /// Round and attempt of each release, in order.
    pub(super) releases: Vec<(u32, u32)>,
}

/// An entry with its place and the head after it.
#[derive(Debug, Serialize)]
pub(super) struct Dated {
    pub(super) number: u64,
    pub(super) head: String,
    #[serde(flatten)]
    pub(super) entry: Entry,
}

impl LedgerReport {
    /// Adds up; has the entries themselves where that is asked for.
    pub(super) fn new(ledger: PathBuf, contents: Contents, with_entries: bool) -> Result<Self, LedgerError> {
        let Contents { state, head, entries } = contents;
        let state = &state;
        let domains = state.domains.iter().map(|(name, domain)| domain_report(state, name, domain));
        let runs = state.runs.iter().map(|(id, run)| run_report(id, run));
        let dated = |(entry, head): (Entry, Head)| Dated { number: head.entries, head: head.to_string(), entry };
        Ok(Self {
            ledger,
            entries: head.entries,
            head: head.to_string(),
            domains: domains.collect::<Result<_, _>>()?,
            runs: runs.collect::<Result<_, _>>()?,
            central: state.central.iter().map(|(id, run)| central_report(id, run)).collect(),
            history: with_entries.then(|| entries.into_iter().map(dated).collect()),
        })
    }
}

fn domain_report(state: &LedgerState, name: &str, domain: &DomainAccount) -> Result<DomainReport, LedgerError> {
    let spent = state.spent(name);
    let committed = state.committed(name)?;
    let costs = match domain.budget {
        Some(budget) => vec![DomainCost {
            delta: budget.delta,
            spent: budget.cost(&spent)?,
            with_set_aside: budget.cost(&committed)?,
        }],
        None => {
            let at = |delta: f64| {
                let spent = spent.epsilon_enforced(delta)?;
                let with_set_aside = committed.epsilon_enforced(delta)?;
                Ok(DomainCost { delta, spent, with_set_aside })
            };
            deltas(state, name).into_iter().map(at).collect::<Result<_, LedgerError>>()?
        }
    };
    Ok(DomainReport { domain: name.to_owned(), budget: domain.budget, costs })
}

/// The deltas of a domain's runs, each once.
fn deltas(state: &LedgerState, domain: &str) -> Vec<f64> {
    let mut deltas: Vec<f64> =
        state.runs.values().filter(|run| run.domain == domain).map(|run| run.plan.delta).collect();
    deltas.sort_by(f64::total_cmp);
    deltas.dedup();
    deltas
}

fn central_report(id: &str, account: &CentralAccount) -> CentralReport {
    CentralReport { run: id.to_owned(), domain: account.domain.clone(), releases: account.releases.clone() }
}

fn run_report(id: &str, account: &RunAccount) -> Result<RunReport, LedgerError> {
    let mut released: Vec<u32> = account.updates.values().copied().collect();
    released.sort_unstable();
    Ok(RunReport {
        run: id.to_owned(),
        domain: account.domain.clone(),
        plan: account.plan,
        released,
        epsilon: account.released.epsilon_enforced(account.plan.delta)?,
        open: !account.closed,
    })
}
