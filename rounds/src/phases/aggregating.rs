//! Aggregating: the executor turns the accepted updates into one. The set is fixed when the phase
//! begins.

use rondo_proto::{Digest, RunId};

use crate::effect::{AggregatePlan, Effect, PlannedUpdate};
use crate::key::WorkKey;
use crate::phases::{attempt, charging, publishing};
use crate::run_context::RunContext;
use crate::state::Run;
use crate::state::phase::{Aggregating, Phase};
use crate::state::publication::{Frozen, Publication};

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

/// The plan that aggregates the accepted set.
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
        start_adapter: adapter.start_adapter.map(|(digest, _)| digest),
        frozen: adapter.frozen.map(|frozen| frozen.digest),
        published: adapter.published.into_iter().map(|(_, entry)| entry.global).collect(),
        server: adapter.server,
        release: run.release(),
    }
}

/// Fixes the set and asks for its aggregation.
pub(crate) fn begin(ctx: &mut RunContext<'_>) {
    let plan_digest = ctx.run().accepted_fingerprint();
    let plan = plan(ctx.id, ctx.run());
    let count = match plan.updates.len() {
        1 => "1 update".to_owned(),
        count => format!("{count} updates"),
    };
    ctx.live().phase = Phase::Aggregating(Aggregating { plan: plan_digest });
    ctx.add_effect(Effect::Aggregate(Box::new(plan)));
    ctx.announce(None, format!("aggregating {count}"));
}

/// Takes a result. Drops one that comes late or for an attempt that is over.
pub(crate) fn aggregated(ctx: &mut RunContext<'_>, work: &WorkKey, aggregate: Aggregate) {
    let Phase::Aggregating(aggregating) = &ctx.run().live.phase else {
        return discard_stale(ctx, &aggregate);
    };
    if ctx.work() != *work {
        return discard_stale(ctx, &aggregate);
    }
    let plan = aggregating.plan;
    let ranks: Vec<usize> = ctx.run().accepted().map(|(_, part, _)| part.rank as usize).collect();
    let updates: Vec<Digest> = ctx.run().update_blobs().collect();
    let publication = Publication {
        global: aggregate.global,
        bytes: aggregate.global_bytes,
        layout_bytes: ctx.job.published_bytes(&ranks),
        frozen: aggregate.frozen.map(|digest| Frozen {
            digest,
            bytes: aggregate.frozen_bytes,
            layout_bytes: ctx.job.frozen_bytes(),
        }),
        error: aggregate.error.filter(|error| error.is_finite()),
        server: aggregate.server,
    };
    if aggregate.error.is_some_and(|error| !error.is_finite()) {
        ctx.note("the aggregation error could not be computed: it is not a number".to_owned());
    }
    charging::record_ledger_head(ctx, aggregate.ledger_head);
    if let Some(clip) = aggregate.next_clip {
        charging::set_next_clip(ctx, clip);
    }
    aggregate.notes.into_iter().for_each(|note| ctx.note(note));
    updates.into_iter().for_each(|digest| ctx.discard(digest));
    let servers = ctx.run().server_blobs();
    publishing::begin(ctx, publication, plan);
    publishing::discard_servers(ctx, servers);
}

fn discard_stale(ctx: &mut RunContext<'_>, aggregate: &Aggregate) {
    // The same result may have come before. What the run still needs is not dropped.
    aggregate.blobs().for_each(|digest| ctx.discard(digest));
}

/// The executor gave up. The attempt is over; clients train again.
pub(crate) fn failed(ctx: &mut RunContext<'_>, work: &WorkKey, reason: &str) {
    if !matches!(ctx.run().live.phase, Phase::Aggregating(_)) || ctx.work() != *work {
        return;
    }
    attempt::fail_attempt(ctx, &format!("the aggregation failed: {reason}"));
}
