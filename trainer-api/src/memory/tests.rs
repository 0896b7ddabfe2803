//! The arithmetic of the prediction, by hand on a small model, and the order of the modes.

use rondo_methods::{Job, Registry};
use rondo_proto::run_file::{Dtype, Quantise, RunFile};
use rondo_proto::v1;

#[path = "../../../methods/tests/suite/questions.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the suite of the methods")]
mod questions;

use super::*;
use crate::limits::{Checkpoint, Limits};

/// Two gated layers of 64 x 64 matrices, a vocabulary of 1000.
fn workload() -> Workload {
    let tensor =
        |name: &str, numbers: u64, linear| TensorSize { name: name.into(), numbers, bytes: 0, linear, packed: false };
    let mut tensors = vec![tensor("words", 64_000, false)];
    tensors.extend((0..14).map(|_| tensor("linear", 4096, true)));
    let sizes = ModelSizes {
        architecture: "llama".into(),
        layer_kind: LayerKind::GatedDecoder,
        hidden: 64,
        layers: 2,
        query: 64,
        inner: 64,
        vocabulary: 1000,
        max_positions: 512,
        tokenizer: 0,
        tensors,
        linears: Vec::new(),
    };
    Workload {
        sizes,
        dtype: Dtype::F32,
        quantise: Quantise::None,
        batch: 8,
        max_tokens: 100,
        trained: 1000,
        frozen: 500,
        narrow: 8,
        stacked: 0,
        merged: 0,
        proximal: false,
        copies: false,
    }
}

fn part(estimate: &MemoryEstimate, starts: &str) -> u64 {
    estimate.parts.iter().find(|part| part.name.starts_with(starts)).map_or(0, |part| part.bytes)
}

const PLAIN: StepMode = StepMode { checkpoint: false, micro_batch: 8 };
const CHECKPOINTED: StepMode = StepMode { checkpoint: true, micro_batch: 8 };

#[test]
fn parts_are_what_the_sizes_say() {
    let plain = workload().estimate(PLAIN);
    assert_eq!(part(&plain, "base weights"), 4 * (64_000 + 14 * 4096));
    assert_eq!(part(&plain, "adapter"), 4 * (5 * 1000 + 2 * 500));
    assert_eq!(part(&plain, "states"), 0);
    let kept = workload().estimate(CHECKPOINTED);
    assert_eq!(part(&kept, "states"), 4 * 800 * 64 * 4);
    let tape = part(&plain, "every layer's tape");
    assert_eq!(part(&kept, "one layer, forward"), tape / 2 + part(&plain, "one layer, backward"));
    // The larger of the two phases counts.
    let fixed: u64 = ["program", "base", "adapter", "states"].iter().map(|name| part(&kept, name)).sum();
    assert_eq!(kept.peak, fixed + part(&kept, "one layer").max(part(&kept, "a chunk")));
}

#[test]
fn a_quantised_base_is_small_and_unpacked_layer_by_layer() {
    let packed = Workload { quantise: Quantise::Nf4, ..workload() };
    let estimate = packed.estimate(PLAIN);
    assert_eq!(part(&estimate, "base weights"), 4 * 64_000 + 14 * 4096 * 9 / 16);
    assert_eq!(part(&estimate, "one layer's weights"), 7 * 4096 * 4);
    assert_eq!(estimate, packed.estimate(CHECKPOINTED), "a packed base is always checkpointed");
    let half = Workload { dtype: Dtype::Bf16, ..packed };
    assert_eq!(part(&half.estimate(PLAIN), "one layer's weights"), 7 * 4096 * 2);
}

#[test]
fn stacks_are_merged_where_they_can_be() {
    let stacks = Workload { stacked: 700, merged: 9000, ..workload() };
    assert_eq!(part(&stacks.estimate(PLAIN), "base weights"), 4 * (64_000 + 14 * 4096 + 9000));
    assert_eq!(part(&stacks.estimate(PLAIN), "adapter"), 4 * (5 * 1000 + 2 * 500 + 700));
    let packed = Workload { quantise: Quantise::Nf4, ..stacks };
    assert_eq!(part(&packed.estimate(PLAIN), "base weights"), 4 * 64_000 + 14 * 4096 * 9 / 16);
    assert_eq!(part(&packed.estimate(PLAIN), "adapter"), 4 * (5 * 1000 + 2 * 500 + 2 * 700));
}

#[test]
fn an_adapter_to_start_from_counts_with_the_layers_it_changes() {
    let run = |method: &str| {
        let text = format!(
            r#"
            name = "x"
            base = {{ model = "tiny" }}
            task = {{ kind = "classification", dataset = "d", labels = ["a", "b"] }}
            method = {{ id = "{method}", rank = 2, targets = ["query"] }}
            train = {{ local_steps = 1, batch = 1, lr = 1e-3 }}
            rounds = {{ count = 2, cohort = 1, quorum = 1 }}
            "#
        );
        RunFile::parse(&text).unwrap()
    };
    let linear = |name: &str, out| v1::LinearLayer { name: name.into(), out_features: out, in_features: 10 };
    let base = v1::BaseModel { linears: vec![linear("0.query", 10), linear("0.key", 7)], ..Default::default() };
    let initial = v1::InitialAdapter { layout_bytes: 4000, targets: vec!["0.key".into()], ..Default::default() };
    for (method, stacks, changed) in [("fedit", 0, 70), ("flora", 40, 170)] {
        let run = run(method);
        let job = Job::new(&Registry::builtin(), &run, &base).unwrap();
        let bare = || Workload::new(workload().sizes, &run, &job, 2);
        assert_eq!((bare().starting_from(None, &base, &job), bare().stacked > 0), (bare(), stacks > 0));
        let starts = bare().starting_from(Some(&initial), &base, &job);
        assert_eq!((starts.stacked - bare().stacked, starts.merged), (1000, changed), "{method}");
    }
}

/// dW = L.diag(m).R with an offset over L, m0 and R: 2 x (10 + 10) + 2 numbers of a target, whose
/// weight is there twice.
#[test]
fn an_offset_counts_with_the_layers_it_changes() {
    let run = r#"
        name = "x"
        base = { model = "tiny" }
        task = { kind = "classification", dataset = "d", labels = ["a", "b"] }
        method = { id = "shifted", rank = 2, targets = ["query"] }
        train = { local_steps = 1, batch = 1, lr = 1e-3 }
        rounds = { count = 2, cohort = 1, quorum = 1 }
    "#;
    let run = RunFile::parse(run).unwrap();
    let linear = |name: &str, out| v1::LinearLayer { name: name.into(), out_features: out, in_features: 10 };
    let base = v1::BaseModel { linears: vec![linear("0.query", 10), linear("0.key", 7)], ..Default::default() };
    let mut registry = Registry::empty();
    questions::register(&mut registry);
    let job = Job::new(&registry, &run, &base).unwrap();
    let bare = Workload::new(workload().sizes, &run, &job, 2);
    assert_eq!((bare.stacked, bare.merged), (42, 100));
    let initial = v1::InitialAdapter { layout_bytes: 4000, targets: vec!["0.key".into()], ..Default::default() };
    let starts = bare.starting_from(Some(&initial), &base, &job);
    assert_eq!((starts.stacked, starts.merged), (1042, 170));
}

#[test]
fn the_fastest_mode_that_fits_is_taken() {
    let workload = Workload { batch: 6, max_tokens: 10_000, ..workload() };
    let mode = |checkpoint, micro_batch| StepMode { checkpoint, micro_batch };
    let order = [mode(false, 6), mode(true, 6), mode(true, 3), mode(true, 2), mode(true, 1)];
    let peaks = order.map(|mode| workload.estimate(mode).peak);
    assert!(peaks.windows(2).all(|pair| pair[1] < pair[0]), "{peaks:?}");
    for (mode, peak) in order.into_iter().zip(peaks) {
        let choice = choose(&workload, &Limits::default(), Some(peak)).unwrap();
        assert_eq!((choice.mode, choice.estimate.peak), (mode, peak));
    }
    assert_eq!(choose(&workload, &Limits::default(), None).unwrap().mode, order[0]);
    let too_large = choose(&workload, &Limits::default(), Some(peaks[4] - 1)).unwrap_err();
    assert_eq!((too_large.estimate.peak, too_large.room, too_large.limited), (peaks[4], peaks[4] - 1, false));
}

#[test]
fn limits_are_kept() {
    let workload = Workload { batch: 6, max_tokens: 10_000, ..workload() };
    let with = |checkpoint, micro_batch, memory_mb| Limits { checkpoint, micro_batch, memory_mb, ..Limits::default() };
    let mode = |limits: &Limits| choose(&workload, limits, Some(u64::MAX)).map(|choice| choice.mode);
    assert_eq!(mode(&with(Checkpoint::On, 0, 0)), Ok(StepMode { checkpoint: true, micro_batch: 6 }));
    assert_eq!(mode(&with(Checkpoint::Auto, 4, 0)), Ok(StepMode { checkpoint: false, micro_batch: 4 }));
    assert_eq!(mode(&with(Checkpoint::Auto, 40, 0)), Ok(StepMode { checkpoint: false, micro_batch: 6 }));
    // What client.toml says counts, not what the machine has.
    let refused = mode(&with(Checkpoint::Auto, 0, 1)).unwrap_err();
    assert!(
        refused.limited && refused.room == 1_000_000 && refused.to_string().contains("`limits.memory_mb` has 1 MB"),
        "{refused}"
    );
    let off = workload.estimate(StepMode { checkpoint: false, micro_batch: 3 }).peak.div_ceil(1_000_000);
    assert_eq!(mode(&with(Checkpoint::Off, 0, off as u32)), Ok(StepMode { checkpoint: false, micro_batch: 3 }));
}
