//! Runs with privacy per example: what is accepted, who goes on, and how they end.

use rondo_proto::RunId;
use rondo_rounds::{Input, Reply, UploadOutcome};

use crate::device::Packed;
use crate::methods::IDS;
use crate::model::{Op, Setup};
use crate::run::simulate;
use crate::world::{KEY, World};

/// Three rounds fit epsilon 1.5, a fourth would cost 1.6.
fn private() -> Setup {
    Setup { epsilon: Some(15), rounds: 3, ..Setup::default() }
}

#[test]
fn every_method_keeps_the_guarantee_to_its_end() {
    for (method, id) in IDS.iter().enumerate() {
        let world = simulate(Setup { method, ..private() }, &[]);
        let summary = world.engine.run_summary(&world.runs[0]).unwrap();
        assert_eq!(summary.outcome, "completed", "{id}");
        assert!(summary.privacy.contains("(1.5, 1e-5)"), "{}", summary.privacy);
        assert!(summary.privacy.contains("spent at most 1.2000 (1.0800 by PLD), 3 steps"), "{}", summary.privacy);
        let mut steps = std::collections::BTreeMap::new();
        for record in world.engine.rounds(&world.runs[0]) {
            let accepted = record.participants.iter().filter(|participant| participant.state == "accepted");
            for participant in accepted {
                let report = participant.privacy.as_ref();
                let before = steps.entry(participant.client.clone()).or_insert(0);
                *before += u32::from(record.round > 0);
                assert_eq!(report.map(|report| report.total_steps), (record.round > 0).then_some(*before));
                assert!(participant.before.is_none() && participant.after.is_none());
                assert_eq!((participant.examples, participant.train_loss, participant.train_seconds), (0, 0.0, 0.0));
            }
            assert_eq!(record.held_out_loss, None);
        }
    }
}

#[test]
fn a_paid_warm_up_is_one_more_noised_step_of_every_client() {
    let setup = Setup { method: 3, pays_warm_up: true, epsilon: Some(20), ..private() };
    let world = simulate(setup, &[Op::Everybody, Op::CrashAfterCommit, Op::Everybody, Op::Restart]);
    let summary = world.engine.run_summary(&world.runs[0]).unwrap();
    assert_eq!(summary.outcome, "completed");
    assert!(summary.privacy.contains("clip 1, warm-up clip 0.5"), "{}", summary.privacy);
    let mut steps = std::collections::BTreeMap::new();
    for record in world.engine.rounds(&world.runs[0]) {
        for participant in record.participants.iter().filter(|participant| participant.state == "accepted") {
            let before = steps.entry(participant.client.clone()).or_insert(0);
            *before += 1;
            let report = participant.privacy.as_ref().unwrap();
            assert_eq!((report.steps, report.total_steps), (1, *before), "round {}", record.round);
            assert_eq!((participant.examples, participant.train_loss, participant.train_seconds), (0, 0.0, 0.0));
        }
    }
    assert_eq!(steps.values().max(), Some(&4), "three rounds and the warm-up: {steps:?}");

    // What the warm-up sends is held against the guarantee like any update.
    let mut world = World::new(setup);
    world.gather();
    let client = world.cohort()[0];
    let assignment = world.devices[client].assignment.clone().unwrap();
    assert_eq!((assignment.round, assignment.clip), (0, 0.0), "with unit example every client clips on its own");
    let reason_of = |world: &mut World, client: usize, change: &dyn Fn(&mut Packed)| {
        let assignment = world.devices[client].assignment.clone().unwrap();
        let mut packed = world.pack(client, &assignment, "");
        change(&mut packed);
        match world.upload(client, &packed).reply() {
            Reply::Upload(UploadOutcome::Refused { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let bare = reason_of(&mut world, client, &|packed| packed.update.privacy = None);
    assert!(bare.contains("carries no privacy report"), "{bare}");
    let client = world.cohort()[1];
    let longer = reason_of(&mut world, client, &|packed| {
        let report = packed.update.privacy.as_mut().unwrap();
        (report.steps, report.total_steps) = (2, 2);
    });
    assert!(longer.contains("its warm-up took 2 noised steps, and a paid warm-up is one"), "{longer}");
}

#[test]
fn a_run_that_has_spent_its_budget_ends_in_a_state_of_its_own_and_keeps_its_adapter() {
    let world = simulate(Setup { rounds: 9, ..private() }, &[]);
    let summary = world.engine.run_summary(&world.runs[0]).unwrap();
    assert_eq!((summary.phase.as_str(), summary.outcome.as_str()), ("ended", "privacy budget spent"));
    // Five clients of three rounds each, three in a cohort and never fewer than two.
    let last = summary.latest.as_ref().map_or(0, |record| record.round);
    assert!((4..=7).contains(&last), "{last}");
    let most =
        summary.latest.unwrap().participants.iter().filter_map(|p| p.privacy.clone()).map(|r| r.total_steps).max();
    assert!(most <= Some(3), "{most:?}");
    assert!(world.engine.adapter_state(&world.runs[0], None).is_some());
    let events = world.engine.events(&world.runs[0], 0);
    assert!(events.last().unwrap().text.contains("privacy budget spent"), "{events:?}");
}

#[test]
fn the_budget_outlives_a_restart() {
    let ops = [Op::Everybody, Op::Everybody, Op::CrashAfterCommit, Op::Everybody, Op::Restart];
    let world = simulate(Setup { rounds: 9, cohort: 5, quorum: 5, ..private() }, &ops);
    let summary = world.engine.run_summary(&world.runs[0]).unwrap();
    assert_eq!((summary.outcome.as_str(), summary.latest.unwrap().round), ("privacy budget spent", 3));
}

#[test]
fn an_update_that_breaks_the_guarantee_is_refused_by_name() {
    let reason_of = |change: &dyn Fn(&mut Packed)| {
        let mut world = World::new(private());
        world.gather();
        let client = world.cohort()[0];
        let assignment = world.devices[client].assignment.clone().unwrap();
        let mut packed = world.pack(client, &assignment, "");
        change(&mut packed);
        match world.upload(client, &packed).reply() {
            Reply::Upload(UploadOutcome::Refused { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    type Change = (&'static str, fn(&mut Packed));
    let changes: [Change; 11] = [
        ("carries no privacy report", |packed| packed.update.privacy = None),
        ("makes no sense", |packed| packed.update.privacy.as_mut().unwrap().noise_multiplier = 0.0),
        ("makes no sense", |packed| packed.update.privacy.as_mut().unwrap().sampling_rate = f64::NAN),
        ("makes no sense", |packed| packed.update.privacy.as_mut().unwrap().delta = 1e-3),
        ("makes no sense", |packed| packed.update.privacy.as_mut().unwrap().epsilon = f64::NAN),
        ("cost its data owner epsilon 1.6", |packed| {
            let report = packed.update.privacy.as_mut().unwrap();
            (report.epsilon, report.next_epsilon) = (1.6, 2.0);
        }),
        ("comes to", |packed| packed.update.privacy.as_mut().unwrap().noise_multiplier = 0.5),
        ("reports an example count", |packed| packed.update.examples = 7),
        ("reports a training loss", |packed| packed.update.train_loss = 0.5),
        ("reports a training time", |packed| packed.update.train_seconds = 0.5),
        ("reports a measurement", |packed| packed.update.before = Some(Default::default())),
    ];
    for (says, change) in changes {
        let reason = reason_of(&change);
        assert!(reason.contains(says), "{reason:?} should say {says:?}");
    }
}

#[test]
fn a_ledger_that_was_set_back_is_noticed() {
    let mut world = World::new(Setup { clients: 3, cohort: 3, quorum: 3, ..private() });
    for _ in 0..2 {
        world.gather();
        (0..3).for_each(|client| drop(world.deliver(client)));
        world.carry_out(Op::Aggregate);
    }
    world.gather();
    let client = world.cohort()[0];
    let assignment = world.devices[client].assignment.clone().unwrap();
    let mut packed = world.pack(client, &assignment, "");
    assert_eq!(packed.update.privacy.as_ref().unwrap().total_steps, 3);
    packed.update.privacy.as_mut().unwrap().total_steps = 1;
    let Reply::Upload(UploadOutcome::Refused { reason }) = world.upload(client, &packed).reply() else { panic!() };
    assert!(reason.contains("has reported 2 noised steps before, and now 1"), "{reason}");
    // Without it there is no cohort of three, and the run ends; it is not drawn again once its
    // count has grown.
    world.restart();
    world.heal();
    let summary = world.engine.run_summary(&world.runs[0]).unwrap();
    let last = summary.latest.unwrap();
    assert!(last.participants.iter().all(|part| part.client != world.devices[client].name.as_str() || last.round < 3));
    assert_ne!(summary.outcome, "completed", "three were the quorum");
}

#[test]
fn a_guarantee_that_cannot_be_kept_is_refused_before_anything_starts() {
    let mut world = World::new(private());
    let file = world.run_file();
    let mut create = |run_file: String| {
        let run = RunId::new("another").unwrap();
        world.step(Input::CreateRun { run, run_file, base: World::base(), start_adapter: None, key: KEY }).rejection()
    };
    let rank = create(file.replace("id = \"fedit\"", "id = \"fed-sb\""));
    assert!(rank.to_string().contains("statistic of the clients' data"), "{rank}");
    assert!(rank.hint().unwrap().contains("base-svd") && rank.hint().unwrap().contains("privacy.warm_up_clip"));
    let needless = create(file.replace("clip = 1.0", "clip = 1.0\nwarm_up_clip = 0.5"));
    assert!(needless.to_string().contains("begins with no statistic of the clients' data"), "{needless}");
    assert!(needless.hint().unwrap().contains("leave privacy.warm_up_clip out"));
    let negative = create(file.replace("clip = 1.0", "clip = 1.0\nwarm_up_clip = -1.0"));
    assert!(negative.to_string().contains("privacy.warm_up_clip"), "{negative}");
    for (from, to, says) in [
        ("weighting = \"uniform\"", "weighting = \"examples\"", "example counts stay with the data owners"),
        ("keep = \"last\"", "keep = \"best\"", "leaks unless the data are public"),
        ("keep = \"last\"", "rollback = 0.1", "leaks unless the data are public"),
        ("[privacy]", "[evaluation]\nclient = \"c0\"\ndataset = \"public\"\n[privacy]", "must be true with [privacy]"),
        ("clip = 1.0", "clip = 1.0\nnoise_multiplier = 0.0", "noise_multiplier"),
    ] {
        let refusal = create(file.replace(from, to));
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
}
