//! The open round as a record, as operators see it and as it will close.

use rondo_proto::{ClientId, RunId, v1};

use crate::guarantee;
use crate::key::WorkKey;
use crate::liveness::Liveness;
use crate::state::Run;
use crate::state::participation::{Participation, ParticipationState};
use crate::state::phase::{Measuring, Phase};

/// The open round as a record. For a round that is closing, all that is left out is its end.
pub(crate) fn open_record(id: &RunId, run: &Run, liveness: &Liveness) -> v1::RoundRecord {
    let open = &run.live.open;
    let publication = match &run.live.phase {
        Phase::Publishing(publishing) => Some(&publishing.publication),
        _ => None,
    };
    let weights = match &run.live.phase {
        Phase::Aggregating(_) | Phase::Publishing(_) => run.weights(),
        _ => Default::default(),
    };
    let work = WorkKey { run: id.clone(), round: open.round, attempt: open.attempt };
    let parts = run.members.iter().filter_map(|(client, member)| Some((client, member.participation.as_ref()?)));
    v1::RoundRecord {
        run: id.to_string(),
        round: open.round,
        kind: open.kind.as_str().to_owned(),
        attempt: open.attempt,
        global_digest: publication.map(|publication| publication.global.to_string()).unwrap_or_default(),
        frozen_digest: publication
            .and_then(|publication| publication.frozen.as_ref())
            .map(|frozen| frozen.digest.to_string())
            .unwrap_or_default(),
        aggregation_error: publication.and_then(|publication| publication.error),
        participants: parts
            .map(|(client, part)| {
                let weight = weights.get(client).copied().unwrap_or_default();
                participant(client, part, weight, &work, liveness)
            })
            .collect(),
        started_at_ms: open.started_at.unwrap_or_default(),
        ended_at_ms: 0,
        privacy: guarantee::statement(run),
        notes: open.notes.clone(),
        held_out_loss: None,
        best_round: None,
        rolled_back_to: None,
        measurement: run.measuring().map(|measuring| measurement(measuring, &work, liveness)),
        server_digest: publication
            .and_then(|publication| publication.server)
            .map(|d| d.to_string())
            .unwrap_or_default(),
        initial_digest: run.spec.start_adapter_digest(),
        released: run.released(),
    }
}

fn measurement(measuring: &Measuring, work: &WorkKey, liveness: &Liveness) -> v1::Measurement {
    let progress = liveness.progress(&measuring.client, work).filter(|_| measuring.state.is_open());
    v1::Measurement {
        client: measuring.client.to_string(),
        dataset: measuring.dataset.clone(),
        state: measuring.state.as_str().to_owned(),
        reason: measuring.reason.clone(),
        after: measuring.after.clone(),
        bytes_down: measuring.bytes_down,
        layout_bytes_down: measuring.layout_bytes_down,
        step: progress.map_or(0, |progress| progress.step),
        steps: progress.map_or(0, |progress| progress.steps),
    }
}

fn participant(
    client: &ClientId,
    part: &Participation,
    weight: f64,
    work: &WorkKey,
    liveness: &Liveness,
) -> v1::Participant {
    let update = part.update.as_ref();
    let mut participant = v1::Participant {
        client: client.to_string(),
        state: state_name(part.state).to_owned(),
        reason: part.reason.clone(),
        rank: part.rank,
        weight,
        examples: update.map_or(0, |update| update.examples),
        update_digest: update.map(|update| update.digest.to_string()).unwrap_or_default(),
        bytes_up: part.bytes_up,
        bytes_down: part.bytes_down,
        layout_bytes_up: part.layout_bytes_up,
        layout_bytes_down: part.layout_bytes_down,
        train_loss: update.map_or(0.0, |update| update.train_loss),
        train_seconds: update.map_or(0.0, |update| update.train_seconds),
        update_norm: update.map_or(0.0, |update| update.norm),
        before: part.before.clone(),
        after: part.after.clone(),
        metrics_withheld: part.metrics_withheld,
        privacy: update.and_then(|update| update.privacy.clone()),
        step: 0,
        steps: 0,
    };
    let progress = liveness.progress(client, work).filter(|_| part.state.is_open() && part.attempt == work.attempt);
    if let Some(progress) = progress {
        if progress.state == "uploading" {
            participant.state = "uploading".to_owned();
        }
        (participant.step, participant.steps) = (progress.step, progress.steps);
        participant.train_loss = progress.loss.unwrap_or_default();
    }
    participant
}

fn state_name(state: ParticipationState) -> &'static str {
    match state {
        ParticipationState::Selected => "selected",
        ParticipationState::Working => "training",
        ParticipationState::Accepted => "accepted",
        ParticipationState::Spare => "spare",
        ParticipationState::Dropped => "dropped",
    }
}
