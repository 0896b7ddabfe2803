//! The phases of a round, one file each.
//!
//! ```text
//! Recruiting -> WarmUp   -+
//!     ^    \              +-> Aggregating -> Publishing -> (next round) Recruiting
//!     |     -> Training  -+        |             |
//!     +---- next attempt <---------+             +-> Ended
//! ```
//! A phase's `advance` looks at the run and the time, and moves the run on if it can. An input only
//! records what happened. [`advance`] then decides. It skips a paused run, so nothing is decided
//! there.
//!
//! A phase moves on by writing the next [`Phase`] into the run, so the loop above is one of data.
//! The files import one another in one direction only: collecting, aggregating, publishing, ended.

use std::collections::BTreeSet;

use rondo_proto::ClientId;

use crate::run_context::RunContext;
use crate::state::phase::Phase;

pub(crate) mod aggregating;
pub(crate) mod attempt;
pub(crate) mod charging;
pub(crate) mod collecting;
pub(crate) mod ended;
pub(crate) mod measuring;
pub(crate) mod publishing;
pub(crate) mod recruiting;

/// Moves the run on by one decision, if there is one to make now. `engaged` are clients that are at
/// work for other runs.
pub(crate) fn advance(ctx: &mut RunContext<'_>, engaged: &BTreeSet<ClientId>) -> bool {
    if ctx.run().live.paused_at.is_some() {
        return false;
    }
    match &ctx.run().live.phase {
        Phase::Recruiting(_) => recruiting::advance(ctx, engaged),
        Phase::WarmUp(_) | Phase::Training(_) => collecting::advance(ctx),
        Phase::Publishing(_) => publishing::advance(ctx),
        Phase::Aggregating(_) | Phase::Ended(_) => false,
    }
}
