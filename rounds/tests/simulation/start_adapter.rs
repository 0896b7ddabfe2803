//! Runs that start from an adapter. (That every assignment names it, that its blob stays as long as
//! the run is there and that nothing else does is checked after every step of every history:
//! [`World::audit_message`], [`World::audit_blobs`].)

use rondo_proto::error::ErrorCode;
use rondo_proto::{Digest, RunId, v1};
use rondo_rounds::{Input, Rejection};

use crate::methods::IDS;
use crate::model::{Course, Op, Setup};
use crate::run::simulate;
use crate::world::{KEY, World};

/// Its factors, as if of rank 4 on both targets, and the head.
const BYTES: u64 = (2 * 2 * 64 + 34) * 4;

impl World {
    /// What runs start from, where the setup says so.
    pub(crate) fn start_adapter(&self) -> Option<v1::InitialAdapter> {
        let base = Self::base();
        self.setup.start_adapter.then(|| v1::InitialAdapter {
            digest: Self::start_adapter_digest().to_string(),
            bytes: BYTES + 100,
            layout_bytes: BYTES,
            targets: base.linears.iter().map(|linear| linear.name.clone()).collect(),
            head_labels: 2,
        })
    }

    pub(crate) fn start_adapter_digest() -> Digest {
        Digest::of(b"an adapter from elsewhere")
    }

    /// Creates a run as the coordinator does: the blob is there first, and goes when the run is
    /// refused.
    pub(crate) fn create_from(&mut self, input: Input) -> crate::world::Outcome {
        let digest = Self::start_adapter_digest();
        if self.setup.start_adapter {
            self.blobs.insert(digest, 0);
        }
        let outcome = self.step(input);
        if !self.engine.references(&digest) {
            self.blobs.remove(&digest);
        }
        outcome
    }

    /// A client hears of it in every invitation and assignment, in the same words each time.
    pub(crate) fn audit_start_adapter(&self, reply: &v1::PollReply) {
        match &reply.next {
            Some(v1::poll_reply::Next::Invitation(invitation)) => assert_eq!(invitation.initial, self.start_adapter()),
            Some(v1::poll_reply::Next::Assignment(assignment)) => {
                assert_eq!(assignment.initial, self.start_adapter());
                let digest = self.start_adapter().map(|adapter| adapter.digest).unwrap_or_default();
                assert_eq!(assignment.state.clone().unwrap_or_default().initial_digest, digest);
            }
            _ => {}
        }
    }
}

fn setup() -> Setup {
    Setup { start_adapter: true, clients: 3, ..Setup::default() }
}

#[test]
fn it_outlives_restarts_rounds_and_the_run() {
    for (method, id) in IDS.iter().enumerate() {
        let mut world = World::new(Setup { method, ..setup() });
        let reported = |world: &World| {
            let summary = world.engine.run_summary(&world.runs[0]).unwrap();
            assert_eq!(summary.initial_digest, World::start_adapter_digest().to_string());
            summary.open.or(summary.latest).unwrap().initial_digest
        };
        let digest = reported(&world);
        world.restart();
        assert_eq!(reported(&world), digest);
        world.gather();
        world.restart();
        assert_eq!(reported(&world), digest);
        world.heal();
        assert_eq!(world.outcome(0), "completed", "{id}");
        assert_eq!(world.closed(1).initial_digest, digest);
        world.restart();
        assert!(world.blobs.contains_key(&World::start_adapter_digest()), "an export still needs it");
        assert_eq!(world.engine.adapter_state(&world.runs[0], Some(1)).unwrap().initial_digest, digest);
        let plan = world.engine.events(&world.runs[0], 0);
        assert!(plan[0].text.contains(&format!("and adapter {digest}")), "{}", plan[0].text);
    }
}

#[test]
fn it_is_fetched_once_and_counted_by_formula() {
    let world = simulate(Setup { eval_every: 0, rounds: 2, ..setup() }, &[]);
    for (round, down, layout) in [(1, 120, BYTES), (2, 120, BYTES)] {
        for participant in &world.closed(round).participants {
            // In round 1 the adapter itself, in round 2 what round 1 published, which has the same
            // shapes here.
            assert_eq!((participant.bytes_down, participant.layout_bytes_down), (down, layout), "round {round}");
        }
    }
}

#[test]
fn a_roll_back_to_the_start_keeps_it() {
    let all = Setup { course: Course::Diverging, rollback: Some(0), rounds: 5, ..setup() };
    let world = (0..200).map(|seed| simulate(Setup { seed, ..all }, &[])).find(|world| {
        world.engine.rounds(&world.runs[0]).first().is_some_and(|record| record.rolled_back_to == Some(0))
    });
    let world = world.expect("some run diverges in its first round");
    let records = world.engine.rounds(&world.runs[0]);
    assert!(records.iter().all(|record| record.initial_digest == World::start_adapter_digest().to_string()));
}

#[test]
fn one_that_does_not_fit_leaves_nothing() {
    let mut world = World::new(setup());
    let mut create = |change: &dyn Fn(&mut v1::InitialAdapter)| {
        let mut adapter = world.start_adapter().unwrap();
        change(&mut adapter);
        let run = RunId::new("another").unwrap();
        let run_file = world.run_file();
        let start_adapter = Some(Box::new(adapter));
        world.step(Input::CreateRun { run, run_file, base: World::base(), start_adapter, key: KEY }).rejection()
    };
    let rejection = create(&|adapter| adapter.targets.push("encoder.layer.9.query".into()));
    assert!(rejection.to_string().contains("changes `encoder.layer.9.query`, but base model `tiny`"), "{rejection}");
    assert_eq!(rejection.code(), ErrorCode::InvalidArgument);
    assert!(rejection.hint().unwrap().contains("rondo base show"));
    let rejection = create(&|adapter| adapter.head_labels = 3);
    assert!(rejection.to_string().contains("its head has 3 labels, the run's task 2"), "{rejection}");
    assert!(matches!(create(&|adapter| adapter.digest = "blake3:00".into()), Rejection::StartAdapter { .. }));
    assert_eq!(world.runs.len(), 1);
    world.carry_out(Op::Restart);
    assert!(world.engine.run_summary(&RunId::new("another").unwrap()).is_none());
}
