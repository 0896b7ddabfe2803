//! Who may work: enrolment, approval, draining, revocation.

use std::collections::BTreeSet;

use rondo_proto::{ClientId, RunId};

use crate::engine::{Engine, PendingReply};
use crate::key::{Millis, RecordKey};
use crate::phases::{attempt, publishing};
use crate::rejection::Rejection;
use crate::run_context::{Changes, RunContext};
use crate::state::participation::{EvaluationState, ParticipationState};
use crate::state::phase::Phase;
use crate::state::{Answer, Client, ClientStatus};

impl Engine {
    pub(crate) fn enrolled(
        &mut self,
        client: ClientId,
        fingerprint: String,
        expires: Millis,
        approved: bool,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        if self.state.clients.get(&client).is_some_and(|known| known.status != ClientStatus::Revoked) {
            return Err(Rejection::ClientExists { client });
        }
        let record = Client {
            status: if approved { ClientStatus::Active } else { ClientStatus::Pending },
            enrolled_at: changes.now,
            seen_at: changes.now,
            datasets: BTreeSet::new(),
            bases: BTreeSet::new(),
            tokens: BTreeSet::new(),
            max_rank: 0,
            version: String::new(),
            fingerprint,
            expires,
        };
        self.state.clients.insert(client.clone(), record);
        self.liveness.saw(&client, changes.now);
        changes.records.insert(RecordKey::Client(client.clone()));
        Ok(PendingReply::Client(client))
    }

    pub(crate) fn renewed(
        &mut self,
        client: ClientId,
        fingerprint: String,
        expires: Millis,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.check_status(&client, |status| status != ClientStatus::Revoked)?;
        if let Some(record) = self.state.clients.get_mut(&client) {
            (record.fingerprint, record.expires) = (fingerprint, expires);
            changes.records.insert(RecordKey::Client(client.clone()));
        }
        Ok(PendingReply::Client(client))
    }

    pub(crate) fn approve(&mut self, client: ClientId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        self.check_status(&client, |status| status != ClientStatus::Revoked)?;
        self.set_status(&client, ClientStatus::Active, changes);
        Ok(PendingReply::Client(client))
    }

    pub(crate) fn drain(&mut self, client: ClientId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        self.check_status(&client, |status| matches!(status, ClientStatus::Active | ClientStatus::Draining))?;
        self.set_status(&client, ClientStatus::Draining, changes);
        for run in self.live_runs() {
            self.open_run(&run, changes).map(|mut ctx| withhold(&mut ctx, &client, "it drains"))?;
        }
        Ok(PendingReply::Client(client))
    }

    pub(crate) fn revoke(&mut self, client: ClientId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        self.check_status(&client, |_| true)?;
        if self.state.clients.get(&client).is_some_and(|record| record.status == ClientStatus::Revoked) {
            return Ok(PendingReply::Client(client));
        }
        self.set_status(&client, ClientStatus::Revoked, changes);
        for run in self.live_runs() {
            self.open_run(&run, changes).map(|mut ctx| expel(&mut ctx, &client))?;
        }
        Ok(PendingReply::Client(client))
    }

    fn check_status(&self, client: &ClientId, is_fit: impl Fn(ClientStatus) -> bool) -> Result<(), Rejection> {
        let record = self.state.clients.get(client);
        let record = record.ok_or_else(|| Rejection::UnknownClient { client: client.clone() })?;
        if is_fit(record.status) {
            return Ok(());
        }
        Err(Rejection::ClientState { client: client.clone(), state: record.status.as_str() })
    }

    fn set_status(&mut self, client: &ClientId, status: ClientStatus, changes: &mut Changes) {
        if let Some(record) = self.state.clients.get_mut(client)
            && record.status != status
        {
            record.status = status;
            changes.records.insert(RecordKey::Client(client.clone()));
        }
    }

    /// Runs in which this client has assigned work, oldest first.
    pub(crate) fn runs_at_work(&self, client: &ClientId) -> Vec<RunId> {
        let mut runs = self.live_runs();
        runs.retain(|run| self.state.runs.get(run).is_some_and(|run| run.is_open_for(client)));
        runs
    }
}

/// Takes back the work that the client has not fetched yet.
pub(crate) fn withhold(ctx: &mut RunContext<'_>, client: &ClientId, why: &str) {
    let state = participation_state(ctx, client);
    match &ctx.run().live.phase {
        Phase::WarmUp(_) | Phase::Training(_) if state == Some(ParticipationState::Selected) => {
            attempt::drop_client(ctx, client, why.to_owned());
        }
        Phase::Publishing(_) if ctx.run().evaluation_of(client) == EvaluationState::Due => {
            publishing::give_up_evaluation(ctx, client, format!("no evaluation: {why}"));
        }
        _ => {}
    }
}

fn participation_state(ctx: &RunContext<'_>, client: &ClientId) -> Option<ParticipationState> {
    ctx.run().participations().find(|(id, _)| *id == client).map(|(_, part)| part.state)
}

/// Takes the client out of the run, at once.
fn expel(ctx: &mut RunContext<'_>, client: &ClientId) {
    let state = participation_state(ctx, client);
    match (&ctx.run().live.phase, state) {
        (Phase::WarmUp(_) | Phase::Training(_), Some(state)) if state != ParticipationState::Dropped => {
            attempt::drop_client(ctx, client, "revoked".to_owned());
        }
        (Phase::Publishing(_), _) if ctx.run().evaluation_of(client).is_open() => {
            publishing::give_up_evaluation(ctx, client, "no evaluation: revoked".to_owned());
        }
        // The set that is being aggregated is fixed.
        (Phase::Aggregating(_), Some(ParticipationState::Accepted)) => {
            ctx.note(format!("{client} was revoked after its update was taken"));
        }
        _ => {}
    }
    if ctx.run().members.get(client).is_some_and(|member| member.answer.is_some()) {
        let answer = Answer {
            accepted: false,
            rank: 0,
            reason: "revoked".to_owned(),
            by_engine: true,
            undecided: false,
            at: ctx.now(),
        };
        ctx.member(client).answer = Some(answer);
    }
}
