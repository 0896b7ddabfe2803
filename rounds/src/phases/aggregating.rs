//! Aggregating: the executor turns the accepted updates into one. The set is fixed when the phase begins.

use rondo_proto::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::{Phase, collecting, publishing};
use crate::central;
use crate::desk::Desk;
use crate::effect::{AggregatePlan, Effect, PlannedUpdate};
use crate::input::WorkKey;
use crate::state::{Frozen, Publication, Run};

/// Waits for the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregating {
    /// Fingerprint of the set that is being aggregated: who, what, how much.
    pub plan: Digest,
}

/// What an executor hands back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Aggregate {
    pub(crate) global: Digest,
    pub(crate) global_bytes: u64,
    pub(crate) frozen: Option<Digest>,
    pub(crate) frozen_bytes: u64,
    pub(crate) server: Option<Digest>,
    pub(crate) error: Option<f64>,
    pub(crate) next_clip: Option<f64>,
    pub(crate) ledger_head: String,
    pub(crate) notes: Vec<String>,
}

impl Aggregate {
    /// Every blob that the executor made.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Digest> {
        [Some(self.global), self.frozen, self.server].into_iter().flatten()
    }
}

/// Fingerprint of the accepted set: who, what, how much.
pub(crate) fn fingerprint(run: &Run) -> Digest {
    let lines: Vec<String> = run
        .accepted()
        .map(|(client, part, update)| format!("{client} {} {} {}\n", update.digest, update.examples, part.rank))
        .collect();
    Digest::of(lines.concat().as_bytes())
}

/// The order for the accepted set.
pub(crate) fn plan(id: &RunId, run: &Run) -> AggregatePlan {
    let open = &run.live.open;
    let adapter = run.adapter(None);
    let weights = run.weights();
    AggregatePlan {
        work: WorkKey { run: id.clone(), round: open.round, attempt: open.attempt },
        kind: open.kind,
        updates: run
            .accepted()
            .map(|(client, part, update)| PlannedUpdate {
                client: client.clone(),
                digest: update.digest,
                weight: weights.get(client).copied().unwrap_or_default(),
                rank: part.rank,
            })
            .collect(),
        initial: adapter.initial.map(|(digest, _)| digest),
        frozen: adapter.frozen.map(|frozen| frozen.digest),
        published: adapter.published.into_iter().map(|(_, entry)| entry.global).collect(),
        server: adapter.server,
        release: run.release(),
    }
}

/// Fixes the set and orders its aggregation.
pub(crate) fn begin(desk: &mut Desk<'_>) {
    let plan_digest = fingerprint(desk.run());
    let plan = plan(desk.id, desk.run());
    let count = match plan.updates.len() {
        1 => "1 update".to_owned(),
        count => format!("{count} updates"),
    };
    desk.live().phase = Phase::Aggregating(Aggregating { plan: plan_digest });
    desk.order(Effect::Aggregate(Box::new(plan)));
    desk.announce(None, format!("aggregating {count}"));
}

/// Takes a result. One that comes late, or for an attempt that is over, is let go.
pub(crate) fn aggregated(desk: &mut Desk<'_>, work: &WorkKey, aggregate: Aggregate) {
    let Phase::Aggregating(aggregating) = &desk.run().live.phase else {
        return discard_stale(desk, &aggregate);
    };
    if desk.work() != *work {
        return discard_stale(desk, &aggregate);
    }
    let plan = aggregating.plan;
    let ranks: Vec<usize> = desk.run().accepted().map(|(_, part, _)| part.rank as usize).collect();
    let updates: Vec<Digest> = desk.run().update_blobs().collect();
    let publication = Publication {
        global: aggregate.global,
        bytes: aggregate.global_bytes,
        layout_bytes: desk.job.published_bytes(&ranks),
        frozen: aggregate.frozen.map(|digest| Frozen {
            digest,
            bytes: aggregate.frozen_bytes,
            layout_bytes: desk.job.frozen_bytes(),
        }),
        error: aggregate.error.filter(|error| error.is_finite()),
        server: aggregate.server,
    };
    if aggregate.error.is_some_and(|error| !error.is_finite()) {
        desk.note("the aggregation error could not be computed: it is not a number".to_owned());
    }
    central::enter_head(desk, aggregate.ledger_head);
    if let Some(clip) = aggregate.next_clip {
        central::move_clip(desk, clip);
    }
    aggregate.notes.into_iter().for_each(|note| desk.note(note));
    updates.into_iter().for_each(|digest| desk.discard(digest));
    let servers = desk.run().server_blobs();
    publishing::begin(desk, publication, plan);
    publishing::discard_servers(desk, servers);
}

fn discard_stale(desk: &mut Desk<'_>, aggregate: &Aggregate) {
    // The same result may have come before: what the run publishes is never dropped, whoever lets go of it.
    aggregate.blobs().for_each(|digest| desk.discard(digest));
}

/// The executor gave up. The attempt is over; clients train anew.
pub(crate) fn failed(desk: &mut Desk<'_>, work: &WorkKey, reason: &str) {
    if !matches!(desk.run().live.phase, Phase::Aggregating(_)) || desk.work() != *work {
        return;
    }
    collecting::fail_attempt(desk, &format!("the aggregation failed: {reason}"));
}
