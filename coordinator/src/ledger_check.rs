//! Checks the run records against the privacy ledger before anything is served.
//!
//! A release is charged in the records first and then entered in the ledger. So the records always
//! count at least as many releases of a run as the ledger. Records that count fewer are older than
//! the ledger: somebody restored a copy, and with it the run would get back budget that is spent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_dp::{Ledger, LedgerError, LedgerState};
use rondo_rounds::Engine;

use crate::driver::{Driver, DriverError};

/// Why a coordinator does not start with its ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerCheckError {
    /// The ledger itself.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The records lack a release that the ledger has.
    #[error(
        "the run records in {} are older than the privacy ledger {}: the ledger has {entered} releases of run `{run}`, the \
         records have {charged}, and would release again what is spent; restore the newest copy of the records, which is \
         no older than the ledger, or go on with other runs in a new data directory",
        .store.display(), .ledger.display()
    )]
    Older {
        /// The records' folder.
        store: PathBuf,
        /// The ledger.
        ledger: PathBuf,
        /// The run.
        run: String,
        /// Its releases in the ledger.
        entered: usize,
        /// Its releases by the records.
        charged: u32,
    },
    /// The records cannot be read.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Opens the ledger and checks the records in `store` against it.
pub(crate) async fn open(ledger: &Path, store: &Path, driver: &Driver) -> Result<Ledger, LedgerCheckError> {
    let opened = Ledger::open(ledger)?;
    let charged = driver.view(charged).await?;
    match first_missing(opened.state(), &charged) {
        None => Ok(opened),
        Some((run, entered, charged)) => {
            Err(LedgerCheckError::Older { store: store.to_owned(), ledger: ledger.to_owned(), run, entered, charged })
        }
    }
}

/// Releases by run, as the records count them.
fn charged(engine: &Engine) -> BTreeMap<String, u32> {
    let runs = engine.state().runs.iter();
    runs.filter_map(|(id, run)| Some((id.to_string(), run.live.charged.as_ref()?.releases))).collect()
}

/// The first run with more releases in the ledger than in the records, with both numbers.
fn first_missing(state: &LedgerState, charged: &BTreeMap<String, u32>) -> Option<(String, usize, u32)> {
    state.central.iter().find_map(|(run, central)| {
        let entered = central.releases.len();
        let charged = charged.get(run).copied().unwrap_or_default();
        (entered > charged as usize).then(|| (run.clone(), entered, charged))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_count_more_releases_than_the_ledger_and_never_fewer() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&dir.path().join("ledger.jsonl")).unwrap();
        let event = rondo_dp::Event::new(2.0, 1.0, 1).unwrap();
        for (run, round) in [("a", 1), ("a", 2), ("b", 1)] {
            ledger.release(run, "reviews", (round, 1), event, 0).unwrap();
        }
        let found = |charged: &[(&str, u32)]| {
            let charged = charged.iter().map(|(run, releases)| ((*run).to_owned(), *releases)).collect();
            first_missing(ledger.state(), &charged)
        };
        assert_eq!(found(&[("a", 2), ("b", 1)]), None);
        assert_eq!(found(&[("a", 3), ("b", 2), ("c", 9)]), None, "charged, and a crash came before the entry");
        assert_eq!(found(&[("a", 1), ("b", 1)]), Some(("a".to_owned(), 2, 1)));
        assert_eq!(found(&[("a", 2)]), Some(("b".to_owned(), 1, 0)), "a run that the records never knew");
    }
}
