//! Who may work: enrolment, approval, draining, revocation.

use std::collections::BTreeSet;

use rondo_proto::{ClientId, RunId};

use crate::Millis;
use crate::desk::{Desk, Turn};
use crate::engine::{Answering, Engine};
use crate::phases::{Phase, collecting, publishing};
use crate::record::RecordKey;
use crate::rejection::Rejection;
use crate::state::{Answer, Client, EvaluationState, PartState, Standing};

impl Engine {
    pub(crate) fn enrolled(
        &mut self,
        client: ClientId,
        fingerprint: String,
        expires: Millis,
        approved: bool,
        turn: &mut Turn,
    ) -> Result<Answering, Rejection> {
        if self.state.clients.get(&client).is_some_and(|known| known.standing != Standing::Revoked) {
            return Err(Rejection::ClientExists { client });
        }
        let record = Client {
            standing: if approved { Standing::Active } else { Standing::Pending },
            enrolled_at: turn.now,
            seen_at: turn.now,
            datasets: BTreeSet::new(),
            bases: BTreeSet::new(),
            max_rank: 0,
            version: String::new(),
            fingerprint,
            expires,
        };
        self.state.clients.insert(client.clone(), record);
        self.presence.saw(&client, turn.now);
        turn.changed.insert(RecordKey::Client(client.clone()));
        Ok(Answering::Client(client))
    }

    pub(crate) fn renewed(
        &mut self,
        client: ClientId,
        fingerprint: String,
        expires: Millis,
        turn: &mut Turn,
    ) -> Result<Answering, Rejection> {
        self.standing(&client, |standing| standing != Standing::Revoked)?;
        if let Some(record) = self.state.clients.get_mut(&client) {
            (record.fingerprint, record.expires) = (fingerprint, expires);
            turn.changed.insert(RecordKey::Client(client.clone()));
        }
        Ok(Answering::Client(client))
    }

    pub(crate) fn approve(&mut self, client: ClientId, turn: &mut Turn) -> Result<Answering, Rejection> {
        self.standing(&client, |standing| standing != Standing::Revoked)?;
        self.set_standing(&client, Standing::Active, turn);
        Ok(Answering::Client(client))
    }

    pub(crate) fn drain(&mut self, client: ClientId, turn: &mut Turn) -> Result<Answering, Rejection> {
        self.standing(&client, |standing| matches!(standing, Standing::Active | Standing::Draining))?;
        self.set_standing(&client, Standing::Draining, turn);
        for run in self.live_runs() {
            self.desk(&run, turn).map(|mut desk| withhold(&mut desk, &client, "it drains"))?;
        }
        Ok(Answering::Client(client))
    }

    pub(crate) fn revoke(&mut self, client: ClientId, turn: &mut Turn) -> Result<Answering, Rejection> {
        self.standing(&client, |_| true)?;
        if self.state.clients.get(&client).is_some_and(|record| record.standing == Standing::Revoked) {
            return Ok(Answering::Client(client));
        }
        self.set_standing(&client, Standing::Revoked, turn);
        for run in self.live_runs() {
            self.desk(&run, turn).map(|mut desk| expel(&mut desk, &client))?;
        }
        Ok(Answering::Client(client))
    }

    fn standing(&self, client: &ClientId, is_fit: impl Fn(Standing) -> bool) -> Result<(), Rejection> {
        let record = self.state.clients.get(client);
        let record = record.ok_or_else(|| Rejection::UnknownClient { client: client.clone() })?;
        if is_fit(record.standing) {
            return Ok(());
        }
        Err(Rejection::ClientState { client: client.clone(), state: record.standing.as_str() })
    }

    fn set_standing(&mut self, client: &ClientId, standing: Standing, turn: &mut Turn) {
        if let Some(record) = self.state.clients.get_mut(client)
            && record.standing != standing
        {
            record.standing = standing;
            turn.changed.insert(RecordKey::Client(client.clone()));
        }
    }

    /// Runs in which this client has work in hand, oldest first.
    pub(crate) fn runs_at_work(&self, client: &ClientId) -> Vec<RunId> {
        let mut runs = self.live_runs();
        runs.retain(|run| self.state.runs.get(run).is_some_and(|run| run.is_open_for(client)));
        runs
    }
}

/// Takes back what the client was to get and has not got yet.
pub(crate) fn withhold(desk: &mut Desk<'_>, client: &ClientId, why: &str) {
    let state = part_state(desk, client);
    match &desk.run().live.phase {
        Phase::WarmUp(_) | Phase::Training(_) if state == Some(PartState::Selected) => {
            collecting::drop_client(desk, client, why.to_owned());
        }
        Phase::Publishing(_) if desk.run().evaluation_of(client) == EvaluationState::Due => {
            publishing::miss(desk, client, format!("no evaluation: {why}"));
        }
        _ => {}
    }
}

fn part_state(desk: &Desk<'_>, client: &ClientId) -> Option<PartState> {
    desk.run().parts().find(|(id, _)| *id == client).map(|(_, part)| part.state)
}

/// Takes the client out of the run, at once.
fn expel(desk: &mut Desk<'_>, client: &ClientId) {
    let state = part_state(desk, client);
    match (&desk.run().live.phase, state) {
        (Phase::WarmUp(_) | Phase::Training(_), Some(state)) if state != PartState::Dropped => {
            collecting::drop_client(desk, client, "revoked".to_owned());
        }
        (Phase::Publishing(_), _) if desk.run().evaluation_of(client).is_open() => {
            publishing::miss(desk, client, "no evaluation: revoked".to_owned());
        }
        // The set that is being aggregated is fixed.
        (Phase::Aggregating(_), Some(PartState::Accepted)) => {
            desk.note(format!("{client} was revoked after its update was taken"));
        }
        _ => {}
    }
    if desk.run().members.get(client).is_some_and(|member| member.answer.is_some()) {
        let answer = Answer { accepted: false, rank: 0, reason: "revoked".to_owned(), by_engine: true, at: desk.now() };
        desk.member(client).answer = Some(answer);
    }
}
