//! Whether a site could serve a run: what the daemon looks at when it starts, and what it would
//! otherwise find out when the first run comes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_data::{Content, DataError, Dataset, OnBadRow, Source, TaskSpec};
use rondo_dp::{Budget, Ledger, LedgerState};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::{TaskKind, Template};
use rondo_trainer_api::memory::machine;
use rondo_wire::identity;
use serde::Serialize;

use crate::config::{Config, PolicyConfig};
use crate::daemon::startup_checks;
use crate::home::LEDGER;
use crate::models;

/// Labels that are looked for in a data set whose table names none.
const MOST_LABELS: usize = 200;
/// Rows that are taken at a time.
const CHUNK: usize = 1_000;

/// What was found. The site can serve where `problems` is empty.
#[derive(Debug, Default, Serialize)]
pub struct SiteReport {
    /// Who this client is.
    pub identity: Option<IdentityReport>,
    /// The models that can be used.
    pub models: Vec<ModelReport>,
    /// The data sets that can be used.
    pub datasets: Vec<DatasetReport>,
    /// The `[policy]` table with its defaults.
    pub policy: Option<PolicyConfig>,
    /// Room in the privacy budgets of client.toml.
    pub ledger: Vec<RoomReport>,
    /// Free bytes on the disk of the folder; absent where the system does not say.
    pub disk_free: Option<u64>,
    /// Bytes that training may come to use; absent where the system does not say.
    pub memory: Option<u64>,
    /// What may keep some runs away.
    pub warnings: Vec<String>,
    /// What stops this site from serving.
    pub problems: Vec<String>,
}

/// The identity in the folder.
#[derive(Debug, Serialize)]
pub struct IdentityReport {
    /// The client's name.
    pub name: String,
    /// The coordinator's address.
    pub coordinator: String,
    /// End of the certificate's validity, milliseconds since 1970.
    pub certificate_ends_ms: i64,
}

/// A model.
#[derive(Debug, Serialize)]
pub struct ModelReport {
    /// Its folder or file.
    pub path: PathBuf,
    /// As config.json names it.
    pub architecture: String,
    /// By which runs name it.
    pub digest: String,
}

/// A data set.
#[derive(Debug, Serialize)]
pub struct DatasetReport {
    /// Its name.
    pub name: String,
    /// The tasks that its rows serve.
    pub serves: Vec<TaskReport>,
}

/// A data set as one kind of task reads it.
#[derive(Debug, Serialize)]
pub struct TaskReport {
    /// The kind of task.
    pub task: &'static str,
    /// Rows to train on.
    pub train: usize,
    /// Rows that are held out.
    pub held_out: usize,
    /// Rows that cannot be used.
    pub skipped: u64,
    /// Rows by label, of a classification.
    pub labels: BTreeMap<String, u64>,
}

/// A privacy budget.
#[derive(Debug, Serialize)]
pub struct RoomReport {
    /// The privacy domain.
    pub domain: String,
    /// Most that may be spent.
    pub epsilon: f64,
    /// The chance of failure that it holds at.
    pub delta: f64,
    /// What was spent.
    pub spent: f64,
    /// With all that open runs may still spend.
    pub with_set_aside: f64,
}

/// Looks at everything in a client's folder and in its configuration. Nothing is written.
pub fn check(dir: &Path, config: &Path) -> SiteReport {
    let mut report = SiteReport { disk_free: free_space(dir), memory: machine::room(), ..SiteReport::default() };
    report.check_identity(dir);
    match Config::read(config) {
        Err(error) => report.problems.push(error.to_string()),
        Ok(config) => {
            report.problems.extend(startup_checks::missing_tables(&config).into_iter().map(startup_checks::no_table));
            report.check_models(&config);
            config.datasets.iter().for_each(|source| report.check_dataset(source, config.limits.data_mb << 20));
            report.check_ledger(dir, &config);
            report.policy = Some(config.policy);
        }
    }
    report
}

impl SiteReport {
    fn check_identity(&mut self, dir: &Path) {
        let identity = match identity::load(dir) {
            Ok(identity) => identity,
            Err(error) => return self.problems.push(error.to_string()),
        };
        if identity.role != "client" {
            let role = &identity.role;
            self.problems.push(format!("{} holds the identity of {role}, not of a client", dir.display()));
        }
        let Some((begins, ends)) = validity_ms(&identity.cert_pem) else {
            return self.problems.push(format!("{}: the certificate cannot be read", dir.display()));
        };
        let now = unix_millis();
        if now < begins {
            self.problems.push("the certificate is not valid yet: is this machine's clock behind?".to_owned());
        }
        if now > ends {
            self.problems.push("the certificate has expired; an operator makes a token for a new one".to_owned());
        }
        let (name, coordinator) = (identity.name, identity.url);
        self.identity = Some(IdentityReport { name, coordinator, certificate_ends_ms: ends });
    }

    fn check_models(&mut self, config: &Config) {
        for model in &config.models {
            let described = models::places(std::slice::from_ref(model)).and_then(|places| models::describe(&places));
            match described {
                Err(error) => self.problems.push(error.to_string()),
                Ok(found) => self.models.extend(found.into_iter().map(|(path, base)| ModelReport {
                    path,
                    architecture: base.architecture,
                    digest: base.digest,
                })),
            }
        }
    }

    fn check_dataset(&mut self, source: &Source, in_memory: u64) {
        if let Err(error) = startup_checks::check_dataset(source) {
            return self.problems.push(error.to_string());
        }
        let name = source.name.clone();
        let mut serves = Vec::new();
        let mut refusal = None;
        for kind in TaskKind::ALL {
            match task_report(source, kind, in_memory) {
                Ok(task) => serves.push(task),
                // What reads no row of this shape is no fault.
                Err(DataError::MissingColumn { .. } | DataError::RowFormatOfTask { .. }) => {}
                Err(error) => refusal = Some(error),
            }
        }
        if let (true, Some(error)) = (serves.is_empty(), refusal) {
            return self.problems.push(format!("data set {name:?}: {error}"));
        }
        if serves.iter().all(|task| task.train == 0) {
            self.problems.push(format!("data set {name:?} leaves no rows to train on; lower its `eval_fraction`"));
        }
        if serves.iter().all(|task| task.held_out == 0) {
            self.warnings.push(format!("data set {name:?} holds no rows out: runs that evaluate are declined"));
        }
        self.datasets.push(DatasetReport { name, serves });
    }

    fn check_ledger(&mut self, dir: &Path, config: &Config) {
        let path = dir.join(LEDGER);
        let state = match path.exists().then(|| Ledger::read(&path)).transpose() {
            Ok(contents) => contents.map(|contents| contents.state).unwrap_or_default(),
            Err(error) => return self.problems.push(error.to_string()),
        };
        for declared in &config.privacy {
            let (epsilon, delta) = (declared.epsilon, declared.delta);
            let domain = declared.domain.clone();
            let budget = state.domains.get(&domain).and_then(|account| account.budget);
            match costs(&state, &domain, budget) {
                Err(error) => self.problems.push(error.to_string()),
                Ok((spent, with_set_aside)) => {
                    if with_set_aside >= epsilon {
                        self.problems.push(format!("the privacy budget of {domain:?} has no room left"));
                    }
                    self.ledger.push(RoomReport { domain, epsilon, delta, spent, with_set_aside });
                }
            }
        }
    }
}

/// What a domain has spent, and with all that is set aside.
fn costs(state: &LedgerState, domain: &str, budget: Option<Budget>) -> Result<(f64, f64), rondo_dp::LedgerError> {
    let Some(budget) = budget else { return Ok((0.0, 0.0)) };
    Ok((budget.cost(&state.spent(domain))?, budget.cost(&state.committed(domain)?)?))
}

fn task_report(source: &Source, kind: TaskKind, in_memory: u64) -> Result<TaskReport, DataError> {
    let names = if kind == TaskKind::Classification { labels(source, in_memory)? } else { Vec::new() };
    let data = Dataset::load(source, TaskSpec { kind, labels: &names, template: Template::Auto }, in_memory)?;
    let mut labels: BTreeMap<String, u64> = names.iter().map(|name| (name.clone(), 0)).collect();
    for split in [data.train(), data.held_out()] {
        for first in (0..split.len()).step_by(CHUNK) {
            for example in split.range(first..(first + CHUNK).min(split.len()))?.iter() {
                if let Content::Labelled { label, .. } = &example.content
                    && let Some(name) = names.get(*label as usize)
                {
                    *labels.entry(name.clone()).or_default() += 1;
                }
            }
        }
    }
    let skipped = data.skipped();
    Ok(TaskReport { task: kind.name(), train: data.train().len(), held_out: data.held_out().len(), skipped, labels })
}

/// The labels that a run could use: those of the table, and those of rows that it does not name.
fn labels(source: &Source, in_memory: u64) -> Result<Vec<String>, DataError> {
    let mut names: Vec<String> = source.labels.values().cloned().collect();
    names.sort();
    names.dedup();
    // A label that is not known is named when it is met, so each look finds one more.
    let strict = Source { on_bad_row: OnBadRow::Stop, ..source.clone() };
    while names.len() < MOST_LABELS {
        match Dataset::load(&strict, TaskSpec::classification(&names), in_memory) {
            Err(DataError::UnknownLabel { label, .. }) => {
                let name = serde_json::from_str(&label).unwrap_or(label);
                if names.contains(&name) {
                    break;
                }
                names.push(name);
            }
            Err(error) if names.is_empty() && source.on_bad_row == OnBadRow::Stop => return Err(error),
            _ => break,
        }
    }
    names.sort();
    Ok(names)
}

/// Begin and end of a certificate's validity.
fn validity_ms(pem: &str) -> Option<(i64, i64)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp() * 1000, validity.not_after.timestamp() * 1000))
}

/// Free bytes on the disk of a folder, for its owner.
fn free_space(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let about = rustix::fs::statvfs(dir).ok()?;
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}
