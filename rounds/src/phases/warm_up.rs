//! Warm-up: the cohort computes the method's statistic, once, before the first training round.

use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::policy::Window;

/// Collects the warm-up statistic. The collecting itself stands in `collecting.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    /// The time it has.
    pub window: Window,
}

impl WarmUp {
    /// What a client is asked to do.
    pub(crate) const WORK: v1::WorkKind = v1::WorkKind::WarmUp;
}
