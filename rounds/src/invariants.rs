//! What must hold after every step, as plain predicates over the state. Tests check them after each
//! operation, a resume checks them before it starts, and a driver may check them at any time.
//!
//! | id | invariant |
//! |---|---|
//! | R1 | a run has one open round, and its closed rounds are all those before it |
//! | R2 | an update counts at most once |
//! | R3 | the aggregated set is the recorded set |
//! | R4 | a published digest never changes |
//! | R5 | privacy is charged before release, and within the budget |
//! | R6 | every blob that is needed exists |
//! | R7 | no round goes on below quorum, unless Poisson sampling drew so few |
//! | R8 | the best round has the least held-out loss; those worse than allowed return to it |
//! | R9 | where one client is named to measure, nobody else does |

use std::collections::BTreeSet;

use rondo_dp::Privacy;
use rondo_proto::{Digest, RunId, v1};

use crate::key::RoundKind;
use crate::policy::HeldOut;
use crate::state::central::Central;
use crate::state::participation::{EvaluationState, ParticipationState};
use crate::state::phase::{Outcome, Phase};
use crate::state::{Run, State};

/// A state that must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {id} is violated in run `{run}`: {what}")]
pub struct Violation {
    /// "R1" to "R9".
    pub id: &'static str,
    /// The run.
    pub run: RunId,
    /// What is wrong.
    pub what: String,
}

type Predicate = fn(&Run) -> Result<(), String>;

const PREDICATES: [(&str, Predicate); 8] = [
    ("R1", one_open_round),
    ("R2", counted_once),
    ("R3", aggregated_is_recorded),
    ("R4", published_is_recorded),
    ("R5", within_the_budget),
    ("R7", never_below_quorum),
    ("R8", best_is_least),
    ("R9", only_the_named_measure),
];

/// R1 to R5 and R7 to R9 for every run.
///
/// # Errors
/// The first violation found.
pub fn check(state: &State) -> Result<(), Violation> {
    for (run, record) in &state.runs {
        for (id, predicate) in PREDICATES {
            predicate(record).map_err(|what| Violation { id, run: run.clone(), what })?;
        }
    }
    Ok(())
}

/// R6: every blob that some run needs exists.
///
/// # Errors
/// The first missing blob.
pub fn check_blobs(state: &State, exists: &dyn Fn(&Digest) -> bool) -> Result<(), Violation> {
    for (run, record) in &state.runs {
        if let Some(missing) = record.blobs().find(|digest| !exists(digest)) {
            return Err(Violation {
                id: "R6",
                run: run.clone(),
                what: format!("blob {missing} is needed but missing"),
            });
        }
    }
    Ok(())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// R1. Rounds close in order, one is open, and participations belong to it.
///
/// # Errors
/// The rounds are out of order, the phase does not fit the open round, or a client has work outside
/// its attempt or phase.
pub fn one_open_round(run: &Run) -> Result<(), String> {
    let open = &run.live.open;
    let closed: Vec<u32> = run.rounds.keys().copied().collect();
    let first = closed.first().copied().unwrap_or(open.round);
    ensure(first <= 1, || format!("its first round is {first}"))?;
    let is_closed = run.rounds.contains_key(&open.round);
    let last = if is_closed { open.round + 1 } else { open.round };
    ensure(closed.iter().copied().eq(first..last), || {
        format!("rounds {closed:?} are closed while round {} is open", open.round)
    })?;
    ensure(open.round <= run.spec.policy.rounds, || format!("round {} is beyond the last", open.round))?;
    ensure((open.round == 0) == (open.kind == RoundKind::WarmUp), || {
        format!("round {} is a {} round", open.round, open.kind.as_str())
    })?;
    ensure((1..=run.spec.policy.max_attempts).contains(&open.attempt), || format!("attempt {}", open.attempt))?;
    if let Phase::Ended(ended) = &run.live.phase {
        let is_complete = is_closed && open.round == run.spec.policy.rounds;
        ensure(ended.outcome != Outcome::Completed || is_complete, || {
            format!("it completed with round {} open", open.round)
        })?;
    } else {
        ensure(!is_closed, || format!("round {} is open and closed", open.round))?;
    }
    for (client, member) in &run.members {
        let Some(part) = &member.participation else { continue };
        ensure(part.attempt <= open.attempt, || format!("{client} is in attempt {}", part.attempt))?;
        ensure(part.attempt == open.attempt || part.state == ParticipationState::Dropped, || {
            format!("{client} is {:?} in attempt {}, which is over", part.state, part.attempt)
        })?;
    }
    let is_collecting = matches!(run.live.phase, Phase::WarmUp(_) | Phase::Training(_));
    let at_work = run.participations().find(|(_, part)| part.state.is_open());
    ensure(is_collecting || at_work.is_none(), || {
        let client = at_work.map(|(client, _)| client.to_string()).unwrap_or_default();
        format!("{client} has work in phase {}", run.live.phase.name())
    })?;
    let is_publishing = matches!(run.live.phase, Phase::Publishing(_));
    let measuring = run.participations().any(|(_, part)| part.evaluation.is_open());
    ensure(is_publishing || !measuring, || format!("an evaluation is open in phase {}", run.live.phase.name()))
}

/// R2. Every client has at most one update in a round, no more than a cohort of them counts, and
/// shares sum to 1.
///
/// # Errors
/// Too many updates count, a record names a client twice, a client's state contradicts its update,
/// or shares do not sum to 1.
pub fn counted_once(run: &Run) -> Result<(), String> {
    // Poisson sampling may draw any number of clients, even none.
    let is_sampled = is_sampled(run);
    let count = run.accepted().count();
    let cohort = if is_sampled { usize::MAX } else { run.spec.policy.cohort as usize };
    ensure(count <= cohort, || format!("{count} updates count in a cohort of {cohort}"))?;
    for (client, part) in run.participations() {
        ensure((part.state == ParticipationState::Accepted) == part.update.is_some(), || {
            format!("{client} is {:?}, with update {:?}", part.state, part.update.as_ref().map(|u| u.digest))
        })?;
    }
    let weights = run.weights();
    let total: f64 = weights.values().sum();
    ensure(weights.is_empty() || (total - 1.0).abs() < 1e-9, || format!("open shares sum to {total}"))?;
    for (round, closed) in &run.rounds {
        let accepted: Vec<&v1::Participant> = counted(&closed.record).collect();
        let names: BTreeSet<&str> = closed.record.participants.iter().map(|p| p.client.as_str()).collect();
        ensure(names.len() == closed.record.participants.len(), || format!("round {round} names a client twice"))?;
        ensure(accepted.len() <= cohort, || format!("round {round} counts {} updates", accepted.len()))?;
        let total: f64 = accepted.iter().map(|participant| participant.weight).sum();
        let is_whole = (total - 1.0).abs() < 1e-9 || (is_sampled && accepted.is_empty());
        ensure(is_whole, || format!("shares of round {round} sum to {total}"))?;
    }
    Ok(())
}

/// Whether the cohorts of training rounds are Poisson-sampled.
fn is_sampled(run: &Run) -> bool {
    run.spec.central.as_ref().is_some_and(|central| central.key.is_some())
}

/// Participants whose update counts.
fn counted(record: &v1::RoundRecord) -> impl Iterator<Item = &v1::Participant> {
    record.participants.iter().filter(|participant| participant.state == "accepted")
}

/// R3. What was handed to the executor is what the record names.
///
/// # Errors
/// The accepted set changed after its aggregation began, a recorded state contradicts its weight,
/// or a client counts without an update.
pub fn aggregated_is_recorded(run: &Run) -> Result<(), String> {
    let plan = match &run.live.phase {
        Phase::Aggregating(phase) => Some(phase.plan),
        Phase::Publishing(phase) => Some(phase.plan),
        _ => None,
    };
    let found = run.accepted_fingerprint();
    ensure(plan.is_none_or(|plan| plan == found), || {
        "the accepted set changed after its aggregation began".to_owned()
    })?;
    for (round, closed) in &run.rounds {
        for participant in &closed.record.participants {
            let counts = participant.state == "accepted";
            ensure(counts == (participant.weight > 0.0), || {
                format!(
                    "round {round}: {} is {} with weight {}",
                    participant.client, participant.state, participant.weight
                )
            })?;
            ensure(!counts || participant.update_digest.parse::<Digest>().is_ok(), || {
                format!("round {round}: {} counts without an update", participant.client)
            })?;
        }
    }
    Ok(())
}

/// R4. What a round published is what its record says. (That records never change is checked where
/// their bytes are kept.)
///
/// # Errors
/// A record contradicts what its round published, ends before it starts, or shows a measurement by
/// a dropped client.
pub fn published_is_recorded(run: &Run) -> Result<(), String> {
    for (round, closed) in &run.rounds {
        let record = &closed.record;
        let publication = &closed.publication;
        ensure(record.round == *round, || format!("round {round} is recorded as {}", record.round))?;
        ensure(record.initial_digest == run.spec.start_adapter_digest(), || {
            format!("round {round} is recorded as starting from {:?}", record.initial_digest)
        })?;
        ensure(record.global_digest == publication.global.to_string(), || {
            format!("round {round} published {} but records {}", publication.global, record.global_digest)
        })?;
        let frozen = publication.frozen.as_ref().map(|frozen| frozen.digest.to_string()).unwrap_or_default();
        let server = publication.server.as_ref().map(ToString::to_string).unwrap_or_default();
        ensure(record.server_digest == server, || {
            format!("round {round}: server state {server} is not what is recorded")
        })?;
        ensure(record.frozen_digest == frozen, || format!("round {round}: frozen {frozen} is not what is recorded"))?;
        ensure(record.ended_at_ms >= record.started_at_ms, || format!("round {round} ended before it started"))?;
        let measured = record.participants.iter().filter(|participant| participant.after.is_some());
        for participant in measured {
            ensure(participant.state != "dropped", || format!("{} was dropped and measured", participant.client))?;
        }
    }
    Ok(())
}

/// R5. No update counts that its data owner did not enter into a ledger first, within the run's
/// epsilon.
///
/// # Errors
/// An update counts without a privacy report or beyond the run's epsilon. With a guarantee per
/// client, more rounds are published than charged, or more are charged than fit.
pub fn within_the_budget(run: &Run) -> Result<(), String> {
    if let Some(central) = &run.spec.central {
        return charged_before_release(run, central);
    }
    let Privacy::Example { epsilon, .. } = run.spec.privacy else { return Ok(()) };
    let open = run.is_private_round(run.live.open.round).then(|| run.accepted()).into_iter().flatten();
    let open = open.map(|(client, _, update)| (client.to_string(), update.privacy.clone()));
    let training = run.rounds.values().filter(|closed| run.is_private_round(closed.record.round));
    let closed = training.flat_map(|closed| counted(&closed.record));
    let closed = closed.map(|participant| (participant.client.clone(), participant.privacy.clone()));
    for (client, report) in open.chain(closed) {
        let report = report.ok_or_else(|| format!("an update of {client} counts without a privacy report"))?;
        ensure(report.epsilon <= epsilon, || format!("{client} spent {} of {epsilon}", report.epsilon))?;
    }
    Ok(())
}

/// R5 of a guarantee per client: every published round of the
/// clients' data was charged, and no more than fits.
fn charged_before_release(run: &Run, central: &Central) -> Result<(), String> {
    let charged = run.live.charged.as_ref().map_or(0, |charged| charged.releases);
    let published = run.publications().filter(|(round, _)| run.is_private_round(*round)).count();
    ensure(published <= charged as usize, || format!("{published} rounds are published, {charged} releases charged"))?;
    let most = central.plan.releases;
    ensure(charged <= most, || format!("{charged} releases are charged, {most} fit the budget"))
}

/// R7. No round is aggregated with fewer updates than the quorum, unless Poisson sampling drew so
/// few.
///
/// # Errors
/// A round is made of fewer updates than the quorum, or a dropped client was asked for an
/// evaluation.
pub fn never_below_quorum(run: &Run) -> Result<(), String> {
    let quorum = run.spec.policy.quorum as usize;
    let quorum_of = |round: u32| if is_sampled(run) && run.is_private_round(round) { 0 } else { quorum };
    if matches!(run.live.phase, Phase::Aggregating(_) | Phase::Publishing(_)) {
        let quorum = quorum_of(run.live.open.round);
        let count = run.accepted().count();
        ensure(count >= quorum, || format!("{count} updates of {quorum} needed are aggregated"))?;
    }
    for (round, closed) in &run.rounds {
        let count = counted(&closed.record).count();
        let quorum = quorum_of(*round);
        ensure(count >= quorum, || format!("round {round} was made of {count} updates of {quorum} needed"))?;
    }
    // An evaluation is only ever asked of those who are still part of the round.
    let stray = run.participations().find(|(_, part)| {
        part.state == ParticipationState::Dropped
            && !matches!(part.evaluation, EvaluationState::None | EvaluationState::Missed)
    });
    ensure(stray.is_none(), || "a dropped client was asked for an evaluation".to_owned())
}

/// R8. The records say which round is best and which were rolled back to it, as their losses say.
///
/// # Errors
/// A held-out loss is not finite, or a recorded best round or rollback contradicts the losses.
pub fn best_is_least(run: &Run) -> Result<(), String> {
    let policy = &run.spec.policy;
    let mut best: Option<(u32, f64)> = None;
    for (round, closed) in &run.rounds {
        let record = &closed.record;
        let before = best.map(|(_, loss)| loss);
        let loss = record.held_out_loss;
        ensure(loss.is_none_or(f64::is_finite), || format!("the held-out loss of round {round} is not finite"))?;
        let is_worse = loss.is_some_and(|loss| policy.rolls_back(HeldOut::Loss(loss), before));
        let may_be_rolled_back = is_worse || (loss.is_none() && policy.rollback.is_some());
        match record.rolled_back_to {
            Some(to) => {
                ensure(may_be_rolled_back, || format!("round {round} was rolled back without a reason"))?;
                let expected = best.map_or(0, |(round, _)| round);
                ensure(to == expected, || format!("round {round} was rolled back to {to}, the best was {expected}"))?;
            }
            None => ensure(!is_worse, || format!("round {round} was not rolled back"))?,
        }
        if let Some(loss) = loss.filter(|loss| before.is_none_or(|best| *loss < best)) {
            best = Some((*round, loss));
        }
        ensure(record.best_round == best.map(|(round, _)| round), || {
            format!("after round {round} the best is {best:?}, recorded is {:?}", record.best_round)
        })?;
    }
    ensure(run.best() == best, || format!("the best round is {best:?}, not {:?}", run.best()))
}

/// R9. Where one client is named to measure, participants are not asked; elsewhere no client is.
///
/// # Errors
/// A client measures that the run does not name, or a participant measures where one client is
/// named.
pub fn only_the_named_measure(run: &Run) -> Result<(), String> {
    let Some(evaluator) = &run.spec.evaluator else {
        return ensure(run.measuring().is_none(), || "a client measures that the run does not name".to_owned());
    };
    let named = |client: &str, dataset: &str| client == evaluator.client.as_str() && dataset == evaluator.dataset;
    ensure(run.measuring().is_none_or(|m| named(m.client.as_str(), &m.dataset)), || "another client measures".into())?;
    let stray =
        run.participations().find(|(_, part)| part.evaluation != EvaluationState::None || part.before.is_some());
    ensure(stray.is_none(), || format!("{} measures", stray.map(|(client, _)| client.as_str()).unwrap_or_default()))?;
    for (round, closed) in &run.rounds {
        let record = &closed.record;
        let measured = record.participants.iter().any(|part| part.after.is_some() || part.before.is_some());
        ensure(!measured, || format!("a participant of round {round} measured"))?;
        let is_named = record.measurement.as_ref().is_none_or(|m| named(&m.client, &m.dataset));
        ensure(is_named, || format!("round {round} was measured by another client"))?;
    }
    Ok(())
}
