//! Charging a release of a run with privacy per client, before its noise is drawn.

use rondo_dp::ClientPlanError;

use crate::effect::Release;
use crate::key::WorkKey;
use crate::phases::ended;
use crate::rejection::Rejection;
use crate::run_context::RunContext;
use crate::state::central::Charged;
use crate::state::phase::{Outcome, Phase};

/// Charges a release that is about to be made. False when the run has no budget for it: then it
/// ends.
pub(crate) fn charge(ctx: &mut RunContext<'_>, work: &WorkKey) -> Result<bool, Rejection> {
    let run = ctx.run();
    let release = run.release();
    let (Phase::Aggregating(_), Some(Release { plan, clip, .. }), true) =
        (&run.live.phase, release, ctx.work() == *work)
    else {
        return Err(run.not_open(work));
    };
    if run.has_released_all() {
        ended::end(ctx, Outcome::BudgetSpent);
        return Ok(false);
    }
    let before = run.live.charged.as_ref();
    let releases = before.map_or(0, |charged| charged.releases) + 1;
    let is_again = before.is_some_and(|charged| charged.latest == (work.round, work.attempt));
    let refused = ClientPlanError::from;
    let epsilon = plan.epsilon_after(releases).map_err(refused)?;
    let charged = Charged {
        releases,
        latest: (work.round, work.attempt),
        epsilon,
        // The tighter figure may be out of its grid's reach. Then the other one takes its place.
        epsilon_pld: plan.epsilon_pld_after(releases).map_or(epsilon, |tighter| tighter.min(epsilon)),
        next_epsilon: plan.epsilon_after(releases.saturating_add(1)).map_err(refused)?,
        epsilon_seen: plan.epsilon_seen_after(releases).map_err(refused)?,
        clip,
        ledger_head: String::new(),
    };
    if is_again {
        ctx.note(
            "the release of this round was interrupted: it is made again, with new noise, and charged again".into(),
        );
    }
    let Charged { epsilon, epsilon_pld, .. } = &charged;
    let text =
        format!("release {releases} is charged: epsilon {epsilon:.4} ({epsilon_pld:.4} by PLD) of {}", plan.epsilon);
    ctx.live().charged = Some(charged);
    ctx.announce(None, text);
    Ok(true)
}

/// Records the head of the coordinator's ledger right after the release was entered.
pub(crate) fn record_ledger_head(ctx: &mut RunContext<'_>, head: String) {
    if let Some(charged) = &mut ctx.live().charged {
        charged.ledger_head = head;
    }
}

/// Takes the clip of the next round. It was published under noise, and charged with the round's
/// release.
pub(crate) fn set_next_clip(ctx: &mut RunContext<'_>, clip: f64) {
    let Some(before) = ctx.run().clip() else { return };
    ctx.live().clip = Some(clip);
    ctx.note(format!("the clip moves from {before:.4} to {clip:.4}"));
}
