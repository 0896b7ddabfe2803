//! What the engine keeps of what clients report: no small group, and nothing of a site that
//! withholds its measurements; and sites where a person has yet to decide.

use rondo_proto::v1::{self, poll_reply::Next};
use rondo_rounds::{Input, WorkKey};

use crate::model::{Op, Setup};
use crate::world::World;

/// Three clients, brought to where they are asked to measure.
fn published() -> World {
    let mut world = World::new(Setup { clients: 3, rounds: 2, ..Setup::default() });
    (0..3).for_each(|client| world.obey(client));
    (0..3).for_each(|client| world.obey(client));
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::Aggregate);
    assert_eq!(world.phase_of_first(), "publishing");
    world
}

fn with_groups() -> v1::Evaluation {
    let group = |group: &str, examples, loss| v1::GroupEvaluation {
        group: group.to_owned(),
        loss,
        accuracy: 0.5,
        examples,
        tokens: 0,
    };
    let groups = vec![group("cardiology", 50, 0.5), group("oncology", 20, 0.5), group("porphyria", 1, 0.5)];
    v1::Evaluation { loss: 0.5, accuracy: 0.5, examples: 71, tokens: 0, groups }
}

fn evaluated(world: &mut World, client: usize, min_group: u32) {
    world.obey(client);
    let client = world.devices[client].name.clone();
    let run = world.runs[0].clone();
    world.step(Input::Evaluated { client, run, round: 1, evaluation: with_groups(), min_group }).reply();
}

#[test]
fn a_small_group_that_a_client_sends_is_in_no_record_and_no_event() {
    let mut world = published();
    // Of a client that knows no limit, of one with the limit 1, and of one with a larger limit.
    for (client, min_group) in [(0, 0), (1, 1), (2, 30)] {
        evaluated(&mut world, client, min_group);
    }
    let record = world.closed(1);
    let groups = |client: usize| {
        let after = record.participants[client].after.clone().unwrap();
        after.groups.into_iter().map(|group| (group.group, group.examples)).collect::<Vec<_>>()
    };
    let folded = [("cardiology".to_owned(), 50), ("other".to_owned(), 21)];
    assert_eq!((groups(0), groups(1)), (folded.to_vec(), folded.to_vec()));
    assert_eq!(groups(2), [], "21 rows are below this site's limit, and with all others they are the whole");
    let run = &world.runs[0];
    let all = format!("{:?} {:?} {:?}", world.engine.rounds(run), world.engine.events(run, 0), world.engine.runs());
    assert!(!all.contains("porphyria") && !all.contains("oncology"), "{all}");
    world.restart();
    assert_eq!(world.closed(1), record, "what was committed holds no more");
}

#[test]
fn a_round_closes_without_the_measurements_of_sites_that_withhold_them() {
    let mut world = published();
    evaluated(&mut world, 0, 10);
    for client in [1, 2] {
        world.obey(client);
        let name = world.devices[client].name.clone();
        let work = WorkKey { run: world.runs[0].clone(), round: 1, attempt: 1 };
        // The same twice counts once.
        for _ in 0..2 {
            let _ = world.step(Input::Withheld { client: name.clone(), work: work.clone() });
        }
    }
    let record = world.closed(1);
    let withheld: Vec<_> =
        record.participants.iter().map(|part| (part.metrics_withheld, part.after.is_some())).collect();
    assert_eq!(withheld, [(false, true), (true, false), (true, false)]);
    assert_eq!(record.held_out_loss, Some(0.5));
    assert!(record.notes.iter().any(|note| note.contains("measurements withheld by the site")), "{:?}", record.notes);
    assert_eq!((world.phase_of_first().as_str(), world.open().round), ("training", 2));
}

#[test]
fn a_site_that_has_yet_to_decide_is_shown_and_asked_again_soon() {
    let mut world = World::new(Setup { clients: 2, ..Setup::default() });
    let run = world.runs[0].clone();
    let client = world.devices[0].name.clone();
    let is_invited = |world: &mut World| matches!(world.poll(0), Some(Next::Invitation(_)));
    assert!(is_invited(&mut world));
    let reason = "waiting for approval at the site".to_owned();
    let undecided = Input::Undecided { client: client.clone(), run: run.clone(), reason };
    world.step(undecided.clone()).reply();
    let shown = |world: &World| world.engine.run_summary(&run).unwrap().willing.remove(0);
    assert!(shown(&world).undecided && !shown(&world).accepted);
    assert_eq!(shown(&world).reason, "waiting for approval at the site");
    let Some(Next::Wait(wait)) = world.poll(0) else { panic!("asked again at once") };
    assert!(wait.reason.contains("waiting for approval at the site"), "{}", wait.reason);
    let events = world.engine.events(&run, 0).len();
    world.carry_out(Op::Wait(6));
    world.step(undecided).reply();
    assert_eq!(world.engine.events(&run, 0).len(), events, "said once");
    world.carry_out(Op::Wait(6));
    assert!(is_invited(&mut world));
    world.step(Input::Answer { client, run: run.clone(), accept: true, reason: String::new(), rank: 0 }).reply();
    assert!(shown(&world).accepted && !shown(&world).undecided);
}
