//! Clients with ranks of their own.

use std::collections::BTreeSet;

use rondo_methods::Instance;
use rondo_proto::base_tokens::OTHER_TOKENS;
use rondo_proto::v1;
use rondo_rounds::{ExpectedUpload, Rejection};

use crate::methods::IDS;
use crate::model::{Op, Setup};
use crate::run::simulate;
use crate::world::{RANK, TOKENS, World};

#[test]
fn ranks_mix_only_where_the_method_mixes_them() {
    // Client 5 takes half the rank at most.
    let flora = simulate(Setup { method: 2, clients: 6, cohort: 6, rounds: 1, ..Setup::default() }, &[]);
    let ranks: Vec<u32> = flora.closed(1).participants.iter().map(|p| p.rank).collect();
    assert_eq!(ranks, [4, 4, 4, 4, 4, 2]);

    let mut fedit = World::new(Setup { clients: 6, cohort: 5, rounds: 1, ..Setup::default() });
    assert!(matches!(fedit.poll(5), Some(v1::poll_reply::Next::Wait(_))));
    let willing = fedit.engine.run_summary(&fedit.runs[0]).unwrap().willing;
    assert!(!willing[0].accepted && willing[0].reason.contains("rank 2"), "{willing:?}");
    let run = fedit.runs[0].clone();
    assert!(matches!(fedit.answer(5, &run, true).rejection(), Rejection::Rank { .. }));
    // Once its limit is lifted it is asked.
    fedit.devices[5].max_rank = 0;
    assert!(matches!(fedit.poll(5), Some(v1::poll_reply::Next::Invitation(_))));
}

#[test]
fn a_client_whose_model_makes_other_tokens_is_left_out_and_told_why() {
    let mut world = World::new(Setup { clients: 3, cohort: 2, quorum: 2, rounds: 1, ..Setup::default() });
    let run = world.runs[0].clone();
    let answer_of = |world: &World| world.engine.run_summary(&run).unwrap().willing;
    world.devices[0].tokens = Some("other tokens");
    let Some(v1::poll_reply::Next::Wait(wait)) = world.poll(0) else { panic!("it was invited") };
    assert_eq!(wait.left_out, format!("run {run}: {OTHER_TOKENS}"));
    let willing = answer_of(&world);
    assert!(!willing[0].accepted && willing[0].reason == OTHER_TOKENS, "{willing:?}");
    assert!(matches!(world.answer(0, &run, true).rejection(), Rejection::NotOffered { .. }));
    // One that says the same, and one that says nothing.
    world.devices[1].tokens = Some(TOKENS);
    world.devices[2].tokens = None;
    for client in [1, 2] {
        assert!(matches!(world.poll(client), Some(v1::poll_reply::Next::Invitation(_))), "{client}");
        world.answer(client, &run, true).reply();
    }
    assert!(world.engine.run_summary(&run).unwrap().phase != "recruiting", "{:?}", answer_of(&world));
    // Once its folder is fixed it is asked, also after a restart.
    world.devices[0].tokens = Some(TOKENS);
    world.restart();
    assert!(matches!(world.poll(0), Some(v1::poll_reply::Next::Invitation(_))));
}

#[test]
fn bytes_validation_plan_and_record_go_by_the_clients_own_rank() {
    let mut mixing = 0;
    for (method, id) in IDS.iter().enumerate() {
        for ranks in 1..4 {
            let setup = Setup { method, clients: 6, cohort: 6, quorum: 6, rounds: 2, ranks, ..Setup::default() };
            if !setup.mixes_ranks() {
                continue;
            }
            let mut world = World::new(setup);
            (0..2).for_each(|_| (0..6).for_each(|client| world.obey(client)));
            let run = world.runs[0].clone();
            let job = world.engine.job(&run).unwrap().clone();
            if job.needs_warm_up() {
                // Its first round collects a statistic, whose size does not go by the adapter's
                // rank alone.
                continue;
            }
            let kind = rondo_methods::Kind::Train;
            let mut seen = BTreeSet::new();
            for client in 0..6 {
                let assignment = world.devices[client].assignment.clone().unwrap();
                let device = &world.devices[client];
                let limit = if device.max_rank == 0 { RANK } else { device.max_rank };
                let rank = if device.asked_rank == 0 { limit } else { device.asked_rank };
                assert_eq!(assignment.rank, rank, "{id} c{client}");
                seen.insert(rank);
                let packed = world.pack(client, &assignment, "");
                let name = device.name.clone();
                let expected = world.engine.expected_upload(&name, &packed.work, &packed.update.digest).unwrap();
                let ExpectedUpload::Wanted { rank: expected_rank, layout_bytes, .. } = expected else {
                    panic!("{expected:?}")
                };
                let instance = Instance::in_round(1).with_rank(rank as usize);
                assert_eq!((expected_rank, layout_bytes), (rank, job.upload_bytes(kind, instance)));
                // One that was trained with another rank is not taken.
                let other = World::spoil(&packed, crate::model::Wrong::Rank);
                assert!(matches!(world.upload(client, &other).rejection(), Rejection::UpdateRank { .. }));
                world.deliver(client);
            }
            mixing += usize::from(seen.len() > 1);
            let by_plan: Vec<u32> = world.queue[0].updates.iter().map(|update| update.rank).collect();
            world.carry_out(Op::Aggregate);
            let ranks: Vec<usize> = by_plan.iter().map(|rank| *rank as usize).collect();
            world.obey(0);
            assert_eq!(world.participant(0).layout_bytes_down, job.published_bytes(&ranks), "{id}");
            (0..6).for_each(|client| world.obey(client));
            (0..6).for_each(|client| world.work(client));
            for (part, rank) in world.closed(1).participants.iter().zip(by_plan) {
                let bytes = job.upload_bytes(kind, Instance::in_round(1).with_rank(rank as usize));
                assert_eq!((part.rank, part.layout_bytes_up), (rank, bytes), "{id} {}", part.client);
            }
            world.heal();
            assert_eq!(world.outcome(0), "completed");
        }
    }
    assert!(mixing > 3, "hardly any run had clients of different ranks");
}
