//! The fastest way of carrying a step out that fits.

use rondo_proto::wording::SettingKey;
use serde::Serialize;

use super::need::{Load, Need, Way};
use crate::limits::{Checkpoint, Limits};

/// A way that fits, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// How the step is carried out.
    pub way: Way,
    /// What that needs.
    pub need: Need,
}

/// Nothing that `[limits]` allows fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", explain(.need, *.room, *.limited))]
pub struct TooLarge {
    /// The least that is needed.
    pub need: Need,
    /// What there is, in bytes.
    pub room: u64,
    /// True when client.toml says how much there is.
    pub limited: bool,
}

fn explain(need: &Need, room: u64, limited: bool) -> String {
    let place = if limited { "`limits.memory_mb`" } else { "this machine" };
    format!(
        "a training step needs {} MB, and {place} has {} MB; a lower {}, a quantised base, \
         `limits.checkpoint = \"auto\"` and `limits.micro_batch = 0` need less",
        need.peak.div_ceil(1_000_000),
        room / 1_000_000,
        SettingKey::MaxTokens.quoted()
    )
}

/// Picks, in this order, the first that fits: the whole batch on one tape, the whole batch checkpointed, ever smaller
/// micro-batches. `available` is what the machine has for this process; unknown, everything fits.
pub fn choose(load: &Load, limits: &Limits, available: Option<u64>) -> Result<Choice, Box<TooLarge>> {
    let limited = limits.memory_mb > 0;
    let room = if limited { Some(u64::from(limits.memory_mb) * 1_000_000) } else { available };
    let whole = match limits.micro_batch {
        0 => load.most_texts(),
        texts => u64::from(texts).min(load.most_texts()),
    }
    .max(1);
    let plain = Way { checkpoint: false, micro_batch: whole };
    let on = Way { checkpoint: true, micro_batch: whole };
    let smaller = |checkpoint| {
        std::iter::successors(Some(whole), |texts| (*texts > 1).then(|| texts.div_ceil(2)))
            .skip(1)
            .map(move |micro_batch| Way { checkpoint, micro_batch })
    };
    let ways: Vec<Way> = match limits.checkpoint {
        _ if load.is_packed() => std::iter::once(on).chain(smaller(true)).collect(),
        Checkpoint::Auto => [plain, on].into_iter().chain(smaller(true)).collect(),
        Checkpoint::On => std::iter::once(on).chain(smaller(true)).collect(),
        Checkpoint::Off => std::iter::once(plain).chain(smaller(false)).collect(),
    };
    let mut least: Option<Need> = None;
    for way in ways {
        let need = load.need(way);
        if room.is_none_or(|room| need.peak <= room) {
            return Ok(Choice { way, need });
        }
        if least.as_ref().is_none_or(|least| need.peak < least.peak) {
            least = Some(need);
        }
    }
    let need = least.unwrap_or_else(|| load.need(on));
    Err(Box::new(TooLarge { need, room: room.unwrap_or(u64::MAX), limited }))
}
