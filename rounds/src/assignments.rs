//! What clients ask for: invitations, their answers, and work.

use std::collections::BTreeSet;

use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::Millis;
use crate::desk::{Desk, Turn, clean};
use crate::effect::Reply;
use crate::engine::{Answering, Engine};
use crate::fleet::withhold;
use crate::initial::Initial;
use crate::phases::measuring::can_measure;
use crate::phases::{Phase, Training, WarmUp, recruiting};
use crate::record::RecordKey;
use crate::rejection::Rejection;
use crate::state::{Answer, Client, EvaluationState, Fetch, PartState, Run, Standing};

/// How soon a client with nothing to do asks again.
const RETRY_AFTER_MS: u32 = 1000;
/// How exact the recorded time of a client's last message is; finer would mean a commit for every poll.
const SEEN_RESOLUTION_MS: Millis = 60_000;
/// How long a client that declined is left alone before it is asked again: what it lacked may have been mended.
const RECONSIDER_AFTER_MS: Millis = 60_000;
/// Most data sets, and most base models, that a client may offer.
const MAX_OFFERS: usize = 256;

impl Engine {
    pub(crate) fn poll(
        &mut self,
        client: ClientId,
        datasets: Vec<String>,
        bases: Vec<String>,
        max_rank: u32,
        version: &str,
        turn: &mut Turn,
    ) -> Result<Answering, Rejection> {
        let count = datasets.len().max(bases.len());
        if count > MAX_OFFERS {
            return Err(Rejection::Offers { client, count, limit: MAX_OFFERS });
        }
        let unknown = || Rejection::UnknownClient { client: client.clone() };
        let record = self.state.clients.get_mut(&client).ok_or_else(unknown)?;
        if record.standing == Standing::Revoked {
            return Err(Rejection::ClientState { client, state: record.standing.as_str() });
        }
        let datasets: BTreeSet<String> = datasets.iter().map(|name| clean(name)).collect();
        let bases: BTreeSet<String> = bases.iter().map(|name| clean(name)).collect();
        let heard = Client { datasets, bases, max_rank, version: clean(version), ..record.clone() };
        let is_stale = turn.now.saturating_sub(record.seen_at).abs() >= SEEN_RESOLUTION_MS;
        if heard != *record || is_stale {
            *record = Client { seen_at: turn.now, ..heard };
            turn.changed.insert(RecordKey::Client(client.clone()));
        }
        self.presence.saw(&client, turn.now);
        Ok(Answering::Poll(client))
    }

    /// What the client is to do next. Comes after the runs were settled, so that the poll which fills a cohort already
    /// gets its assignment.
    pub(crate) fn next_work(&mut self, client: &ClientId, turn: &mut Turn) -> v1::PollReply {
        let Some(record) = self.state.clients.get(client).cloned() else { return wait("not enrolled") };
        if record.standing == Standing::Pending {
            return wait("an operator must approve this client first");
        }
        let runs = self.runs_at_work(client);
        // What it has begun comes before what it has not.
        let (begun, fresh): (Vec<&RunId>, Vec<&RunId>) =
            runs.iter().partition(|run| self.state.runs.get(*run).is_some_and(|run| has_begun(run, client)));
        for run in begun.into_iter().chain(fresh) {
            if let Some(assignment) = self.desk(run, turn).ok().and_then(|mut desk| hand_out(&mut desk, client)) {
                return next(v1::poll_reply::Next::Assignment(assignment));
            }
        }
        if record.standing == Standing::Draining {
            return wait("this client drains: it gets no more work");
        }
        for run in self.live_runs() {
            if let Some(invitation) = self.desk(&run, turn).ok().and_then(|mut desk| invite(&mut desk, client, &record))
            {
                return next(v1::poll_reply::Next::Invitation(invitation));
            }
        }
        wait(&self.why_idle(client))
    }

    fn why_idle(&self, client: &ClientId) -> String {
        let mut runs = self.live_runs();
        runs.retain(|run| self.state.runs.get(run).is_some_and(|run| run.members.contains_key(client)));
        let Some(id) = runs.first() else { return "no run needs this client".to_owned() };
        let Some(run) = self.state.runs.get(id) else { return "no run needs this client".to_owned() };
        let phase = if run.live.paused_at.is_some() { "paused" } else { run.live.phase.name() };
        let member = run.members.get(client);
        let part = member.and_then(|member| member.part.as_ref()).map(|part| (part.state, &part.reason));
        let own = match (part, member.and_then(|member| member.answer.as_ref())) {
            (Some((PartState::Accepted, _)), _) => "its update was accepted".to_owned(),
            (Some((PartState::Dropped, reason)), _) => format!("it was dropped: {reason}"),
            (Some((PartState::Spare, reason)), _) => format!("it is spare: {reason}"),
            (Some(_), _) => "its work waits".to_owned(),
            (None, None) => "it measures for the run".to_owned(),
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
        turn: &mut Turn,
    ) -> Result<Answering, Rejection> {
        let record = self.working_client(client)?.clone();
        let turn_now = turn.now;
        let mut desk = self.desk(run, turn)?;
        let answer = if accept {
            if record.standing == Standing::Draining {
                return Err(Rejection::ClientState { client: client.clone(), state: record.standing.as_str() });
            }
            let spec = &desk.run().spec;
            let lack = |what: String| Rejection::NotOffered { client: client.clone(), run: run.clone(), what };
            if !record.datasets.contains(&spec.dataset) {
                return Err(lack(format!("data set {:?}", spec.dataset)));
            }
            if !record.bases.contains(&spec.base.digest) {
                return Err(lack(format!("base model {} ({})", spec.base.name, spec.base.digest)));
            }
            let rank = agree_on_rank(&desk, &record, rank).map_err(|problem| Rejection::Rank {
                client: client.clone(),
                run: run.clone(),
                problem,
            })?;
            Answer { accepted: true, rank, reason: String::new(), by_engine: false, at: turn_now }
        } else {
            Answer { accepted: false, rank: 0, reason: clean(reason), by_engine: false, at: turn_now }
        };
        let before = desk.run().members.get(client).and_then(|member| member.answer.as_ref());
        if before.is_some_and(|before| before.is_alike(&answer)) {
            desk.member(client).answer = Some(answer);
        } else {
            let text = match (answer.accepted, answer.reason.as_str()) {
                (true, _) => format!("takes part with rank {}", answer.rank),
                (false, "") => "declined".to_owned(),
                (false, reason) => format!("declined: {reason}"),
            };
            if !answer.accepted {
                withhold(&mut desk, client, "it declined");
            }
            desk.member(client).answer = Some(answer);
            desk.announce(Some(client), text);
        }
        self.presence.saw(client, turn.now);
        Ok(Answering::With(Reply::Done))
    }

    /// Whether the client may fetch this blob now: it has the work in hand that needs it.
    pub fn may_download(&self, client: &ClientId, run: &RunId, digest: &Digest) -> bool {
        let (Ok(_), Some(run)) = (self.working_client(client), self.state.runs.get(run)) else { return false };
        run.is_open_for(client) && has_begun(run, client) && run.adapter(None).blobs().any(|(blob, _)| blob == *digest)
    }
}

/// The rank a client trains with, or why there is none.
fn agree_on_rank(desk: &Desk<'_>, client: &Client, asked: u32) -> Result<u32, String> {
    let limit = if client.max_rank == 0 { u32::MAX } else { client.max_rank };
    if asked > limit {
        return Err(format!("rank {asked} is above the client's own limit of {limit}"));
    }
    let wanted = if asked == 0 { desk.run().spec.rank.min(limit) } else { asked };
    let rank = desk.job.client_rank(wanted as usize).map_err(|error| error.to_string())?;
    if desk.run().spec.central.is_some() && rank != desk.job.rank() {
        let run = desk.job.rank();
        return Err(format!("rank {rank} is not the run's {run}: with privacy per client all updates have one shape"));
    }
    Ok(u32::try_from(rank).unwrap_or(u32::MAX))
}

fn next(next: v1::poll_reply::Next) -> v1::PollReply {
    v1::PollReply { next: Some(next), ended_runs: Vec::new() }
}

fn wait(reason: &str) -> v1::PollReply {
    next(v1::poll_reply::Next::Wait(v1::Wait { retry_after_ms: RETRY_AFTER_MS, reason: reason.to_owned() }))
}

/// Whether the assignment in hand was handed out already.
fn has_begun(run: &Run, client: &ClientId) -> bool {
    match &run.live.phase {
        Phase::Publishing(_) => run.evaluation_of(client) == EvaluationState::Working,
        _ => run.parts().any(|(id, part)| id == client && part.state == PartState::Working),
    }
}

/// Asks a client to take part, or declines for it when it declared a limit that the run is beyond.
fn invite(desk: &mut Desk<'_>, client: &ClientId, record: &Client) -> Option<v1::Invitation> {
    let run = desk.run();
    if run.live.paused_at.is_some() || !recruiting::offers(record, &run.spec) {
        return None;
    }
    let answer = run.members.get(client).and_then(|member| member.answer.as_ref());
    let stands = |answer: &Answer| answer.accepted || desk.now() < answer.at.saturating_add(RECONSIDER_AFTER_MS);
    if answer.is_some_and(|answer| !answer.by_engine && stands(answer)) {
        return None;
    }
    match agree_on_rank(desk, record, 0) {
        Ok(_) => {
            let spec = &desk.run().spec;
            let (run_file, base) = (spec.run_file.clone(), Some(spec.base.clone()));
            let initial = spec.initial.as_ref().map(Initial::message);
            Some(v1::Invitation { run: desk.id.to_string(), run_file, base, initial })
        }
        Err(reason) => {
            let declined = Answer { accepted: false, rank: 0, reason: reason.clone(), by_engine: true, at: desk.now() };
            if !answer.is_some_and(|answer| answer.is_alike(&declined)) {
                desk.member(client).answer = Some(declined);
                desk.announce(Some(client), format!("declined: {reason}"));
            }
            None
        }
    }
}

/// Gives the client the work it has in hand, the same each time it asks. A paused run gives nothing that was not given
/// before.
fn hand_out(desk: &mut Desk<'_>, client: &ClientId) -> Option<v1::Assignment> {
    let is_paused = desk.run().live.paused_at.is_some();
    let is_again = has_begun(desk.run(), client);
    if is_paused && !is_again {
        return None;
    }
    let kind = match &desk.run().live.phase {
        Phase::WarmUp(_) => WarmUp::WORK,
        Phase::Training(_) => Training::WORK,
        Phase::Publishing(_) => v1::WorkKind::Evaluate,
        Phase::Recruiting(_) | Phase::Aggregating(_) | Phase::Ended(_) => return None,
    };
    let measures = desk.run().measuring().is_some();
    if let Some(evaluator) = desk.run().spec.evaluator.as_ref().filter(|_| measures)
        && !desk.clients.get(client).is_some_and(|record| can_measure(record, &desk.run().spec, evaluator))
    {
        return None;
    }
    if !is_again {
        if let Some(measuring) = desk.measuring() {
            measuring.state = EvaluationState::Working;
        } else if kind == v1::WorkKind::Evaluate {
            desk.part(client)?.evaluation = EvaluationState::Working;
        } else {
            desk.part(client)?.state = PartState::Working;
        }
    }
    assign_downloads(desk, client);

    let (run, open) = (desk.run(), &desk.run().live.open);
    let rank = match run.measuring() {
        // Whoever measures alone measures the whole adapter.
        Some(_) => run.spec.rank,
        None => run.members.get(client)?.part.as_ref()?.rank,
    };
    Some(v1::Assignment {
        run: desk.id.to_string(),
        round: open.round,
        attempt: open.attempt,
        kind: kind.into(),
        run_file: run.spec.run_file.clone(),
        base: Some(run.spec.base.clone()),
        rank,
        state: Some(run.adapter(None).message()),
        deadline_ms: run.live.phase.deadline().unwrap_or_default(),
        evaluate_before: kind == Training::WORK && Training::evaluates_before(&run.spec, open.round),
        upload_settled: kind == v1::WorkKind::Evaluate,
        dataset: run.measuring().map(|measuring| measuring.dataset.clone()).unwrap_or_default(),
        initial: run.spec.initial.as_ref().map(Initial::message),
        clip: run.clip().unwrap_or_default(),
    })
}

/// Notes which blobs the client must now fetch for the first time, and counts them by formula in this round.
fn assign_downloads(desk: &mut Desk<'_>, client: &ClientId) {
    let round = desk.run().live.open.round;
    let measuring = desk.run().measuring().is_some();
    let blobs: Vec<(Digest, u64)> = desk.run().adapter(None).blobs().collect();
    let known: BTreeSet<Digest> =
        desk.run().members.get(client).iter().flat_map(|member| member.fetches.keys().copied()).collect();
    let needed: BTreeSet<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    if known == needed {
        return;
    }
    let member = desk.member(client);
    member.fetches.retain(|digest, _| needed.contains(digest));
    let mut asked = 0;
    for (digest, layout_bytes) in blobs {
        if !known.contains(&digest) {
            member.fetches.insert(digest, Fetch { round, layout_bytes, delivered: false, measuring });
            asked += layout_bytes;
        }
    }
    if let Some(measuring) = desk.measuring() {
        measuring.layout_bytes_down += asked;
    } else if let Some(part) = desk.part(client) {
        part.layout_bytes_down += asked;
    }
}
