//! Training: the cohort trains from the published state and sends updates.

use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::policy::Window;
use crate::state::Spec;

/// Collects updates. The collecting itself stands in `collecting.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// The time it has.
    pub window: Window,
}

impl Training {
    /// What a client is asked to do.
    pub(crate) const WORK: v1::WorkKind = v1::WorkKind::Train;

    /// Whether clients measure the model before they train: in the first round, so that a run can show what it did. Where
    /// one client measures, those who train do not.
    pub(crate) fn evaluates_before(spec: &Spec, round: u32) -> bool {
        round == 1 && spec.policy.eval_every > 0 && spec.evaluator.is_none()
    }
}
