//! The course of a run, scene by scene.

use rondo_proto::v1;
use rondo_rounds::{Input, Rejection, Reply, UploadOutcome};

use crate::methods::IDS;
use crate::model::{Op, Setup};
use crate::run::simulate;
use crate::world::{DEADLINE_S, GRACE_S, REST_S, World};

impl World {
    /// Every client joins and takes its assignment.
    pub(crate) fn gather(&mut self) {
        for client in 0..self.devices.len() {
            self.obey(client);
        }
        for client in 0..self.devices.len() {
            self.obey(client);
        }
        if self.open().participants.is_empty() {
            self.carry_out(Op::Wait(GRACE_S));
            (0..self.devices.len()).for_each(|client| self.obey(client));
        }
        assert!(!self.cohort().is_empty());
    }

    /// The open round of the first run.
    pub(crate) fn open(&self) -> v1::RoundRecord {
        self.engine.run_summary(&self.runs[0]).unwrap().open.unwrap()
    }

    /// A closed round of the first run.
    pub(crate) fn closed(&self, round: u32) -> v1::RoundRecord {
        let record = self.engine.round_record(&self.runs[0], round).unwrap();
        assert_ne!(record.ended_at_ms, 0, "round {round} is open");
        record
    }

    /// Clients of the first run's open attempt.
    pub(crate) fn cohort(&self) -> Vec<usize> {
        let open = self.open();
        let at_work = open.participants.iter().filter(|participant| participant.state != "dropped");
        at_work.map(|participant| participant.client[1..].parse().unwrap()).collect()
    }

    pub(crate) fn participant(&self, client: usize) -> v1::Participant {
        let name = self.devices[client].name.to_string();
        self.open().participants.into_iter().find(|participant| participant.client == name).unwrap()
    }

    /// The client trains and uploads.
    pub(crate) fn deliver(&mut self, client: usize) -> Reply {
        let assignment = self.devices[client].assignment.clone().unwrap();
        let packed = self.pack(client, &assignment, "");
        self.upload(client, &packed).reply()
    }

    pub(crate) fn phase_of_first(&self) -> String {
        self.phase(&self.runs[0].clone())
    }

    /// Everybody works until the first run's open round is this one.
    pub(crate) fn reach(&mut self, round: u32) {
        while self.engine.run_summary(&self.runs[0]).unwrap().round < round {
            self.everybody_works();
        }
        (0..self.devices.len()).for_each(|client| self.obey(client));
    }
}

pub(crate) fn accepted() -> Reply {
    Reply::Upload(UploadOutcome::Accepted)
}

#[test]
fn every_method_runs_to_its_end() {
    for (method, id) in IDS.iter().enumerate() {
        let world = simulate(Setup { method, rounds: 3, ..Setup::default() }, &[]);
        let summary = world.engine.run_summary(&world.runs[0]).unwrap();
        assert_eq!((summary.outcome.as_str(), summary.method.as_str()), ("completed", *id));
        assert_eq!(summary.privacy, "no privacy");
        assert!(summary.open.is_none());

        let records = world.engine.rounds(&world.runs[0]);
        let has_warm_up = *id == "fed-sb";
        let kinds: Vec<&str> = records.iter().map(|record| record.kind.as_str()).collect();
        let expected = ["warm-up", "training", "training", "training"];
        assert_eq!(kinds, expected[usize::from(!has_warm_up)..], "{id}");
        for record in &records {
            assert_eq!(record.frozen_digest.is_empty(), record.kind != "warm-up", "{id}");
            let accepted: Vec<_> = record.participants.iter().filter(|p| p.state == "accepted").collect();
            assert_eq!(accepted.len(), 3, "{id}");
            assert!(accepted.iter().all(|p| p.after.is_some() == (record.kind == "training")), "{id}");
            assert!(accepted.iter().all(|p| p.before.is_some() == (record.round == 1)), "{id}");
        }
        // A stack's entries all stay part of the adapter; a mean replaces the one before.
        let adapter = summary.adapter.unwrap();
        assert_eq!(adapter.published.len(), if world.setup.accumulates() { 3 } else { 1 }, "{id}");
        assert_eq!(adapter.frozen_digest.is_empty(), !has_warm_up, "{id}");
        let second = world.engine.adapter_state(&world.runs[0], Some(2)).unwrap();
        assert_eq!((second.round, second.published.last().unwrap().round), (2, 2), "{id}");
        assert!(world.engine.adapter_state(&world.runs[0], Some(4)).is_none());
        assert!(world.queue.is_empty());
    }
}

#[test]
fn the_same_seed_draws_the_same_cohorts() {
    let draws = |seed| {
        let world = simulate(Setup { rounds: 4, clients: 8, seed, ..Setup::default() }, &[]);
        let rounds = world.engine.rounds(&world.runs[0]);
        rounds.iter().map(|r| r.participants.iter().map(|p| p.client.clone()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}

#[test]
fn a_killed_client_is_dropped_and_the_run_goes_on_at_quorum() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    world.deliver(0);
    assert_eq!(world.deliver(1), accepted());
    assert_eq!(world.phase_of_first(), "training");
    // Client 2 is dead: the others wait for it no longer than the grace time.
    world.carry_out(Op::Wait(GRACE_S - 1));
    assert_eq!(world.phase_of_first(), "training");
    world.carry_out(Op::Wait(1));
    assert_eq!(world.phase_of_first(), "aggregating");
    let dropped = world.participant(2);
    assert_eq!((dropped.state.as_str(), dropped.weight), ("dropped", 0.0));
    assert!(dropped.reason.contains("no update within 3 s after quorum"), "{}", dropped.reason);
    // It comes back with its update: late, and refused as late.
    let late = world.devices[2].assignment.clone().unwrap();
    let packed = world.pack(2, &late, "");
    assert!(matches!(world.upload(2, &packed).rejection(), Rejection::Dropped { .. }));
}

#[test]
fn a_client_that_stays_silent_is_not_drawn_again() {
    let mut world = World::new(Setup { clients: 3, rounds: 40, eval_every: 0, ..Setup::default() });
    world.gather();
    let silent_since = world.now;
    while world.now < silent_since + 60_000 {
        // Too soon to call client 2 lost: it is drawn, and every round waits its grace time.
        assert_eq!(world.cohort(), [0, 1, 2]);
        for client in [0, 1] {
            world.obey(client);
            world.deliver(client);
        }
        world.carry_out(Op::Wait(GRACE_S));
        world.carry_out(Op::Aggregate);
    }
    assert_eq!(world.cohort(), [0, 1]);
}

#[test]
fn a_restart_continues_the_round() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    world.deliver(0);
    let before = (world.open(), world.devices[1].assignment.clone());
    world.restart();
    world.obey(1);
    assert_eq!((world.open(), world.devices[1].assignment.clone()), before);
    world.deliver(1);
    world.deliver(2);

    // The order to aggregate is given again, under the same key.
    let order = world.queue.front().cloned().unwrap();
    world.restart();
    assert_eq!(world.queue, [order]);
    world.carry_out(Op::Aggregate);
    assert_eq!(world.open().round, 1);
    world.heal();
    assert_eq!(world.outcome(0), "completed");
}

#[test]
fn a_lost_commit_is_as_if_nothing_had_come() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    world.carry_out(Op::Work(0));
    world.carry_out(Op::CrashBeforeCommit);
    world.carry_out(Op::Upload(0));
    assert_eq!(world.participant(0).state, "training");
    world.carry_out(Op::CrashAfterCommit);
    world.carry_out(Op::Upload(0));
    assert_eq!(world.participant(0).state, "accepted");
    // The client heard neither time. Sent once more, it is accepted and counts once.
    world.carry_out(Op::Upload(0));
    assert_eq!(world.open().participants.iter().filter(|p| p.state == "accepted").count(), 1);
    assert!(world.devices[0].spool.is_empty());
}

#[test]
fn an_attempt_without_quorum_is_repeated_and_then_given_up() {
    let mut world = World::new(Setup { clients: 3, max_attempts: 2, ..Setup::default() });
    world.gather();
    world.deliver(0);
    world.carry_out(Op::Wait(DEADLINE_S));
    let open = world.open();
    assert_eq!((open.attempt, open.notes.len()), (2, 1));
    assert!(open.notes[0].contains("1 of 2 needed updates"), "{:?}", open.notes);
    world.carry_out(Op::Wait(REST_S));
    // Client 0's update was not used; it is asked again, under a new key.
    let first = world.devices[0].assignment.clone().unwrap();
    world.obey(0);
    let second = world.devices[0].assignment.clone().unwrap();
    assert_eq!((first.attempt, second.attempt), (1, 2));
    let late = world.pack(0, &first, "");
    assert!(matches!(world.upload(0, &late).rejection(), Rejection::WrongRound { attempt: 2, got_attempt: 1, .. }));
    world.carry_out(Op::Fail(1));
    for client in [0, 1, 2] {
        world.obey(client);
        world.carry_out(Op::Fail(client));
    }
    assert_eq!(world.outcome(0), "failed: round 1 after 2 attempts: 0 of 2 needed updates");
    let last = world.open();
    assert!(last.participants.iter().any(|p| p.reason.contains("the client failed: no memory")), "{last:?}");
    assert!(world.blobs.is_empty());
}

/// Nobody else is there to take the place of who failed: the attempts do not go in a moment.
#[test]
fn who_failed_is_left_alone_for_a_while() {
    let mut world = World::new(Setup { clients: 2, cohort: 2, quorum: 2, ..Setup::default() });
    world.gather();
    world.carry_out(Op::Fail(0));
    let latest = |world: &World| world.engine.events(&world.runs[0], 0).last().unwrap().text.clone();
    for second in 0..REST_S {
        assert_eq!((world.open().attempt, world.cohort()), (2, vec![]), "second {second}: {}", latest(&world));
        assert_eq!(world.open().participants.iter().filter(|part| part.state == "training").count(), 0);
        let kept = world.participant(1).reason;
        assert_eq!(kept, "attempt 1: too few of the others were left for a quorum");
        (0..2).for_each(|client| world.obey(client));
        world.carry_out(Op::Wait(1));
    }
    (0..2).for_each(|client| world.obey(client));
    assert_eq!((world.open().attempt, world.cohort()), (2, vec![0, 1]), "{}", latest(&world));
    // The next rest is twice as long.
    world.carry_out(Op::Fail(1));
    world.carry_out(Op::Wait(2 * REST_S - 1));
    assert!(world.cohort().is_empty());
    world.carry_out(Op::Wait(1));
    assert_eq!(world.cohort(), [0, 1]);
}

#[test]
fn who_failed_is_drawn_last_in_the_next_attempt() {
    let mut world = World::new(Setup { clients: 4, cohort: 2, ..Setup::default() });
    world.gather();
    let failing = world.cohort();
    world.carry_out(Op::Fail(failing[0]));
    assert_eq!(world.open().attempt, 2);
    assert!(!world.cohort().contains(&failing[0]));
    // It stays on the record of the round, with what it did.
    let reason = world.participant(failing[0]).reason;
    assert_eq!(reason, "attempt 1: the client failed: no memory");
}

#[test]
fn a_failed_aggregation_is_a_failed_attempt() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::AggregateFails);
    let open = world.open();
    assert_eq!(open.attempt, 2);
    assert!(open.notes[0].contains("the aggregation failed: disk full"));
    world.heal();
    assert_eq!(world.outcome(0), "completed");
    assert!(world.closed(1).notes[0].contains("disk full"));
}

#[test]
fn an_evaluation_that_is_no_number_or_never_comes_holds_nothing_up() {
    let mut world = World::new(Setup { clients: 3, rounds: 1, ..Setup::default() });
    world.gather();
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::Aggregate);
    (0..3).for_each(|client| world.obey(client));
    let run = world.runs[0].clone();
    let evaluation = v1::Evaluation { loss: f64::NAN, accuracy: 0.5, examples: 8, ..Default::default() };
    let client = world.devices[0].name.clone();
    world.step(Input::Evaluated { client, run, round: 1, evaluation, min_group: 0 }).reply();
    world.work(1);
    assert_eq!(world.phase_of_first(), "publishing");
    world.carry_out(Op::Wait(DEADLINE_S));
    assert_eq!(world.outcome(0), "completed");
    let record = world.closed(1);
    let measured: Vec<bool> = record.participants.iter().map(|p| p.after.is_some()).collect();
    assert_eq!(measured, [false, true, false]);
    assert!(record.notes.iter().any(|note| note.contains("c0: evaluation failed: loss NaN")), "{:?}", record.notes);
    assert!(record.notes.iter().any(|note| note.contains("c2: no evaluation in time")), "{:?}", record.notes);
    // A late report is refused, one that is already there is not.
    world.work(2);
    world.carry_out(Op::Repeat);
}
