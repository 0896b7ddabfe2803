//! Who says yes to a run that the policy allows: the policy alone, or a person at the site.

use std::path::PathBuf;

use super::failure::Failure;
use crate::config::Approval;
use crate::decisions;
use crate::home::Home;
use crate::terms::{Standing, Terms, TermsFolder};

/// The key `approve` of `[policy]`, what people here said, and the terms that they are shown.
pub struct RunApproval {
    approve: Approval,
    terms: TermsFolder,
    decisions: PathBuf,
}

impl RunApproval {
    /// Asks as client.toml says, with the records of a client's folder.
    pub fn new(approve: Approval, home: &Home) -> Self {
        Self { approve, terms: TermsFolder::new(home.terms()), decisions: home.decisions() }
    }

    /// Passes on terms that need no word of a person, or have one. `is_agreed` is for a run that
    /// this client takes part in already. What the terms are, and where they stand, is on the disk
    /// when this returns.
    pub(super) fn check(&self, terms: Terms, is_agreed: bool) -> Result<(), Failure> {
        let said = decisions::decision(&self.decisions, &terms.run, &terms.digest()).unwrap_or_else(|error| {
            tracing::error!(%error, "nobody's decision is known");
            None
        });
        let standing = match said.map(|decision| decision.approved) {
            Some(true) => Standing::Accepted,
            Some(false) => Standing::Declined,
            None if is_agreed || self.approve == Approval::Auto => Standing::Accepted,
            None => Standing::Undecided,
        };
        let run = terms.run.clone();
        let is_news = self
            .terms
            .put(Terms { standing, ..terms })
            .map_err(|error| Failure::NotAgreed(format!("this client cannot note the terms: {}", error.kind())))?;
        match standing {
            Standing::Accepted => Ok(()),
            Standing::Declined => Err(Failure::Declined),
            Standing::Undecided => {
                if is_news {
                    tracing::warn!(%run, "waits for a person: rondo-client approve {run}, or decline {run}");
                }
                Err(Failure::Undecided)
            }
        }
    }

    /// Notes that this client does not take part in a run whose terms it knows.
    pub(super) fn declined(&self, run: &rondo_proto::RunId) {
        if let Err(error) = self.terms.note(run, Standing::Declined) {
            tracing::warn!(%run, %error, "the terms stay as they were");
        }
    }
}
