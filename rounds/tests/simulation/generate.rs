//! Random lists of operations.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Course, Measures, Op, Setup, Wrong};
use crate::run::simulate;

fn setup() -> impl Strategy<Value = Setup> {
    let counts = (0_usize..8, 4_usize..8, 1_u32..6, 1_u32..5, 0_u32..3);
    let policy = (1_u32..5, 0_u32..3, 1_u32..8, any::<bool>(), any::<u64>());
    let course = prop_oneof![1 => Just(Course::Level), 3 => Just(Course::Wild), 2 => Just(Course::Diverging)];
    let measures =
        prop_oneof![3 => Just(Measures::Everybody), 1 => Just(Measures::ClientZero), 1 => Just(Measures::Outsider)];
    let rollback = proptest::option::of(prop_oneof![Just(0_u32), 1_u32..60]);
    let language = (course, any::<bool>(), rollback, measures, any::<bool>(), 0_u32..3, 0_u64..1000, any::<bool>());
    (counts, policy, language, proptest::bool::weighted(0.3), any::<(bool, bool, bool, bool)>()).prop_map(
        |(
            (method, clients, rounds, cohort, over_select),
            (quorum, eval_every, max_attempts, weigh_examples, seed),
            (course, keep_best, rollback, measures, server, refactor_every, ranks, start_adapter),
            private,
            (per_client, by_coins, moves_clip, pays_warm_up),
        )| {
            // A sum of one client hides nobody.
            let cohort = if private && per_client { cohort.max(2) } else { cohort };
            // The run file refuses to compare what is never measured.
            // A private one measures on public data, which `measures` names, or nowhere.
            let eval_every = if private && measures == Measures::Everybody { 0 } else { eval_every };
            let measured = eval_every > 0;
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
                // So much that no run comes to an end for it.
                epsilon: private.then_some(if moves_clip { 10_000_000 } else { 1000 }),
                per_client,
                by_coins,
                moves_clip,
                pays_warm_up,
                seed: seed >> 1,
                course,
                keep_best: keep_best && measured,
                rollback: rollback.filter(|_| measured),
                measures,
                server,
                refactor_every,
                ranks,
                start_adapter,
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

/// Ordinary work, and what the network and the machines do to it.
fn op() -> impl Strategy<Value = Op> {
    let client = 0_usize..8;
    prop_oneof![
        40 => client.clone().prop_map(Op::Poll),
        20 => client.clone().prop_map(Op::Work),
        20 => client.clone().prop_map(Op::Upload),
        12 => Just(Op::Aggregate),
        6 => client.clone().prop_map(Op::Download),
        5 => client.clone().prop_map(Op::UploadLosingReply),
        5 => client.clone().prop_map(Op::UploadAgain),
        2 => client.clone().prop_map(Op::UploadOther),
        4 => (client.clone(), wrong()).prop_map(|(client, wrong)| Op::UploadWrong(client, wrong)),
        3 => client.clone().prop_map(Op::Heartbeat),
        2 => client.clone().prop_map(Op::UploadBegun),
        1 => client.clone().prop_map(Op::Fail),
        1 => client.clone().prop_map(Op::Refuse),
        4 => client.prop_map(Op::Kill),
        5 => Just(Op::Repeat),
        3 => Just(Op::AggregateTwice),
        3 => Just(Op::AggregateAgain),
        1 => Just(Op::AggregateFails),
        4 => Just(Op::Wake),
        6 => (1_u32..5).prop_map(Op::Wait),
        1 => (5_u32..100).prop_map(Op::Wait),
        2 => (1_u32..100).prop_map(Op::ClockBack),
        4 => Just(Op::CrashBeforeCommit),
        4 => Just(Op::CrashAfterCommit),
        4 => Just(Op::Restart),
    ]
}

/// What operators do, and what clients do on their own account.
fn steering() -> impl Strategy<Value = Op> {
    let client = 0_usize..8;
    let run = 0_usize..3;
    prop_oneof![
        3 => run.clone().prop_map(Op::Pause),
        6 => run.clone().prop_map(Op::Resume),
        1 => run.clone().prop_map(Op::Cancel),
        2 => Just(Op::Create),
        2 => client.clone().prop_map(Op::Drain),
        4 => client.clone().prop_map(Op::Approve),
        2 => client.clone().prop_map(Op::Revoke),
        3 => client.clone().prop_map(Op::Enrol),
        2 => (client, run).prop_map(|(client, run)| Op::Decline(client, run)),
    ]
}

/// Single operations: shallow, but in every order.
fn hectic() -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![12 => op(), 1 => steering()], 0..120)
}

/// Rounds that mostly go well, so that deep states are reached, with trouble in between.
fn steady() -> impl Strategy<Value = Vec<Op>> {
    let one = (0_usize..8)
        .prop_map(|client| vec![Op::Poll(client), Op::Download(client), Op::Work(client), Op::Upload(client)]);
    let group = prop_oneof![
        8 => one,
        4 => Just(vec![Op::Everybody]),
        2 => Just(vec![Op::Aggregate]),
        8 => vec(op(), 1..4),
        1 => vec(steering(), 1..2),
    ];
    vec(group, 5..50).prop_map(|groups| groups.concat())
}

/// Some hundred histories by default; `PROPTEST_CASES=20000` looks longer.
#[allow(clippy::disallowed_methods, reason = "how long to look is the tester's choice, not the engine's")]
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192);
    ProptestConfig { cases, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_hectic_history_keeps_the_invariants_and_ends(setup in setup(), ops in hectic()) {
        simulate(setup, &ops);
    }

    #[test]
    fn any_steady_history_keeps_the_invariants_and_ends(setup in setup(), ops in steady()) {
        simulate(setup, &ops);
    }
}
