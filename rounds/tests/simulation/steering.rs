//! What operators do, and who may do what.

use rondo_proto::error::ErrorCode;
use rondo_proto::{ClientId, RunId, v1};
use rondo_rounds::{ExpectedUpload, Input, Rejection, Reply, UploadOutcome};

use crate::lifecycle::accepted;
use crate::model::{Op, Setup};
use crate::world::{DEADLINE_S, KEY, World};

fn three() -> World {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    world
}

fn waits(world: &mut World, client: usize) -> String {
    match world.poll(client) {
        Some(v1::poll_reply::Next::Wait(wait)) => wait.reason,
        other => panic!("expected to wait, got {other:?}"),
    }
}

#[test]
fn a_paused_run_accepts_work_in_hand_and_gives_no_more() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    let deadline = world.devices[0].assignment.as_ref().unwrap().deadline_ms;
    world.carry_out(Op::Kill(1));
    world.carry_out(Op::Pause(0));
    assert!(world.engine.run_summary(&world.runs[0]).unwrap().paused);
    assert_eq!(world.engine.next_wake(), None);
    // Its clock stands still.
    world.carry_out(Op::Wait(10 * DEADLINE_S));
    assert_eq!(world.deliver(0), accepted());
    // Work that was handed out is handed out again, to one that lost it.
    world.obey(1);
    assert_eq!(world.deliver(1), accepted());
    assert_eq!(world.deliver(2), accepted());
    assert_eq!(world.phase_of_first(), "training");
    world.carry_out(Op::Resume(0));
    assert_eq!(world.phase_of_first(), "aggregating");
    world.carry_out(Op::Pause(0));
    world.carry_out(Op::Aggregate);
    assert_eq!(world.phase_of_first(), "publishing");
    assert!(waits(&mut world, 0).contains("paused"));
    world.carry_out(Op::Resume(0));
    let window = world.engine.run_summary(&world.runs[0]).unwrap().deadline_ms;
    let now = world.now;
    assert!(window > deadline && window <= now + i64::from(DEADLINE_S) * 1000);
    world.heal();
    assert_eq!(world.outcome(0), "completed");
}

#[test]
fn a_pause_accepts_no_more_than_a_cohort() {
    let mut world = World::new(Setup { clients: 4, over_select: 1, ..Setup::default() });
    world.gather();
    world.carry_out(Op::Pause(0));
    (0..3).for_each(|client| assert_eq!(world.deliver(client), accepted()));
    assert_eq!(world.deliver(3), Reply::Upload(UploadOutcome::Spare));
}

#[test]
fn a_cancelled_run_stops_its_clients() {
    let mut world = three();
    world.deliver(0);
    world.carry_out(Op::Cancel(0));
    world.carry_out(Op::Cancel(0));
    assert_eq!(world.outcome(0), "cancelled");
    assert!(world.blobs.is_empty());
    let work = crate::world::work_of(world.devices[1].assignment.as_ref().unwrap());
    let client = world.devices[1].name.clone();
    let beat = Input::Heartbeat { client, work, state: "training".into(), step: 1, steps: 2, loss: 0.5 };
    match world.step(beat).reply() {
        Reply::Heartbeat { stop: true, reason } => assert!(reason.contains("cancelled"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let packed = world.pack(1, &world.devices[1].assignment.clone().unwrap(), "");
    assert!(matches!(world.upload(1, &packed).rejection(), Rejection::RunEnded { .. }));
    let run = world.runs[0].clone();
    assert!(matches!(world.step(Input::Pause { run }).rejection(), Rejection::RunEnded { .. }));
}

#[test]
fn what_is_published_stays_when_a_run_is_cancelled() {
    let mut world = three();
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::Aggregate);
    world.carry_out(Op::Cancel(0));
    let adapter = world.engine.adapter_state(&world.runs[0], None).unwrap();
    assert_eq!(world.closed(1).global_digest, adapter.published[0].digest);

    let mut world = three();
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::Cancel(0));
    world.carry_out(Op::Aggregate);
    assert_eq!(world.engine.adapter_state(&world.runs[0], None), None);
    assert!(world.blobs.is_empty(), "an aggregate that nobody needs is dropped");
}

#[test]
fn a_draining_client_finishes_and_gets_no_more() {
    let mut world = three();
    world.carry_out(Op::Drain(0));
    world.obey(0);
    assert_eq!(world.deliver(0), accepted());
    assert!(waits(&mut world, 0).contains("drains"));
    world.deliver(1);
    world.deliver(2);
    world.carry_out(Op::Aggregate);
    assert!(waits(&mut world, 0).contains("drains"));
    [1, 2].into_iter().for_each(|client| {
        world.obey(client);
        world.work(client);
    });
    assert_eq!(world.closed(1).participants[0].state, "accepted");
    assert_eq!(world.cohort(), [1, 2]);
    // A drain can be taken back.
    world.carry_out(Op::Approve(0));
    assert_eq!(world.engine.client(&world.devices[0].name).unwrap().state, "active");
}

#[test]
fn a_client_that_drains_before_it_began_is_dropped() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    for client in [0, 1, 2] {
        world.obey(client);
    }
    world.carry_out(Op::Drain(2));
    assert_eq!(world.participant(2).state, "dropped");
    assert_eq!(world.participant(2).reason, "it drains");
}

#[test]
fn a_revoked_client_is_out_at_once() {
    let mut world = three();
    world.deliver(0);
    world.carry_out(Op::Revoke(0));
    assert_eq!(world.participant(0).reason, "revoked");
    assert!(world.blobs.is_empty());
    assert_eq!(world.poll(0), None);
    let client = world.devices[0].name.clone();
    let state = Rejection::ClientState { client: client.clone(), state: "revoked" };
    assert_eq!(world.step(Input::Approve { client: client.clone() }).rejection(), state);
    world.deliver(1);
    world.deliver(2);
    world.carry_out(Op::Revoke(1));
    assert!(world.open().notes[0].contains("c1 was revoked after its update was taken"));
    // With a new token the name may enrol again, and is asked again.
    assert!(matches!(world.enrol(2).rejection(), Rejection::ClientExists { .. }));
    world.enrol(0).reply();
    assert!(matches!(world.poll(0), Some(v1::poll_reply::Next::Invitation(_))));
}

#[test]
fn a_pending_client_waits_for_approval() {
    let mut world = World::new(Setup::default());
    let client = ClientId::new("c-new").unwrap();
    let fingerprint = "00".to_owned();
    let expires = 5;
    world.step(Input::Enrolled { client: client.clone(), fingerprint, expires, approved: false }).reply();
    world.devices[0].name = client.clone();
    assert!(waits(&mut world, 0).contains("approve"));
    let run = world.runs[0].clone();
    assert!(matches!(world.answer(0, &run, true).rejection(), Rejection::ClientState { state: "pending", .. }));
    world.step(Input::Approve { client: client.clone() }).reply();
    assert!(matches!(world.poll(0), Some(v1::poll_reply::Next::Invitation(_))));
    let renewed = Input::Renewed { client: client.clone(), fingerprint: "11".into(), expires: 9 };
    world.step(renewed).reply();
    let info = world.engine.client(&client).unwrap();
    assert_eq!((info.certificate_fingerprint.as_str(), info.certificate_expires_ms), ("11", 9));
}

#[test]
fn a_declined_invitation_is_recorded_and_not_repeated() {
    let mut world = World::new(Setup::default());
    let run = world.runs[0].clone();
    assert!(matches!(world.poll(0), Some(v1::poll_reply::Next::Invitation(_))));
    world.answer(0, &run, false).reply();
    let willing = world.engine.run_summary(&run).unwrap().willing;
    assert_eq!((willing[0].accepted, willing[0].reason.as_str()), (false, "policy"));
    assert!(waits(&mut world, 0).contains("policy"));
}

#[test]
fn a_run_that_cannot_be_is_refused_with_words() {
    let mut world = World::new(Setup::default());
    let file = world.run_file();
    let mut create = |run_file: String, base: v1::BaseModel| {
        let run = RunId::new("another").unwrap();
        world.step(Input::CreateRun { run, run_file, base, start_adapter: None, key: KEY }).rejection()
    };
    let base = World::base;
    let unknown_key = create(file.replace("quorum", "qourum"), base()).to_string();
    assert!(unknown_key.contains("did you mean `rounds.quorum`?") || unknown_key.contains("quorum"), "{unknown_key}");
    let method = create(file.replace("\"fedit\"", "\"fedot\""), base());
    assert!(method.to_string().contains("fedit"), "{method}");
    assert_eq!(method.code(), ErrorCode::InvalidArgument);
    let rank = create(file.replace("rank = 4", "rank = 17"), base()).to_string();
    assert!(rank.contains("17"), "{rank}");
    let target = create(file.replace("[\"query\"]", "[\"kwery\"]"), base()).to_string();
    assert!(target.contains("kwery"), "{target}");
    let other = v1::BaseModel { digest: "blake3:00".to_owned(), ..base() };
    assert!(create(file.clone(), other).to_string().contains("blake3:00"));
    let taken =
        Input::CreateRun { run: world.runs[0].clone(), run_file: file, base: base(), start_adapter: None, key: KEY };
    assert!(matches!(world.step(taken).rejection(), Rejection::RunExists { .. }));
}

#[test]
fn clients_serve_one_run_after_another() {
    let mut world = three();
    world.create();
    (0..3).for_each(|client| {
        let run = world.runs[1].clone();
        world.answer(client, &run, true).reply();
    });
    // All are at work for the first run, so the second one has nobody to draw.
    let second = world.runs[1].clone();
    assert_eq!(world.phase(&second), "recruiting");
    (0..3).for_each(|client| {
        world.obey(client);
        assert_eq!(world.devices[client].assignment.as_ref().unwrap().run, "run-0");
    });
    // While the first one is paused its clients are free, and the second goes ahead.
    world.carry_out(Op::Pause(0));
    assert_eq!(world.phase(&second), "training");
    world.carry_out(Op::Resume(0));
    world.obey(0);
    // What was begun comes first.
    assert_eq!(world.devices[0].assignment.as_ref().unwrap().run, "run-0");
    world.deliver(0);
    world.obey(0);
    assert_eq!(world.devices[0].assignment.as_ref().unwrap().run, "run-1");
    world.heal();
    assert_eq!((world.outcome(0).as_str(), world.outcome(1).as_str()), ("completed", "completed"));
}

#[test]
fn a_client_fetches_what_its_work_needs_and_nothing_else() {
    let mut world = World::new(Setup { method: 3, clients: 4, ..Setup::default() });
    world.reach(1);
    let run = world.runs[0].clone();
    let state = world.engine.adapter_state(&run, None).unwrap();
    let frozen = state.frozen_digest.parse().unwrap();
    let global = state.published[0].digest.parse().unwrap();
    let cohort = world.cohort();
    let outsider = (0..4).find(|client| !cohort.contains(client)).unwrap();
    let may = |world: &World, client: usize, digest| {
        world.engine.may_download(&world.devices[client].name, &world.runs[0], digest)
    };
    assert!(may(&world, cohort[0], &frozen) && may(&world, cohort[0], &global));
    assert!(!may(&world, outsider, &frozen));
    world.deliver(cohort[1]);
    let update = world.devices[cohort[1]].sent.clone().unwrap().update.digest;
    assert!(!may(&world, cohort[0], &update), "nobody fetches the update of another client");
    assert!(!may(&world, cohort[1], &frozen), "its work is done");
    world.carry_out(Op::Revoke(cohort[0]));
    assert!(!may(&world, cohort[0], &frozen));
}

#[test]
fn validation_knows_what_to_expect() {
    let mut world = three();
    let packed = world.pack(0, &world.devices[0].assignment.clone().unwrap(), "");
    let client = world.devices[0].name.clone();
    let digest = packed.update.digest;
    let expected = world.engine.expected_upload(&client, &packed.work, &digest).unwrap();
    let ExpectedUpload::Wanted { rank, layout_bytes, max_norm, .. } = expected else { panic!("{expected:?}") };
    // Two targets with A [4, 16] and B [16, 4], and the head [2, 16] + [2], in f32.
    assert_eq!((rank, layout_bytes, max_norm), (4, (2 * 2 * 64 + 34) * 4, None));
    world.carry_out(Op::Work(0));
    world.carry_out(Op::UploadBegun(0));
    assert_eq!(world.participant(0).state, "uploading");
    world.deliver(0);
    let expected = world.engine.expected_upload(&client, &packed.work, &digest).unwrap();
    assert_eq!(expected, ExpectedUpload::Decided(UploadOutcome::Accepted));
    let stranger = ClientId::new("stranger").unwrap();
    let rejection = world.engine.expected_upload(&stranger, &packed.work, &digest).unwrap_err();
    assert!(matches!(rejection, Rejection::UnknownClient { .. }));
}

#[test]
fn progress_shows_while_a_client_works() {
    let mut world = three();
    let work = crate::world::work_of(world.devices[1].assignment.as_ref().unwrap());
    let client = world.devices[1].name.clone();
    let records = world.store.clone();
    let beat = Input::Heartbeat { client, work, state: "training".into(), step: 5, steps: 20, loss: 0.5 };
    assert_eq!(world.step(beat).reply(), Reply::Heartbeat { stop: false, reason: String::new() });
    let shown = world.participant(1);
    assert_eq!((shown.step, shown.steps, shown.train_loss), (5, 20, 0.5));
    assert_eq!(world.store, records, "progress costs no commit");
    assert_eq!(world.engine.client(&world.devices[1].name).unwrap().run, "run-0");
    let lines: Vec<String> = world.engine.events(&world.runs[0], 1).into_iter().map(|event| event.text).collect();
    assert!(lines.iter().any(|line| line.contains("starts with c0, c1, c2")), "{lines:?}");
}
