//! The fastest mode of a step that fits.

use rondo_proto::wording::SettingKey;
use serde::Serialize;

use super::estimate::{MemoryEstimate, StepMode, Workload};
use crate::limits::{Checkpoint, Limits};

/// A mode that fits, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepChoice {
    /// How the step is carried out.
    pub mode: StepMode,
    /// What that needs.
    pub estimate: MemoryEstimate,
}

/// Nothing that `[limits]` allows fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", explain(.estimate, *.room, *.limited))]
pub struct TooLarge {
    /// The least that is needed.
    pub estimate: MemoryEstimate,
    /// What there is, in bytes.
    pub room: u64,
    /// True when client.toml says how much there is.
    pub limited: bool,
}

fn explain(estimate: &MemoryEstimate, room: u64, limited: bool) -> String {
    let place = if limited { "`limits.memory_mb`" } else { "this machine" };
    format!(
        "a training step needs {} MB, and {place} has {} MB; a lower {}, a quantised base, \
         `limits.checkpoint = \"auto\"` and `limits.micro_batch = 0` need less",
        estimate.peak.div_ceil(1_000_000),
        room / 1_000_000,
        SettingKey::MaxTokens.quoted()
    )
}

/// Picks, in this order, the first that fits: the whole batch on one tape, the whole batch
/// checkpointed, ever smaller micro-batches. `available` is what the machine has for this process;
/// unknown, everything fits.
///
/// # Errors
/// Nothing that the limits allow fits.
pub fn choose(workload: &Workload, limits: &Limits, available: Option<u64>) -> Result<StepChoice, Box<TooLarge>> {
    let limited = limits.memory_mb > 0;
    let room = if limited { Some(u64::from(limits.memory_mb) * 1_000_000) } else { available };
    let whole = match limits.micro_batch {
        0 => workload.most_texts(),
        texts => u64::from(texts).min(workload.most_texts()),
    }
    .max(1);
    let plain = StepMode { checkpoint: false, micro_batch: whole };
    let on = StepMode { checkpoint: true, micro_batch: whole };
    let smaller = |checkpoint| {
        std::iter::successors(Some(whole), |texts| (*texts > 1).then(|| texts.div_ceil(2)))
            .skip(1)
            .map(move |micro_batch| StepMode { checkpoint, micro_batch })
    };
    let modes: Vec<StepMode> = match limits.checkpoint {
        _ if workload.is_packed() => std::iter::once(on).chain(smaller(true)).collect(),
        Checkpoint::Auto => [plain, on].into_iter().chain(smaller(true)).collect(),
        Checkpoint::On => std::iter::once(on).chain(smaller(true)).collect(),
        Checkpoint::Off => std::iter::once(plain).chain(smaller(false)).collect(),
    };
    let mut least: Option<MemoryEstimate> = None;
    for mode in modes {
        let estimate = workload.estimate(mode);
        if room.is_none_or(|room| estimate.peak <= room) {
            return Ok(StepChoice { mode, estimate });
        }
        if least.as_ref().is_none_or(|least| estimate.peak < least.peak) {
            least = Some(estimate);
        }
    }
    let estimate = least.unwrap_or_else(|| workload.estimate(on));
    Err(Box::new(TooLarge { estimate, room: room.unwrap_or(u64::MAX), limited }))
}
