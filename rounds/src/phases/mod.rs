//! The phases of a round, one file each.
//!
//! ```text
//! Recruiting -> WarmUp   -+
//!     ^    \              +-> Aggregating -> Publishing -> (next round) Recruiting
//!     |     -> Training  -+        |             |
//!     +---- next attempt <---------+             +-> Ended
//! ```
//! A phase's `advance` looks at the run and the time, and moves the run on if it can. An input only
//! records what happened. The engine then advances every run that is not paused.
//!
//! A phase moves on by writing the next [`Phase`](crate::state::phase::Phase) into the run, so the
//! loop above is one of data. The files import one another in one direction only: collecting,
//! aggregating, publishing, ended.

pub(crate) mod aggregating;
pub(crate) mod attempt;
pub(crate) mod charging;
pub(crate) mod collecting;
pub(crate) mod ended;
pub(crate) mod measuring;
pub(crate) mod publishing;
pub(crate) mod recruiting;
