//! Recruiting: waits for clients, then draws the cohort of a round.

use std::collections::BTreeSet;

use rondo_proto::ClientId;
use serde::{Deserialize, Serialize};

use super::{Phase, Training, WarmUp};
use crate::Millis;
use crate::cohort;
use crate::desk::Desk;
use crate::effect::RoundKind;
use crate::guarantee;
use crate::policy::Window;
use crate::state::{Client, EvaluationState, Part, PartState, Spec};

/// Waits for enough clients to draw a cohort from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recruiting {
    /// Since when there have been enough for a quorum; the first round gives the others their grace time from then.
    pub quorum_since: Option<Millis>,
    /// How many clients were there when the run last said that it waits for more.
    pub said: Option<u32>,
    /// After a failed attempt: until when those who failed in it are not drawn again.
    #[serde(default)]
    pub rest_until: Option<Millis>,
}

/// How long those who failed are left alone before the second attempt; twice as long before each one after.
const REST_MS: Millis = 5_000;
/// And no longer than this.
const LONGEST_REST_MS: Millis = 60_000;

impl Recruiting {
    /// Recruits for an attempt that follows a failed one. What made a client fail is often still so a moment later, and the
    /// attempts of a run are few.
    pub(crate) fn again(now: Millis, attempt: u32) -> Self {
        let rest = REST_MS << attempt.saturating_sub(2).min(8);
        Self { rest_until: Some(now.saturating_add(rest.min(LONGEST_REST_MS))), ..Self::default() }
    }

    /// When it must be settled again if nothing else happens.
    pub(crate) fn next_wake(&self, grace_ms: Millis) -> Option<Millis> {
        let grace = self.quorum_since.map(|since| since.saturating_add(grace_ms));
        [grace, self.rest_until].into_iter().flatten().min()
    }
}

/// Whether a client has what the run needs.
pub(crate) fn offers(client: &Client, spec: &Spec) -> bool {
    client.datasets.contains(&spec.dataset) && client.bases.contains(&spec.base.digest)
}

/// Draws a cohort if there are clients enough.
pub(crate) fn settle(desk: &mut Desk<'_>, engaged: &BTreeSet<ClientId>) -> bool {
    let Phase::Recruiting(recruiting) = &desk.run().live.phase else { return false };
    let Recruiting { mut quorum_since, said, rest_until } = *recruiting;
    let policy = desk.run().spec.policy.clone();
    let now = desk.now();

    if is_spent(desk) || desk.run().has_released_all() {
        super::ended::end(desk, super::Outcome::BudgetSpent);
        return true;
    }
    // A clock that was set back must not stretch the rest.
    let rests =
        rest_until.is_some_and(|until| (now..=now.saturating_add(LONGEST_REST_MS)).contains(&until) && until > now);
    let candidates = candidates(desk, engaged, rests);
    if !rests && rest_until.is_some() {
        desk.live().phase = Phase::Recruiting(Recruiting { quorum_since, said, rest_until: None });
    }
    let rest_until = rest_until.filter(|_| rests);
    if candidates.len() < policy.quorum as usize {
        let (here, quorum) = (u32::try_from(candidates.len()).unwrap_or(u32::MAX), policy.quorum);
        // A run that never had a client just waits to be joined; one that lost some says so, once for each change.
        let says = said != Some(here) && (said.is_some() || quorum_since.is_some() || !desk.run().rounds.is_empty());
        if quorum_since.is_some() || says {
            let said = if says { Some(here) } else { said };
            desk.live().phase = Phase::Recruiting(Recruiting { quorum_since: None, said, rest_until });
        }
        if says {
            desk.announce(None, format!("waits for clients: {here} of the {quorum} that a round needs are here"));
        }
        return false;
    }
    // Only the run's first round waits for those who are still starting up; later rounds take who is there.
    let open = &desk.run().live.open;
    let is_opening = desk.run().rounds.is_empty() && open.attempt == 1;
    let seats = match desk.run().coins() {
        // A cohort is what is expected of the coins.
        Some((_, rate)) => (f64::from(policy.cohort) / rate).ceil() as usize,
        None => policy.seats(),
    };
    if is_opening && candidates.len() < seats {
        // A clock that was set back must not stretch the grace time.
        let since = quorum_since.map_or(now, |since| since.min(now));
        if now < since.saturating_add(policy.grace_ms) {
            if quorum_since != Some(since) {
                quorum_since = Some(since);
                desk.live().phase = Phase::Recruiting(Recruiting { quorum_since, said, rest_until });
            }
            return false;
        }
    }
    draw(desk, candidates);
    true
}

/// Whether so many clients have spent their budget of the run that those who accepted make no quorum any more. Who
/// joins later could still train, but the run would go on without most of its data: it ends instead.
fn is_spent(desk: &Desk<'_>) -> bool {
    let spec = &desk.run().spec;
    let willing = || desk.run().members.values().filter(|member| member.answer.as_ref().is_some_and(|a| a.accepted));
    let able = willing().filter(|member| guarantee::can_afford(&spec.privacy, member)).count();
    able < willing().count() && able < spec.policy.quorum as usize
}

/// Willing clients that may be drawn now; while it `rests`, without those who failed in an earlier attempt at the round.
fn candidates(desk: &Desk<'_>, engaged: &BTreeSet<ClientId>, rests: bool) -> Vec<ClientId> {
    let (spec, round) = (&desk.run().spec, desk.run().live.open.round);
    let silence = spec.policy.lost_after_ms;
    let willing = desk.run().members.iter().filter_map(|(client, member)| {
        let answer = member.answer.as_ref().filter(|answer| answer.accepted)?;
        let rests = rests && member.failed_in == Some(round);
        (!rests && guarantee::can_afford(&spec.privacy, member)).then_some((client, answer.rank))
    });
    willing
        .filter(|(id, rank)| {
            let fits = |client: &Client| offers(client, spec) && (client.max_rank == 0 || *rank <= client.max_rank);
            desk.is_active(id) && desk.clients.get(id).is_some_and(fits)
        })
        .filter(|(id, _)| !engaged.contains(*id) && desk.presence.is_reachable(id, desk.now(), silence))
        .map(|(id, _)| id.clone())
        .collect()
}

fn draw(desk: &mut Desk<'_>, candidates: Vec<ClientId>) {
    let (spec, open) = (&desk.run().spec, desk.run().live.open.clone());
    let policy = spec.policy.clone();
    let drawn = match desk.run().coins() {
        Some((key, rate)) => cohort::sample(&key, rate, open.round, open.attempt, candidates),
        None => fixed(desk, candidates),
    };
    if drawn.len() < policy.quorum as usize {
        desk.note(format!(
            "the coins drew {}, below the quorum of {}: the round is held all the same, since to draw again would tell \
             who was drawn",
            drawn.len(),
            policy.quorum
        ));
    }

    for client in &drawn {
        let member = desk.member(client);
        let rank = member.answer.as_ref().map_or(0, |answer| answer.rank);
        // What was sent in a failed attempt at this round was sent: the byte counts go on.
        let before = member.part.take();
        let bytes = before.map(|part| (part.bytes_up, part.bytes_down, part.layout_bytes_up, part.layout_bytes_down));
        let (bytes_up, bytes_down, layout_bytes_up, layout_bytes_down) = bytes.unwrap_or_default();
        member.part = Some(Part {
            attempt: open.attempt,
            state: PartState::Selected,
            reason: String::new(),
            rank,
            update: None,
            evaluation: EvaluationState::None,
            before: None,
            after: None,
            counted: None,
            bytes_up,
            bytes_down,
            layout_bytes_up,
            layout_bytes_down,
        });
    }

    let now = desk.now();
    let window = Window::open(now, &policy);
    let live = desk.live();
    live.open.started_at.get_or_insert(now);
    live.phase = match open.kind {
        RoundKind::WarmUp => Phase::WarmUp(WarmUp { window }),
        RoundKind::Train => Phase::Training(Training { window }),
    };
    let names = drawn.iter().map(ClientId::as_str).collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { "nobody" } else { &names };
    let attempt = if open.attempt > 1 { format!(", attempt {}", open.attempt) } else { String::new() };
    desk.announce(None, format!("{} round {}{attempt} starts with {names}", open.kind.as_str(), open.round));
}

/// A cohort of the declared size, from the run's seed.
fn fixed(desk: &Desk<'_>, candidates: Vec<ClientId>) -> Vec<ClientId> {
    let (spec, open) = (&desk.run().spec, &desk.run().live.open);
    let mut drawn = cohort::draw(spec.seed, open.round, open.attempt, candidates);
    // Those who failed in an earlier attempt at this round come last; the sort keeps the draw's order otherwise.
    drawn.sort_by_key(|client| desk.run().members.get(client).is_some_and(|m| m.failed_in == Some(open.round)));
    drawn.truncate(spec.policy.seats());
    drawn.sort();
    drawn
}
