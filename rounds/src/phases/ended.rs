//! Ended: nothing moves any more.

use crate::run_context::RunContext;
use crate::state::participation::{EvaluationState, ParticipationState};
use crate::state::phase::{Ended, Outcome, Phase};

/// Ends the run. Assigned work is dropped, its blobs too; the open round stays visible as it was.
pub(crate) fn end(ctx: &mut RunContext<'_>, outcome: Outcome) {
    let updates: Vec<_> = ctx.run().update_blobs().collect();
    updates.into_iter().chain(ctx.run().server_blobs()).for_each(|digest| ctx.discard(digest));

    let reason = match &outcome {
        Outcome::Completed => "the run is complete".to_owned(),
        Outcome::Cancelled => "the run was cancelled".to_owned(),
        Outcome::BudgetSpent => "the run has spent its privacy budget".to_owned(),
        Outcome::Failed(why) => format!("the run failed: {why}"),
    };
    let at_work: Vec<_> = ctx
        .run()
        .participations()
        .filter(|(_, part)| part.state.is_open() || part.evaluation.is_open())
        .map(|(client, _)| client.clone())
        .collect();
    for client in at_work {
        let Some(part) = ctx.participation(&client) else { continue };
        if part.state.is_open() {
            part.state = ParticipationState::Dropped;
            part.reason.clone_from(&reason);
        }
        if part.evaluation.is_open() {
            part.evaluation = EvaluationState::Missed;
        }
    }

    let text = format!("the run has ended: {outcome}");
    let at = ctx.now().max(ctx.run().spec.created_at);
    let live = ctx.live();
    live.paused_at = None;
    live.phase = Phase::Ended(Ended { at, outcome });
    ctx.announce(None, text);
}
