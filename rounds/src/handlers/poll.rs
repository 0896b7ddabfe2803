//! What clients ask for: invitations, their answers, and work.

use std::collections::BTreeSet;

use rondo_proto::base_tokens::OTHER_TOKENS;
use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::effect::Reply;
use crate::engine::{Engine, PendingReply};
use crate::handlers::clients::withhold;
use crate::input::Offers;
use crate::key::{Millis, RecordKey};
use crate::phases::measuring::can_measure;
use crate::phases::recruiting;
use crate::rejection::Rejection;
use crate::run_context::{Changes, RunContext, clean};
use crate::state::participation::{EvaluationState, ParticipationState};
use crate::state::phase::Phase;
use crate::state::start_adapter::StartAdapter;
use crate::state::{Answer, Client, ClientStatus, Fetch, Run};

/// Milliseconds after which a client with nothing to do asks again.
const RETRY_AFTER_MS: u32 = 1000;
/// Resolution in milliseconds of the recorded time of a client's last message. A finer one would
/// cost a commit for every poll.
const SEEN_RESOLUTION_MS: Millis = 60_000;
/// Milliseconds before a client that declined is asked again: what it lacked may be there now.
const RECONSIDER_AFTER_MS: Millis = 60_000;
/// Milliseconds before a client whose site has yet to decide is asked again.
const ASK_AGAIN_AFTER_MS: Millis = 5_000;
/// Most data sets, and most base models, that a client may offer.
const MAX_OFFERS: usize = 256;

impl Engine {
    pub(crate) fn poll(
        &mut self,
        client: ClientId,
        offers: Offers,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        let Offers { datasets, bases, tokens, max_rank, version } = offers;
        let count = datasets.len().max(bases.len()).max(tokens.len());
        if count > MAX_OFFERS {
            return Err(Rejection::Offers { client, count, limit: MAX_OFFERS });
        }
        let unknown = || Rejection::UnknownClient { client: client.clone() };
        let record = self.state.clients.get_mut(&client).ok_or_else(unknown)?;
        if record.status == ClientStatus::Revoked {
            return Err(Rejection::ClientState { client, state: record.status.as_str() });
        }
        let datasets: BTreeSet<String> = datasets.iter().map(|name| clean(name)).collect();
        let bases: BTreeSet<String> = bases.iter().map(|name| clean(name)).collect();
        let clean_pair = |tokens: &v1::BaseTokens| (clean(&tokens.base), clean(&tokens.token_digest));
        let tokens = tokens.iter().map(clean_pair).collect();
        let heard = Client { datasets, bases, tokens, max_rank, version: clean(&version), ..record.clone() };
        let is_stale = changes.now.saturating_sub(record.seen_at).abs() >= SEEN_RESOLUTION_MS;
        if heard != *record || is_stale {
            *record = Client { seen_at: changes.now, ..heard };
            changes.records.insert(RecordKey::Client(client.clone()));
        }
        self.liveness.saw(&client, changes.now);
        Ok(PendingReply::Poll(client))
    }

    /// What the client is to do next. Comes after the runs have advanced, so that the poll which
    /// fills a cohort already gets its assignment.
    pub(crate) fn next_work(&mut self, client: &ClientId, changes: &mut Changes) -> v1::PollReply {
        let Some(record) = self.state.clients.get(client).cloned() else { return wait("not enrolled") };
        if record.status == ClientStatus::Pending {
            return wait("an operator must approve this client first");
        }
        let runs = self.runs_at_work(client);
        // Begun work comes before new work.
        let (begun, fresh): (Vec<&RunId>, Vec<&RunId>) =
            runs.iter().partition(|run| self.state.runs.get(*run).is_some_and(|run| has_begun(run, client)));
        for run in begun.into_iter().chain(fresh) {
            if let Some(assignment) = self.open_run(run, changes).ok().and_then(|mut ctx| assign(&mut ctx, client)) {
                return next(v1::poll_reply::Next::Assignment(assignment));
            }
        }
        if record.status == ClientStatus::Draining {
            return wait("this client drains: it gets no more work");
        }
        for run in self.live_runs() {
            if let Some(invitation) =
                self.open_run(&run, changes).ok().and_then(|mut ctx| invite(&mut ctx, client, &record))
            {
                return next(v1::poll_reply::Next::Invitation(invitation));
            }
        }
        let (reason, left_out) = (self.why_idle(client), self.why_left_out(client).unwrap_or_default());
        next(v1::poll_reply::Next::Wait(v1::Wait { retry_after_ms: RETRY_AFTER_MS, reason, left_out }))
    }

    /// The first run that the client has not been invited to for something it can mend.
    fn why_left_out(&self, client: &ClientId) -> Option<String> {
        self.live_runs().into_iter().find_map(|id| {
            let answer = self.state.runs.get(&id)?.members.get(client)?.answer.as_ref()?;
            (answer.by_engine && !answer.accepted).then(|| format!("run {id}: {}", answer.reason))
        })
    }

    fn why_idle(&self, client: &ClientId) -> String {
        let mut runs = self.live_runs();
        runs.retain(|run| self.state.runs.get(run).is_some_and(|run| run.members.contains_key(client)));
        let Some(id) = runs.first() else { return "no run needs this client".to_owned() };
        let Some(run) = self.state.runs.get(id) else { return "no run needs this client".to_owned() };
        let phase = if run.live.paused_at.is_some() { "paused" } else { run.live.phase.name() };
        let member = run.members.get(client);
        let part = member.and_then(|member| member.participation.as_ref()).map(|part| (part.state, &part.reason));
        let own = match (part, member.and_then(|member| member.answer.as_ref())) {
            (Some((ParticipationState::Accepted, _)), _) => "its update was accepted".to_owned(),
            (Some((ParticipationState::Dropped, reason)), _) => format!("it was dropped: {reason}"),
            (Some((ParticipationState::Spare, reason)), _) => format!("it is spare: {reason}"),
            (Some(_), _) => "its work waits".to_owned(),
            (None, None) => "it measures for the run".to_owned(),
            (None, Some(answer)) if answer.undecided => answer.reason.clone(),
            (None, Some(answer)) if !answer.accepted => format!("it does not take part: {}", answer.reason),
            (None, _) => "it waits for a cohort".to_owned(),
        };
        format!("run {id} round {} ({phase}): {own}", run.live.open.round)
    }

    pub(crate) fn answer(
        &mut self,
        client: &ClientId,
        run: &RunId,
        accept: bool,
        reason: &str,
        rank: u32,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        let record = self.working_client(client)?.clone();
        let now = changes.now;
        let mut ctx = self.open_run(run, changes)?;
        let answer = if accept {
            if record.status == ClientStatus::Draining {
                return Err(Rejection::ClientState { client: client.clone(), state: record.status.as_str() });
            }
            let spec = &ctx.run().spec;
            let lack = |what: String| Rejection::NotOffered { client: client.clone(), run: run.clone(), what };
            if !record.datasets.contains(&spec.dataset) {
                return Err(lack(format!("data set {:?}", spec.dataset)));
            }
            if !record.bases.contains(&spec.base.digest) {
                return Err(lack(format!("base model {} ({})", spec.base.name, spec.base.digest)));
            }
            if record.makes_other_tokens(&spec.base) {
                return Err(lack(format!("base model {}: {OTHER_TOKENS}", spec.base.name)));
            }
            let rank = agree_on_rank(&ctx, &record, rank).map_err(|problem| Rejection::Rank {
                client: client.clone(),
                run: run.clone(),
                problem,
            })?;
            Answer { accepted: true, rank, reason: String::new(), by_engine: false, undecided: false, at: now }
        } else {
            Answer { accepted: false, rank: 0, reason: clean(reason), by_engine: false, undecided: false, at: now }
        };
        let before = ctx.run().members.get(client).and_then(|member| member.answer.as_ref());
        if before.is_some_and(|before| before.is_alike(&answer)) {
            ctx.member(client).answer = Some(answer);
        } else {
            let text = match (answer.accepted, answer.reason.as_str()) {
                (true, _) => format!("takes part with rank {}", answer.rank),
                (false, "") => "declined".to_owned(),
                (false, reason) => format!("declined: {reason}"),
            };
            if !answer.accepted {
                withhold(&mut ctx, client, "it declined");
            }
            ctx.member(client).answer = Some(answer);
            ctx.announce(Some(client), text);
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    /// Notes that a person at the client's site has yet to decide. A client that took part before
    /// takes part no longer.
    pub(crate) fn undecided(
        &mut self,
        client: &ClientId,
        run: &RunId,
        reason: &str,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let now = changes.now;
        let mut ctx = self.open_run(run, changes)?;
        let answer =
            Answer { accepted: false, rank: 0, reason: clean(reason), by_engine: false, undecided: true, at: now };
        let before = ctx.run().members.get(client).and_then(|member| member.answer.as_ref());
        if !before.is_some_and(|before| before.is_alike(&answer)) {
            withhold(&mut ctx, client, "its site has yet to decide");
            ctx.announce(Some(client), answer.reason.clone());
        }
        ctx.member(client).answer = Some(answer);
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    /// Whether the client may fetch this blob now: it has assigned work that needs it.
    pub fn may_download(&self, client: &ClientId, run: &RunId, digest: &Digest) -> bool {
        let (Ok(_), Some(run)) = (self.working_client(client), self.state.runs.get(run)) else { return false };
        run.is_open_for(client) && has_begun(run, client) && run.adapter(None).blobs().any(|(blob, _)| blob == *digest)
    }
}

/// The rank a client trains with, or why there is none.
fn agree_on_rank(ctx: &RunContext<'_>, client: &Client, asked: u32) -> Result<u32, String> {
    let limit = if client.max_rank == 0 { u32::MAX } else { client.max_rank };
    if asked > limit {
        return Err(format!("rank {asked} is above the client's own limit of {limit}"));
    }
    let wanted = if asked == 0 { ctx.run().spec.rank.min(limit) } else { asked };
    let rank = ctx.job.client_rank(wanted as usize).map_err(|error| error.to_string())?;
    if ctx.run().spec.central.is_some() && rank != ctx.job.rank() {
        let run = ctx.job.rank();
        return Err(format!("rank {rank} is not the run's {run}: with privacy per client all updates have one shape"));
    }
    Ok(u32::try_from(rank).unwrap_or(u32::MAX))
}

fn next(next: v1::poll_reply::Next) -> v1::PollReply {
    v1::PollReply { next: Some(next), ended_runs: Vec::new() }
}

fn wait(reason: &str) -> v1::PollReply {
    let (reason, left_out) = (reason.to_owned(), String::new());
    next(v1::poll_reply::Next::Wait(v1::Wait { retry_after_ms: RETRY_AFTER_MS, reason, left_out }))
}

/// Whether the client has its present assignment already.
fn has_begun(run: &Run, client: &ClientId) -> bool {
    match &run.live.phase {
        Phase::Publishing(_) => run.evaluation_of(client) == EvaluationState::Working,
        _ => run.participations().any(|(id, part)| id == client && part.state == ParticipationState::Working),
    }
}

/// Asks a client to take part, or declines for it when it declared a limit that the run is beyond,
/// or when its model makes other tokens than the run's.
fn invite(ctx: &mut RunContext<'_>, client: &ClientId, record: &Client) -> Option<v1::Invitation> {
    let run = ctx.run();
    if run.live.paused_at.is_some() || !recruiting::holds(record, &run.spec) {
        return None;
    }
    let answer = run.members.get(client).and_then(|member| member.answer.as_ref());
    let is_valid = |answer: &Answer| {
        let lasts = if answer.undecided { ASK_AGAIN_AFTER_MS } else { RECONSIDER_AFTER_MS };
        answer.accepted || ctx.now() < answer.at.saturating_add(lasts)
    };
    if answer.is_some_and(|answer| !answer.by_engine && is_valid(answer)) {
        return None;
    }
    let fits = match record.makes_other_tokens(&run.spec.base) {
        true => Err(OTHER_TOKENS.to_owned()),
        false => agree_on_rank(ctx, record, 0),
    };
    match fits {
        Ok(_) => {
            let spec = &ctx.run().spec;
            Some(v1::Invitation {
                run: ctx.id.to_string(),
                run_file: spec.run_file.clone(),
                base: Some(spec.base.clone()),
                initial: spec.start_adapter.as_ref().map(StartAdapter::message),
            })
        }
        Err(reason) => {
            let declined = Answer {
                accepted: false,
                rank: 0,
                reason: reason.clone(),
                by_engine: true,
                undecided: false,
                at: ctx.now(),
            };
            if !answer.is_some_and(|answer| answer.is_alike(&declined)) {
                ctx.member(client).answer = Some(declined);
                ctx.announce(Some(client), format!("declined: {reason}"));
            }
            None
        }
    }
}

/// Assigns the client its work. The assignment is the same each time it asks. A paused run assigns
/// nothing new.
fn assign(ctx: &mut RunContext<'_>, client: &ClientId) -> Option<v1::Assignment> {
    let is_paused = ctx.run().live.paused_at.is_some();
    let is_again = has_begun(ctx.run(), client);
    if is_paused && !is_again {
        return None;
    }
    let kind = ctx.run().live.phase.work_kind()?;
    let measures = ctx.run().measuring().is_some();
    if let Some(evaluator) = ctx.run().spec.evaluator.as_ref().filter(|_| measures)
        && !ctx.clients.get(client).is_some_and(|record| can_measure(record, &ctx.run().spec, evaluator))
    {
        return None;
    }
    if !is_again {
        if let Some(measuring) = ctx.measuring() {
            measuring.state = EvaluationState::Working;
        } else if kind == v1::WorkKind::Evaluate {
            ctx.participation(client)?.evaluation = EvaluationState::Working;
        } else {
            ctx.participation(client)?.state = ParticipationState::Working;
        }
    }
    assign_downloads(ctx, client);

    let run = ctx.run();
    let open = &run.live.open;
    let rank = match run.measuring() {
        // Whoever measures alone measures the whole adapter.
        Some(_) => run.spec.rank,
        None => run.members.get(client)?.participation.as_ref()?.rank,
    };
    Some(v1::Assignment {
        run: ctx.id.to_string(),
        round: open.round,
        attempt: open.attempt,
        kind: kind.into(),
        run_file: run.spec.run_file.clone(),
        base: Some(run.spec.base.clone()),
        rank,
        state: Some(run.adapter(None).message()),
        deadline_ms: run.live.phase.deadline().unwrap_or_default(),
        evaluate_before: kind == v1::WorkKind::Train && run.spec.measures_before_training(open.round),
        upload_settled: kind == v1::WorkKind::Evaluate,
        dataset: run.measuring().map(|measuring| measuring.dataset.clone()).unwrap_or_default(),
        initial: run.spec.start_adapter.as_ref().map(StartAdapter::message),
        clip: run.clip().unwrap_or_default(),
    })
}

/// Notes which blobs the client must now fetch for the first time, and counts them by formula in
/// this round.
fn assign_downloads(ctx: &mut RunContext<'_>, client: &ClientId) {
    let round = ctx.run().live.open.round;
    let measuring = ctx.run().measuring().is_some();
    let blobs: Vec<(Digest, u64)> = ctx.run().adapter(None).blobs().collect();
    let known: BTreeSet<Digest> =
        ctx.run().members.get(client).iter().flat_map(|member| member.fetches.keys().copied()).collect();
    let needed: BTreeSet<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    if known == needed {
        return;
    }
    let member = ctx.member(client);
    member.fetches.retain(|digest, _| needed.contains(digest));
    let mut asked = 0;
    for (digest, layout_bytes) in blobs {
        if !known.contains(&digest) {
            member.fetches.insert(digest, Fetch { round, layout_bytes, delivered: false, measuring });
            asked += layout_bytes;
        }
    }
    if let Some(measuring) = ctx.measuring() {
        measuring.layout_bytes_down += asked;
    } else if let Some(part) = ctx.participation(client) {
        part.layout_bytes_down += asked;
    }
}
