//! What ends a client's attempt, and what ends an attempt as a whole.

use rondo_proto::ClientId;

use crate::phases::ended;
use crate::run_context::RunContext;
use crate::state::participation::ParticipationState;
use crate::state::phase::{Outcome, Phase, Recruiting};

/// Takes a client out of the open attempt. An update it may have sent is dropped too.
pub(crate) fn drop_client(ctx: &mut RunContext<'_>, client: &ClientId, reason: String) {
    let round = ctx.run().live.open.round;
    let Some(part) = ctx.participation(client) else { return };
    part.state = ParticipationState::Dropped;
    part.reason.clone_from(&reason);
    let update = part.update.take();
    ctx.member(client).failed_in = Some(round);
    if let Some(update) = update {
        ctx.discard(update.digest);
    }
    ctx.announce(Some(client), format!("dropped from round {round}: {reason}"));
}

/// Ends the open attempt without a result: another one is made, with a new draw, or the run fails.
pub(crate) fn fail_attempt(ctx: &mut RunContext<'_>, why: &str) {
    let open = ctx.run().live.open.clone();
    let max_attempts = ctx.run().spec.policy.max_attempts;
    let text = format!("attempt {} at round {} failed: {why}", open.attempt, open.round);
    ctx.announce(None, text.clone());
    ctx.note(text);
    if open.attempt >= max_attempts {
        let attempts = if open.attempt == 1 { "1 attempt".to_owned() } else { format!("{} attempts", open.attempt) };
        return ended::end(ctx, Outcome::Failed(format!("round {} after {attempts}: {why}", open.round)));
    }

    let parts: Vec<ClientId> = ctx.run().participations().map(|(client, _)| client.clone()).collect();
    for client in parts {
        let Some(part) = ctx.participation(&client) else { continue };
        if part.state != ParticipationState::Dropped {
            part.state = ParticipationState::Dropped;
            part.reason = "the attempt failed without it".to_owned();
        }
        part.reason = format!("attempt {}: {}", open.attempt, part.reason);
        if let Some(update) = part.update.take() {
            ctx.discard(update.digest);
        }
    }
    let now = ctx.now();
    let live = ctx.live();
    live.open.attempt += 1;
    live.phase = Phase::Recruiting(Recruiting::again(now, live.open.attempt));
}
