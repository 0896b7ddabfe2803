//! Lists of operations that once went wrong, or nearly: each stays as a test.

use crate::model::{Op, Setup, Wrong};
use crate::run::simulate;

#[test]
fn a_tick_that_is_lost_is_due_again_after_the_restart() {
    let setup =
        Setup { clients: 4, rounds: 1, cohort: 1, quorum: 1, eval_every: 0, max_attempts: 1, ..Setup::default() };
    simulate(setup, &[Op::Poll(0), Op::Drain(1), Op::CrashBeforeCommit, Op::Wake]);
}

#[test]
fn a_result_that_comes_twice_with_a_crash_between_publishes_once() {
    let setup = Setup { clients: 3, ..Setup::default() };
    let mut ops: Vec<Op> = [0, 1, 2, 0, 1, 2].map(Op::Poll).to_vec();
    for client in 0..3 {
        ops.extend([Op::Work(client), Op::Upload(client)]);
    }
    ops.extend([Op::CrashAfterCommit, Op::Aggregate, Op::Repeat, Op::Repeat]);
    let world = simulate(setup, &ops);
    assert_eq!(world.outcome(0), "completed");
}

#[test]
fn an_update_that_comes_again_after_its_round_leaves_no_blob() {
    let setup =
        Setup { clients: 4, rounds: 1, cohort: 2, quorum: 1, eval_every: 0, max_attempts: 1, ..Setup::default() };
    simulate(setup, &[Op::Poll(0), Op::Poll(2), Op::Everybody, Op::UploadAgain(0), Op::UploadAgain(2)]);
}

#[test]
fn trouble_of_every_kind_in_one_round() {
    let setup = Setup { clients: 6, cohort: 4, quorum: 2, over_select: 1, method: 2, ..Setup::default() };
    let mut ops: Vec<Op> = (0..12).map(Op::Poll).collect();
    ops.extend([Op::Heartbeat(0), Op::Work(0), Op::Work(1), Op::Work(2), Op::Kill(3)]);
    ops.extend([Op::UploadLosingReply(0), Op::UploadOther(0), Op::UploadAgain(0), Op::Upload(0)]);
    ops.extend([Op::UploadWrong(1, Wrong::Version), Op::UploadWrong(1, Wrong::Attempt), Op::CrashBeforeCommit]);
    ops.extend([Op::Upload(1), Op::Upload(1), Op::ClockBack(90), Op::Restart, Op::Refuse(2), Op::Revoke(4)]);
    ops.extend([Op::Wait(3), Op::AggregateTwice, Op::Restart, Op::Pause(0), Op::Wait(500), Op::Poll(3), Op::Resume(0)]);
    let world = simulate(setup, &ops);
    assert_eq!(world.outcome(0), "completed");
}
