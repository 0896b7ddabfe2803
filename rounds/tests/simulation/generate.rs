//! Random lists of operations.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Op, Setup, Wrong};
use crate::run::simulate;

fn setup() -> impl Strategy<Value = Setup> {
    let counts = (0_usize..5, 4_usize..8, 1_u32..4, 1_u32..5, 0_u32..3);
    (counts, 1_u32..5, 0_u32..3, 1_u32..4, any::<bool>(), any::<u64>()).prop_map(
        |((method, clients, rounds, cohort, over_select), quorum, eval_every, max_attempts, weigh_examples, seed)| {
            Setup {
                method,
                clients,
                rounds,
                cohort,
                quorum: quorum.min(cohort),
                over_select,
                eval_every,
                max_attempts,
                weigh_examples,
                seed: seed >> 1,
            }
        },
    )
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        Just(Wrong::Empty),
        Just(Wrong::Loss),
        Just(Wrong::Norm),
        Just(Wrong::Rank),
        Just(Wrong::Version),
        Just(Wrong::Round),
        Just(Wrong::Attempt),
    ]
}

/// Operations, ordinary work more often than trouble.
fn op() -> impl Strategy<Value = Op> {
    let client = 0_usize..8;
    let run = 0_usize..3;
    prop_oneof![
        40 => client.clone().prop_map(Op::Poll),
        20 => client.clone().prop_map(Op::Work),
        20 => client.clone().prop_map(Op::Upload),
        12 => Just(Op::Aggregate),
        5 => client.clone().prop_map(Op::UploadLosingReply),
        5 => client.clone().prop_map(Op::UploadAgain),
        2 => client.clone().prop_map(Op::UploadOther),
        4 => (client.clone(), wrong()).prop_map(|(client, wrong)| Op::UploadWrong(client, wrong)),
        3 => client.clone().prop_map(Op::Heartbeat),
        2 => client.clone().prop_map(Op::UploadBegun),
        6 => client.clone().prop_map(Op::Download),
        2 => client.clone().prop_map(Op::Fail),
        2 => client.clone().prop_map(Op::Refuse),
        4 => client.clone().prop_map(Op::Kill),
        1 => (client.clone(), run.clone()).prop_map(|(client, run)| Op::Decline(client, run)),
        5 => Just(Op::Repeat),
        2 => Just(Op::AggregateTwice),
        2 => Just(Op::AggregateFails),
        6 => Just(Op::Wake),
        8 => (1_u32..30).prop_map(Op::Wait),
        2 => (1_u32..100).prop_map(Op::ClockBack),
        3 => Just(Op::CrashBeforeCommit),
        3 => Just(Op::CrashAfterCommit),
        3 => Just(Op::Restart),
        1 => Just(Op::Create),
        1 => run.clone().prop_map(Op::Pause),
        2 => run.clone().prop_map(Op::Resume),
        1 => run.prop_map(Op::Cancel),
        1 => client.clone().prop_map(Op::Drain),
        2 => client.clone().prop_map(Op::Approve),
        1 => client.clone().prop_map(Op::Revoke),
        1 => client.prop_map(Op::Enrol),
    ]
}

/// Whole rounds in order, so that deep states are reached, with trouble in between.
fn life() -> impl Strategy<Value = Vec<Op>> {
    let busy = prop_oneof![
        3 => (0_usize..8).prop_map(|client| vec![Op::Poll(client), Op::Poll(client), Op::Work(client), Op::Upload(client)]),
        2 => (0_usize..8).prop_map(|client| vec![Op::Poll(client), Op::Download(client), Op::Work(client)]),
        1 => Just(vec![Op::Aggregate]),
        2 => vec(op(), 1..3),
    ];
    vec(busy, 10..60).prop_map(|groups| groups.concat())
}

/// Some hundred histories by default; `PROPTEST_CASES=20000` looks longer.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192);
    ProptestConfig { cases, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_the_invariants_and_ends(setup in setup(), ops in vec(op(), 0..120)) {
        simulate(setup, &ops);
    }

    #[test]
    fn any_busy_history_keeps_the_invariants_and_ends(setup in setup(), ops in life()) {
        simulate(setup, &ops);
    }
}
