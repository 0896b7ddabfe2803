//! Recruiting: waits for clients, then draws the cohort of a round.

use std::collections::BTreeSet;

use rondo_proto::ClientId;

use crate::cohort;
use crate::guarantee;
use crate::key::RoundKind;
use crate::phases::ended;
use crate::policy::Window;
use crate::run_context::RunContext;
use crate::state::participation::{EvaluationState, Participation, ParticipationState};
use crate::state::phase::{LONGEST_REST_MS, Outcome, Phase, Recruiting, Training, WarmUp};
use crate::state::{Client, Spec};

/// Whether a client has the run's data set and base, whatever tokens that makes.
pub(crate) fn holds(client: &Client, spec: &Spec) -> bool {
    client.datasets.contains(&spec.dataset) && client.bases.contains(&spec.base.digest)
}

/// Whether a client has what the run needs.
pub(crate) fn offers(client: &Client, spec: &Spec) -> bool {
    holds(client, spec) && !client.makes_other_tokens(&spec.base)
}

/// Draws a cohort if there are clients enough.
pub(crate) fn advance(ctx: &mut RunContext<'_>, engaged: &BTreeSet<ClientId>) -> bool {
    let Phase::Recruiting(recruiting) = &ctx.run().live.phase else { return false };
    let Recruiting { mut quorum_since, said, rest_until } = *recruiting;
    let policy = ctx.run().spec.policy.clone();
    let now = ctx.now();

    if is_spent(ctx) || ctx.run().has_released_all() {
        ended::end(ctx, Outcome::BudgetSpent);
        return true;
    }
    // A clock that was set back must not stretch the rest.
    let rests =
        rest_until.is_some_and(|until| (now..=now.saturating_add(LONGEST_REST_MS)).contains(&until) && until > now);
    let candidates = candidates(ctx, engaged, rests);
    if !rests && rest_until.is_some() {
        ctx.live().phase = Phase::Recruiting(Recruiting { quorum_since, said, rest_until: None });
    }
    let rest_until = rest_until.filter(|_| rests);
    if candidates.len() < policy.quorum as usize {
        let here = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
        let quorum = policy.quorum;
        // A run that never had a client only waits. One that lost some says so, once for each
        // change.
        let says = said != Some(here) && (said.is_some() || quorum_since.is_some() || !ctx.run().rounds.is_empty());
        if quorum_since.is_some() || says {
            let said = if says { Some(here) } else { said };
            ctx.live().phase = Phase::Recruiting(Recruiting { quorum_since: None, said, rest_until });
        }
        if says {
            ctx.announce(None, format!("waits for clients: {here} of the {quorum} that a round needs are here"));
        }
        return false;
    }
    // Only the run's first round waits for those who are still starting up; later rounds take who
    // is there.
    let open = &ctx.run().live.open;
    let is_opening = ctx.run().rounds.is_empty() && open.attempt == 1;
    let seats = match ctx.run().poisson_sampling() {
        // The cohort is the expected number that Poisson sampling draws.
        Some((_, rate)) => (f64::from(policy.cohort) / rate).ceil() as usize,
        None => policy.seats(),
    };
    if is_opening && candidates.len() < seats {
        // A clock that was set back must not stretch the grace time.
        let since = quorum_since.map_or(now, |since| since.min(now));
        if now < since.saturating_add(policy.grace_ms) {
            if quorum_since != Some(since) {
                quorum_since = Some(since);
                ctx.live().phase = Phase::Recruiting(Recruiting { quorum_since, said, rest_until });
            }
            return false;
        }
    }
    draw(ctx, candidates);
    true
}

/// Whether so many clients have spent their budget of the run that those who accepted make no
/// quorum any more. Who joins later could still train, but the run would go on without most of its
/// data: it ends instead.
fn is_spent(ctx: &RunContext<'_>) -> bool {
    let spec = &ctx.run().spec;
    let willing = || ctx.run().members.values().filter(|member| member.answer.as_ref().is_some_and(|a| a.accepted));
    let able = willing().filter(|member| guarantee::can_afford(&spec.privacy, member)).count();
    able < willing().count() && able < spec.policy.quorum as usize
}

/// Willing clients that may be drawn now; while it `rests`, without those who failed in an earlier
/// attempt at the round.
fn candidates(ctx: &RunContext<'_>, engaged: &BTreeSet<ClientId>, rests: bool) -> Vec<ClientId> {
    let spec = &ctx.run().spec;
    let round = ctx.run().live.open.round;
    let silence = spec.policy.lost_after_ms;
    let willing = ctx.run().members.iter().filter_map(|(client, member)| {
        let answer = member.answer.as_ref().filter(|answer| answer.accepted)?;
        let rests = rests && member.failed_in == Some(round);
        (!rests && guarantee::can_afford(&spec.privacy, member)).then_some((client, answer.rank))
    });
    willing
        .filter(|(id, rank)| {
            let fits = |client: &Client| offers(client, spec) && (client.max_rank == 0 || *rank <= client.max_rank);
            ctx.is_active(id) && ctx.clients.get(id).is_some_and(fits)
        })
        .filter(|(id, _)| !engaged.contains(*id) && ctx.liveness.is_reachable(id, ctx.now(), silence))
        .map(|(id, _)| id.clone())
        .collect()
}

fn draw(ctx: &mut RunContext<'_>, candidates: Vec<ClientId>) {
    let spec = &ctx.run().spec;
    let open = ctx.run().live.open.clone();
    let policy = spec.policy.clone();
    let drawn = match ctx.run().poisson_sampling() {
        Some((key, rate)) => cohort::sample(&key, rate, open.round, open.attempt, candidates),
        None => draw_fixed_size(ctx, candidates),
    };
    if drawn.len() < policy.quorum as usize {
        ctx.note(format!(
            "Poisson sampling drew {}, below the quorum of {}: the round is held all the same, since to draw again would show \
             who was drawn",
            drawn.len(),
            policy.quorum
        ));
    }

    for client in &drawn {
        let member = ctx.member(client);
        let rank = member.answer.as_ref().map_or(0, |answer| answer.rank);
        // What was sent in a failed attempt at this round was sent: the byte counts go on.
        let before = member.participation.take();
        let bytes = before.map(|part| (part.bytes_up, part.bytes_down, part.layout_bytes_up, part.layout_bytes_down));
        let (bytes_up, bytes_down, layout_bytes_up, layout_bytes_down) = bytes.unwrap_or_default();
        member.participation = Some(Participation {
            attempt: open.attempt,
            state: ParticipationState::Selected,
            reason: String::new(),
            rank,
            update: None,
            evaluation: EvaluationState::None,
            before: None,
            after: None,
            metrics_withheld: false,
            counted: None,
            bytes_up,
            bytes_down,
            layout_bytes_up,
            layout_bytes_down,
        });
    }

    let now = ctx.now();
    let window = Window::open(now, &policy);
    let live = ctx.live();
    live.open.started_at.get_or_insert(now);
    live.phase = match open.kind {
        RoundKind::WarmUp => Phase::WarmUp(WarmUp { window }),
        RoundKind::Train => Phase::Training(Training { window }),
    };
    let names = drawn.iter().map(ClientId::as_str).collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { "nobody" } else { &names };
    let attempt = if open.attempt > 1 { format!(", attempt {}", open.attempt) } else { String::new() };
    ctx.announce(None, format!("{} round {}{attempt} starts with {names}", open.kind.as_str(), open.round));
}

/// A cohort of the declared size, from the run's seed.
fn draw_fixed_size(ctx: &RunContext<'_>, candidates: Vec<ClientId>) -> Vec<ClientId> {
    let spec = &ctx.run().spec;
    let open = &ctx.run().live.open;
    let mut drawn = cohort::draw(spec.seed, open.round, open.attempt, candidates);
    // Those who failed in an earlier attempt at this round come last; the sort keeps the draw's
    // order otherwise.
    drawn.sort_by_key(|client| ctx.run().members.get(client).is_some_and(|m| m.failed_in == Some(open.round)));
    drawn.truncate(spec.policy.seats());
    drawn.sort();
    drawn
}
