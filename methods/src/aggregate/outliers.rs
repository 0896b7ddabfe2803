//! Clients whose warm-up statistic was left out of some targets.

use std::collections::BTreeMap;

use crate::law::Outlier;

/// The outliers of a warm-up, by client.
#[derive(Debug, Default)]
pub(super) struct OutlierSummary {
    clients: BTreeMap<String, OutlierClient>,
}

/// In how many targets a client was left out, and in which it was worst.
#[derive(Debug)]
struct OutlierClient {
    targets: usize,
    worst_target: String,
    worst_error: f64,
}

impl OutlierSummary {
    /// Adds those of one target.
    pub(super) fn add(&mut self, target: &str, outliers: Vec<Outlier>) {
        for Outlier { client, relative_error } in outliers {
            let first = || OutlierClient { targets: 0, worst_target: target.to_owned(), worst_error: relative_error };
            let known = self.clients.entry(client).or_insert_with(first);
            known.targets += 1;
            if relative_error > known.worst_error || relative_error.is_nan() {
                known.worst_target = target.to_owned();
                known.worst_error = relative_error;
            }
        }
    }

    /// One note for each client, in a run of `targets` targets.
    pub(super) fn notes(&self, targets: usize) -> Vec<String> {
        let note = |(client, outlier): (&String, &OutlierClient)| {
            format!(
                "client {client}: its factors were not used in {} of {targets} targets (`{}` is off by {:.1e}): its base \
                 weights differ from those of most clients",
                outlier.targets, outlier.worst_target, outlier.worst_error
            )
        };
        self.clients.iter().map(note).collect()
    }
}
