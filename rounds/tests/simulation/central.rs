//! Runs with privacy per client: what is charged and when, who is drawn, and how they end.

use rondo_proto::error::ErrorCode;
use rondo_proto::{RunId, v1};
use rondo_rounds::{CohortKey, ExpectedUpload, Input, Reply, UploadOutcome, WorkKey};

use crate::device::Packed;
use crate::executor::head;
use crate::methods::IDS;
use crate::model::{Op, Setup};
use crate::run::simulate;
use crate::world::{KEY, Outcome, World, work_of};

/// Noise multiplier 4: two releases cost epsilon 1.46, three 1.80 and four 2.10.
fn central() -> Setup {
    Setup { epsilon: Some(20), per_client: true, rounds: 3, ..Setup::default() }
}

fn summary(world: &World) -> v1::RunSummary {
    world.engine.run_summary(&world.runs[0]).unwrap()
}

#[test]
fn every_method_that_can_keeps_the_guarantee_to_its_end() {
    for method in (0..IDS.len()).filter(|&method| Setup { method, ..central() }.is_central()) {
        let world = simulate(Setup { method, ..central() }, &[]);
        let run = summary(&world);
        assert_eq!(run.outcome, "completed", "{}", IDS[method]);
        assert!(
            run.privacy.starts_with("(2, 1e-5)-differential privacy per client, clip 1, noise mul"),
            "{}",
            run.privacy
        );
        assert!(
            run.privacy.contains("on the sum over 3; spent 1.") && run.privacy.ends_with("in 3 releases"),
            "{}",
            run.privacy
        );
        for record in world.engine.rounds(&world.runs[0]) {
            let released = record.released.clone();
            assert_eq!(released.as_ref().map(|report| report.total_steps), (record.round > 0).then_some(record.round));
            let work = WorkKey { run: world.runs[0].clone(), round: record.round, attempt: record.attempt };
            let entered = released.as_ref().map(|report| report.ledger_head.clone());
            assert_eq!(entered, (record.round > 0).then(|| head(&work)), "the head is that of the round's own release");
            if let Some(v1::PrivacyReport { unit, noise_multiplier, sampling_rate, epsilon, epsilon_pld, .. }) =
                released
            {
                assert_eq!((unit.as_str(), noise_multiplier, sampling_rate), ("client", 4.0, 1.0));
                assert!(epsilon_pld < epsilon && epsilon <= 2.0);
            }
            for participant in &record.participants {
                assert!(participant.before.is_none() && participant.after.is_none() && participant.privacy.is_none());
                assert_eq!((participant.examples, participant.train_loss, participant.train_seconds), (0, 0.0, 0.0));
                assert_eq!(record.round == 0, participant.update_norm > 0.0, "a norm reveals something of its client");
                assert_eq!(record.round == 0, !participant.update_digest.is_empty(), "so does a digest");
            }
        }
        let events = world.engine.events(&world.runs[0], 0);
        assert!(events[1].text.contains("predicted noise norm") && events[1].text.contains("use more clients"));
    }
}

#[test]
fn a_paid_warm_up_is_one_more_release() {
    for by_coins in [false, true] {
        let setup = Setup { method: 3, pays_warm_up: true, epsilon: Some(40), by_coins, ..central() };
        let world = simulate(setup, &[]);
        assert_eq!(summary(&world).outcome, "completed");
        let records = world.engine.rounds(&world.runs[0]);
        assert_eq!(records.len(), 4, "the warm-up and three rounds");
        for record in &records {
            let released = record.released.as_ref().unwrap();
            let work = WorkKey { run: world.runs[0].clone(), round: record.round, attempt: record.attempt };
            assert_eq!((released.total_steps, released.steps), (record.round + 1, 1));
            assert_eq!(released.ledger_head, head(&work));
            assert_eq!(released.clip, if record.round == 0 { 0.5 } else { 1.0 });
            for participant in &record.participants {
                assert!(participant.update_digest.is_empty() && participant.update_norm == 0.0);
            }
        }
        assert_eq!(world.drawn, 4, "as often as it is charged");
    }

    let mut world = ordered(Setup { method: 3, pays_warm_up: true, ..central() });
    let release = world.queue[0].release.clone().unwrap();
    assert_eq!((release.clip, release.plan.clip, release.plan.adaptive), (0.5, 0.5, None));
    // One that a crash undid is charged again, as any.
    world.carry_out(Op::CrashAfterCommit);
    assert_eq!(world.aggregate(), None);
    world.carry_out(Op::Aggregate);
    assert_eq!(world.closed(0).released.unwrap().total_steps, 2);
}

#[test]
fn a_round_that_has_not_released_shows_no_head() {
    let mut world = ordered(central());
    world.carry_out(Op::Aggregate);
    let head_of = |world: &World, round: u32| {
        world.engine.round_record(&world.runs[0], round).unwrap().released.map(|report| report.ledger_head)
    };
    assert!(head_of(&world, 1).is_some_and(|head| head.starts_with("head of ")));
    until_ordered(&mut world);
    assert_eq!(head_of(&world, 2), Some(String::new()), "its cost is that of the round before, its head is none");
    assert!(head_of(&world, 1).is_some_and(|head| head.starts_with("head of ")));
}

#[test]
fn a_charge_of_an_older_program_has_no_head() {
    let mut world = ordered(central());
    world.carry_out(Op::Aggregate);
    let charged = world.engine.state().runs[&world.runs[0]].live.charged.clone().unwrap();
    let mut written = serde_json::to_value(&charged).unwrap();
    written.as_object_mut().unwrap().remove("ledger_head").unwrap();
    let read: rondo_rounds::state::central::Charged = serde_json::from_value(written).unwrap();
    assert_eq!((read.releases, read.ledger_head.as_str()), (charged.releases, ""));
}

#[test]
fn a_run_ends_before_the_release_that_would_break_the_guarantee() {
    let world = simulate(Setup { rounds: 9, ..central() }, &[]);
    let run = summary(&world);
    assert_eq!((run.phase.as_str(), run.outcome.as_str()), ("ended", "privacy budget spent"));
    let released = run.latest.unwrap().released.unwrap();
    assert!(released.epsilon <= 2.0 && released.next_epsilon > 2.0, "{released:?}");
    assert!(world.engine.adapter_state(&world.runs[0], None).is_some(), "what is published stands");
}

#[test]
fn a_clip_moves_with_what_is_published_and_with_nothing_else() {
    let mut world = ordered(Setup { moves_clip: true, epsilon: Some(1_000_000), rounds: 4, ..central() });
    // Charged, and the noise drawn by a machine that then dies: the release is made again, and
    // clips as before.
    let work = world.queue[0].work.clone();
    assert!(matches!(world.step(Input::Releasing { work }), Outcome::Answered(Reply::Release { granted: true })));
    world.restart();
    assert_eq!(world.queue[0].release.as_ref().unwrap().clip, 1.0);
    world.heal();
    let rounds = world.engine.rounds(&world.runs[0]);
    let clips: Vec<f64> = rounds.iter().filter_map(|record| Some(record.released.as_ref()?.clip)).collect();
    assert_eq!(clips, [1.0, 0.5, 0.25, 0.125]);
    assert!(rounds[1].notes.iter().any(|note| note == "the clip moves from 0.5000 to 0.2500"), "{:?}", rounds[1].notes);
}

/// Brings a run to the point where its first release is ordered.
fn ordered(setup: Setup) -> World {
    let mut world = World::new(setup);
    until_ordered(&mut world);
    world
}

fn until_ordered(world: &mut World) {
    while world.queue.is_empty() {
        for client in 0..world.devices.len() {
            for op in [Op::Poll(client), Op::Work(client), Op::Upload(client)] {
                world.carry_out(op);
            }
        }
        world.carry_out(Op::Wait(1));
    }
}

#[test]
fn a_release_that_is_made_again_after_a_crash_is_charged_again() {
    let mut world = ordered(central());
    let work = world.queue[0].work.clone();
    assert_eq!(world.drawn, 0);
    world.carry_out(Op::CrashAfterCommit);
    assert_eq!(world.aggregate(), None, "the coordinator died when the charge was durable");
    assert_eq!(world.queue.len(), 1, "the order is given again");
    world.carry_out(Op::Aggregate);
    let record = world.closed(1);
    assert_eq!(record.released.unwrap().total_steps, 2);
    assert!(record.notes.iter().any(|note| note.contains("made again, with new noise")), "{:?}", record.notes);
    // And a crash before the charge costs nothing.
    world.carry_out(Op::Repeat);
    let late = world.step(Input::Releasing { work }).rejection();
    assert_eq!(late.code(), ErrorCode::FailedPrecondition, "{late}");
}

#[test]
fn crashes_end_a_run_early_and_never_beyond_its_budget() {
    let mut world = ordered(central());
    for _ in 0..9 {
        world.carry_out(Op::CrashAfterCommit);
        world.carry_out(Op::Aggregate);
    }
    world.heal();
    let run = summary(&world);
    assert_eq!(run.outcome, "privacy budget spent");
    assert!(run.latest.is_none(), "nothing was ever published");
    assert!(run.privacy.contains("spent 1.") && run.privacy.ends_with("in 3 releases"), "{}", run.privacy);
}

#[test]
fn what_is_ordered_is_a_release_and_names_no_cohort_size() {
    let world = ordered(Setup { quorum: 2, ..central() });
    let release = world.queue[0].release.clone().unwrap();
    assert_eq!((release.plan.divisor, release.plan.clip, release.domain.as_str()), (3.0, 1.0, "reviews"));
}

#[test]
fn coins_hang_on_the_key_and_differ_by_round() {
    let cohorts = |key: [u8; 32], seed| {
        let mut world = World::new(Setup {
            epsilon: Some(1000),
            by_coins: true,
            clients: 12,
            cohort: 6,
            rounds: 4,
            seed,
            ..central()
        });
        world.runs.clear();
        world.key = CohortKey::new(key);
        let run = RunId::new("sampled").unwrap();
        let run_file = world.run_file();
        let base = World::base();
        world.step(Input::Cancel { run: RunId::new("run-0").unwrap() });
        world.step(Input::CreateRun { run: run.clone(), run_file, base, start_adapter: None, key: world.key });
        world.runs.push(run.clone());
        world.heal();
        let names = |record: &v1::RoundRecord| {
            record.participants.iter().map(|participant| participant.client.clone()).collect::<Vec<_>>()
        };
        let rounds = world.engine.rounds(&run);
        assert_eq!(rounds.len(), 4);
        rounds.iter().map(names).collect::<Vec<_>>()
    };
    let first = cohorts([1; 32], 7);
    assert_eq!(first, cohorts([1; 32], 8), "the run file's seed has no part in it");
    assert_ne!(first, cohorts([2; 32], 7));
    assert!(first.windows(2).any(|pair| pair[0] != pair[1]));
    assert!(first.iter().any(|cohort| cohort.len() != 6), "cohorts vary: {first:?}");
}

#[test]
fn a_cohort_that_the_coins_made_small_is_held_all_the_same() {
    let setup =
        Setup { by_coins: true, clients: 4, cohort: 2, quorum: 2, rounds: 20, epsilon: Some(1000), ..central() };
    let world = simulate(setup, &[]);
    let run = summary(&world);
    assert_eq!(run.outcome, "completed");
    assert!(
        run.privacy.contains("Poisson-sampled cohorts at rate 0.5")
            && run.privacy.contains("to whoever sees the cohorts")
    );
    let rounds = world.engine.rounds(&world.runs[0]);
    let small = rounds.iter().find(|record| record.participants.len() < 2).expect("some cohort is small");
    assert!(small.notes.iter().any(|note| note.contains("below the quorum of 2: the round is held")), "{small:?}");
    assert!(rounds.iter().all(|record| record.attempt == 1), "nothing is drawn again for its size");
    assert!(rounds.iter().any(|record| record.participants.is_empty()), "noise alone is released too");
}

#[test]
fn coins_and_keys_are_shown_to_nobody() {
    let mut world = World::new(Setup { by_coins: true, rounds: 4, ..central() });
    let mut visible = Vec::new();
    for _ in 0..3 {
        // Invitations first, then assignments.
        visible.extend((0..world.devices.len()).map(|client| serde_json::to_string(&world.poll(client)).unwrap()));
        world.carry_out(Op::Everybody);
    }
    world.heal();
    let run = &world.runs[0];
    let rounds = world.engine.rounds(run);
    let events = world.engine.events(run, 0);
    visible.push(serde_json::to_string(&(summary(&world), rounds, events, world.engine.clients())).unwrap());
    visible.push(format!("{:?}", world.engine.state()));
    let visible = visible.concat();
    assert!(visible.contains("run_file") && visible.contains("participants"), "{visible}");
    assert!(!visible.contains("9,9,9") && !visible.contains("9, 9, 9") && !visible.contains("090909"), "{visible}");
}

#[test]
fn an_update_that_reports_of_its_data_is_refused_by_name() {
    type Change = (&'static str, fn(&mut Packed));
    let changes: [Change; 5] = [
        ("carries a privacy report", |packed| packed.update.privacy = Some(v1::PrivacyReport::default())),
        ("reports an example count", |packed| packed.update.examples = 7),
        ("reports a training loss", |packed| packed.update.train_loss = 0.5),
        ("reports a training time", |packed| packed.update.train_seconds = 0.5),
        ("reports a measurement", |packed| packed.update.before = Some(v1::Evaluation::default())),
    ];
    for (says, change) in changes {
        let mut world = World::new(central());
        world.gather();
        let client = world.cohort()[0];
        let assignment = world.devices[client].assignment.clone().unwrap();
        let mut packed = world.pack(client, &assignment, "");
        let digest = packed.update.digest;
        let expected = world.engine.expected_upload(&world.devices[client].name, &work_of(&assignment), &digest);
        let Ok(ExpectedUpload::Wanted { clipped: Some(clipped), .. }) = expected else { panic!("{expected:?}") };
        assert_eq!(clipped.clip, 1.0, "validation knows what must arrive clipped");
        change(&mut packed);
        match world.upload(client, &packed) {
            Outcome::Answered(Reply::Upload(UploadOutcome::Refused { reason })) => {
                assert!(reason.contains(says), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn all_train_at_the_runs_rank() {
    // `ffa-lora` mixes ranks; client 5 allows half of it.
    let mut world = World::new(Setup { method: 1, clients: 6, ..central() });
    world.carry_out(Op::Everybody);
    let willing = summary(&world).willing;
    let declined = willing.iter().find(|client| client.client == "c5").unwrap();
    assert!(!declined.accepted && declined.reason.contains("with privacy per client all updates have one shape"));
}

#[test]
fn a_guarantee_that_cannot_be_kept_is_refused_before_anything_starts() {
    let mut world = World::new(central());
    let file = world.run_file();
    let mut create = |run_file: String| {
        let run = RunId::new("another").unwrap();
        let create = Input::CreateRun { run, run_file, base: World::base(), start_adapter: None, key: KEY };
        world.step(create).rejection()
    };
    let flora = create(file.replace("id = \"fedit\"", "id = \"flora\""));
    assert_eq!(flora.code(), ErrorCode::InvalidArgument);
    assert!(flora.to_string().contains("own factors are redistributed in the stack"), "{flora}");
    assert!(flora.hint().unwrap().contains("unit = \"example\""));
    let sketch = create(file.replace("id = \"fedit\"", "id = \"fed-sb\""));
    assert!(sketch.to_string().contains("statistic of the clients' data"), "{sketch}");
    let cohort = |cohort: &str| file.replace("cohort = 3", cohort).replace("quorum = 2", "quorum = 1");
    assert!(create(cohort("cohort = 1")).to_string().contains("`rounds.cohort` is 1"), "named");
    for (from, to, says) in [
        ("over_select = 0", "over_select = 1", "must not make room for another"),
        ("noise_multiplier = 4", "noise_multiplier = 0.5", "first round"),
        ("noise_multiplier = 4", "sampling_rate = 1.5", "at most 1"),
        ("delta = 0.00001", "delta = 0.5", "not below 1/3"),
        ("weighting = \"uniform\"", "weighting = \"examples\"", "example counts stay with the data owners"),
    ] {
        assert!(file.contains(from), "{file}");
        let refusal = create(file.replace(from, to)).to_string();
        assert!(refusal.contains(says), "{refusal}");
    }
}
