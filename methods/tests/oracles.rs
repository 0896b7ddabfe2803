//! Numbers computed elsewhere (numpy, f64) that the laws and initialisers
//! must reproduce: algorithms of FedIT, FLoRA, FFA-LoRA, Fed-SB, LoRA-SB and
//! MiSS on matrices small enough to check by hand.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use std::f64::consts::FRAC_1_SQRT_2;
use std::path::{Path, PathBuf};

use rondo_methods::law::shares;
use rondo_methods::{
    AdapterState, AggregateInput, AggregateOutput, Contribution, Instance, Job, Kind, Matrix, Registry, Tensor,
    TensorFile, TensorSet,
};
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_proto::v1;

const TARGET: &str = "layer.proj";

fn job(id: &str, rank: usize, options: &str) -> Job {
    job_of_shape([3, 2], id, rank, options)
}

/// One target whose weight has this shape, `[out, in]`.
fn job_of_shape([out, inp]: [u32; 2], id: &str, rank: usize, options: &str) -> Job {
    let mut run: RunFile = suite::run_file(id, rank, options, "");
    run.method.targets = vec!["proj".into()];
    let base = v1::BaseModel {
        architecture: "bert".into(),
        hidden_size: 2,
        linears: vec![v1::LinearLayer { name: TARGET.into(), out_features: out, in_features: inp }],
        ..Default::default()
    };
    Job::new(&Registry::builtin(), &run, &base).unwrap()
}

fn tensor<const R: usize, const C: usize>(rows: [[f64; C]; R]) -> Tensor {
    Tensor { shape: vec![R, C], data: rows.iter().flatten().map(|&x| x as f32).collect() }
}

fn close<const R: usize, const C: usize>(got: &Matrix, rows: [[f64; C]; R], what: &str) {
    assert_eq!((got.rows(), got.cols()), (R, C), "{what}");
    for (row, values) in rows.iter().enumerate() {
        for (col, &x) in values.iter().enumerate() {
            assert!(
                (got.at(row, col) - x).abs() < 1e-6,
                "{what}[{row}, {col}]: {} instead of {x}\n{got:?}",
                got.at(row, col)
            );
        }
    }
}

fn a1() -> Tensor {
    tensor([[1., 2.], [0., 1.]])
}
fn a2() -> Tensor {
    tensor([[-1., 0.], [2., 1.]])
}
fn b1() -> Tensor {
    tensor([[1., 0.], [2., 1.], [0., -1.]])
}
fn b2() -> Tensor {
    tensor([[0., 1.], [1., 0.], [3., 2.]])
}

struct Bench {
    job: Job,
    dir: tempfile::TempDir,
    frozen: Option<PathBuf>,
    published: Vec<PathBuf>,
}

impl Bench {
    fn new(job: Job) -> Self {
        Self { job, dir: tempfile::tempdir().unwrap(), frozen: None, published: Vec::new() }
    }

    fn save(&self, file: &str, parts: &[(&str, Tensor)]) -> PathBuf {
        let path = self.dir.path().join(file);
        let mut named: TensorSet = self.job.initial(0, "one", 0);
        named.retain(|name, _| name.starts_with("head.") && file == "before.safetensors");
        named.extend(parts.iter().map(|(part, t)| (format!("{TARGET}.{part}"), t.clone())));
        rondo_methods::file::write(&path, &named, Dtype::F32, &suite::no_metadata()).unwrap();
        path
    }

    /// Puts frozen tensors in force, as if a warm-up or a refactoring had made them.
    fn freeze(mut self, parts: &[(&str, Tensor)]) -> Self {
        self.frozen = Some(self.save("in-force.safetensors", parts));
        self
    }

    /// As if a round had published these tensors.
    fn publish(mut self, parts: &[(&str, Tensor)]) -> Self {
        self.published.push(self.save("before.safetensors", parts));
        self
    }

    /// Aggregates two clients of weights n = (1, 3).
    fn aggregate(&self, kind: Kind, weights: [f64; 2], clients: [&[(&str, Tensor)]; 2]) -> AggregateOutput {
        self.of_ranks(kind, [self.job.rank(); 2], weights, clients)
    }

    fn of_ranks(
        &self,
        kind: Kind,
        ranks: [usize; 2],
        weights: [f64; 2],
        clients: [&[(&str, Tensor)]; 2],
    ) -> AggregateOutput {
        let mut updates = Vec::new();
        let round = u32::from(kind == Kind::Train) + self.published.len() as u32;
        for (index, (client, weight)) in ["one", "two"].into_iter().zip(shares(&weights).unwrap()).enumerate() {
            let rank = ranks[index];
            let mut tensors = self.job.initial(1, client, rank);
            tensors.extend(clients[index].iter().map(|(part, t)| (format!("{TARGET}.{part}"), t.clone())));
            let path = self.dir.path().join(format!("{client}.safetensors"));
            self.job
                .write_update(kind, Instance::in_round(round).with_rank(rank).of_client(client), &tensors, &path)
                .unwrap();
            updates.push(Contribution { client: client.into(), weight, rank, path });
        }
        let input = AggregateInput {
            kind,
            round,
            updates,
            frozen: self.frozen.clone(),
            published: self.published.clone(),
            server: None,
            server_state: None,
            out_dir: self.dir.path(),
            progress: &|_, _| {},
        };
        self.job.aggregate(input).unwrap()
    }

    /// The state of a client of this rank after the round.
    fn state(&self, output: &AggregateOutput, rank: usize) -> AdapterState {
        let frozen = output.frozen.as_deref().or(self.frozen.as_deref());
        self.job.state(2, "one", rank, frozen, std::slice::from_ref(&output.global)).unwrap()
    }

    fn delta(&self, output: &AggregateOutput) -> Matrix {
        self.job.dense_delta(&self.state(output, 0), 0).unwrap()
    }
}

fn part(path: &Path, name: &str) -> Matrix {
    TensorFile::open(path).unwrap().read(&format!("{TARGET}.{name}")).unwrap().to_matrix()
}

/// W0 + dW of the common example.
fn merged(delta: &Matrix) -> Matrix {
    let mut weight = tensor([[1., 0.], [0., 1.], [2., -1.]]).to_matrix();
    weight.add_scaled(1.0, delta);
    weight
}

#[test]
fn fedit_averages_the_factors_and_says_what_that_costs() {
    let bench = Bench::new(job("fedit", 2, "alpha = 4.0"));
    let clients: [&[(&str, Tensor)]; 2] =
        [&[("lora_A", a1()), ("lora_B", b1())], &[("lora_A", a2()), ("lora_B", b2())]];
    let output = bench.aggregate(Kind::Train, [1., 3.], clients);
    close(&part(&output.global, "lora_A"), [[-0.5, 0.5], [1.5, 1.]], "A");
    close(&part(&output.global, "lora_B"), [[0.25, 0.75], [1.25, 0.25], [2.25, 1.25]], "B");
    close(&bench.delta(&output).scaled(0.5), [[1., 0.875], [-0.25, 0.875], [0.75, 2.375]], "B.A");
    // ||E|| / ||I||, E the residual, I the weighted mean of the products; the scale cancels.
    let ideal = tensor([[1.75, 1.25], [-0.25, 1.25], [0.75, 1.25]]).to_matrix();
    let residual = tensor([[0.75, 0.375], [0., 0.375], [0., -1.125]]).to_matrix();
    assert!((residual.norm() - 1.45237).abs() < 1e-5);
    assert!((output.error.unwrap() - residual.norm() / ideal.norm()).abs() < 1e-7);
}

#[test]
fn flora_stacks_with_the_weight_on_one_factor() {
    let bench = Bench::new(job("flora", 2, "alpha = 4.0"));
    let clients: [&[(&str, Tensor)]; 2] =
        [&[("lora_A", a1()), ("lora_B", b1())], &[("lora_A", a2()), ("lora_B", b2())]];
    let output = bench.aggregate(Kind::Train, [1., 3.], clients);
    // The scale 2 is folded in beside the weights.
    close(&part(&output.global, "lora_A").scaled(0.5), [[0.25, 0.5], [0., 0.25], [-0.75, 0.], [1.5, 0.75]], "A_s");
    close(&part(&output.global, "lora_B"), [[1., 0., 0., 1.], [2., 1., 1., 0.], [0., -1., 3., 2.]], "B_s");
    let delta = bench.delta(&output);
    close(&delta.clone().scaled(0.5), [[1.75, 1.25], [-0.25, 1.25], [0.75, 1.25]], "I");
    close(&merged(&delta), [[4.5, 2.5], [-0.5, 3.5], [3.5, 1.5]], "W");
    assert!(output.error.unwrap() < 1e-7);
}

/// The two clients of rank 2, and beside the second one a first of rank 1.
fn pairs() -> [[(&'static str, Tensor); 2]; 3] {
    let narrow = [("lora_A", tensor([[1., -1.]])), ("lora_B", tensor([[2.], [0.], [1.]]))];
    [[("lora_A", a1()), ("lora_B", b1())], [("lora_A", a2()), ("lora_B", b2())], narrow]
}

#[test]
fn flora_takes_the_scale_of_each_clients_rank() {
    let bench = Bench::new(job("flora", 2, "alpha = 4.0"));
    let [_, two, narrow] = pairs();
    let output = bench.of_ranks(Kind::Train, [1, 2], [1., 3.], [&narrow, &two]);
    // Scales 4 / 1 and 4 / 2: [.25 * 4 * A_1; .75 * 2 * A_2].
    close(&part(&output.global, "lora_A"), [[1., -1.], [-1.5, 0.], [3., 1.5]], "A_s");
    close(&bench.delta(&output), [[5., -0.5], [-1.5, 0.], [2.5, 2.]], "M");
}

#[test]
fn fedex_merges_the_residual_and_agrees_with_flora() {
    let bench = Bench::new(job("fedex-lora", 2, "alpha = 4.0"));
    let [one, two, _] = pairs();
    let output = bench.aggregate(Kind::Train, [1., 3.], [&one, &two]);
    close(&part(&output.global, "lora_A"), [[-0.5, 0.5], [1.5, 1.]], "A");
    close(&part(&output.global, "lora_B"), [[0.25, 0.75], [1.25, 0.25], [2.25, 1.25]], "B");
    let residual = part(&output.global, "residual_B").times(&part(&output.global, "residual_A"));
    close(&residual.scaled(0.5), [[0.75, 0.375], [0., 0.375], [0., -1.125]], "E");
    let delta = bench.delta(&output);
    close(&merged(&delta), [[4.5, 2.5], [-0.5, 3.5], [3.5, 1.5]], "W");
    assert!(output.error.unwrap() < 1e-6);
    let flora = Bench::new(job("flora", 2, "alpha = 4.0"));
    let stacked = flora.delta(&flora.aggregate(Kind::Train, [1., 3.], [&one, &two]));
    assert!(suite::distance(&[delta], &[stacked]) < 1e-6);
}

/// The residual of the round before stays in the base; averages are replaced.
#[test]
fn fedex_residuals_add_up() {
    let mut federation = suite::Federation::start(&Registry::builtin(), "fedex-lora", 2, "", "");
    let mut residuals = Vec::new();
    for round in 1..=3 {
        let updates = federation.three().iter().map(|trained| federation.upload(trained)).collect();
        federation.finish(Kind::Train, updates).unwrap();
        let state = federation.state("observer", 0);
        assert_eq!(state.merged.len(), round * federation.job.targets().len());
        let alone = AdapterState { merged: Vec::new(), ..state.clone() };
        let [whole, alone] = [&state, &alone].map(|state| federation.deltas(state));
        residuals.push(suite::weighted(&[(1.0, whole), (-1.0, alone)]));
        // (K - 1) r = 4, or what the target's shape leaves of it.
        let entries = TensorFile::open(&federation.published[round - 1]).unwrap().entries();
        let inner = entries.iter().filter(|entry| entry.name.ends_with("residual_A"));
        let heights: Vec<_> = inner.map(|entry| entry.shape[0]).collect();
        assert_eq!(heights, [4, 4, 4]);
    }
    assert!(suite::distance(&residuals[0], &residuals[1]) > 0.1 && suite::distance(&residuals[1], &residuals[2]) > 0.1);
}

#[test]
fn zero_padding_fills_up_and_cuts() {
    let bench = Bench::new(job("zero-pad", 2, "alpha = 4.0"));
    let [_, two, narrow] = pairs();
    let output = bench.of_ranks(Kind::Train, [1, 2], [1., 3.], [&narrow, &two]);
    close(&part(&output.global, "lora_A"), [[-0.5, -0.25], [1.5, 0.75]], "A");
    close(&part(&output.global, "lora_B"), [[0.5, 0.75], [0.75, 0.], [2.5, 1.5]], "B");
    close(&bench.delta(&output).scaled(0.5), [[0.875, 0.4375], [-0.375, -0.1875], [1., 0.5]], "B.A");
    let state = bench.state(&output, 1);
    close(&state.tensors[&format!("{TARGET}.lora_A")].to_matrix(), [[-0.5, -0.25]], "A of rank 1");
    close(&state.tensors[&format!("{TARGET}.lora_B")].to_matrix(), [[0.5], [0.75], [2.5]], "B of rank 1");
}

#[test]
fn flexlora_publishes_the_best_approximation_and_cuts_it_to_ranks() {
    let bench = Bench::new(job("flexlora", 2, "alpha = 4.0"));
    let [_, two, narrow] = pairs();
    let output = bench.of_ranks(Kind::Train, [1, 2], [1., 3.], [&narrow, &two]);
    // M = .25 * (4 / 1) B_1.A_1 + .75 * (4 / 2) B_2.A_2 has rank 2, so nothing is lost at the
    // run's.
    close(&bench.delta(&output), [[5., -0.5], [-1.5, 0.], [2.5, 2.]], "M");
    // numpy: svd(M), S = (5.80621535, 2.00944353); its first triplet, at the client's own scale 4.
    let cut = bench.job.dense_delta(&bench.state(&output, 1), 0).unwrap();
    let first = [[4.92213176, 0.41766589], [-1.48927674, -0.12637209], [2.65062402, 0.22491784]];
    close(&cut, first, "M of rank 1");
    // A client of rank 1 alone leaves the second direction without a value, but not without vectors
    // to grow from.
    let alone = bench.of_ranks(Kind::Train, [1, 1], [1., 3.], [&narrow, &narrow]);
    let (a, b) = (part(&alone.global, "lora_A"), part(&alone.global, "lora_B"));
    close(&a.times(&a.transposed()), [[1., 0.], [0., 1.]], "A.A^T");
    close(&b.times(&a).scaled(0.5), [[2., -2.], [0., 0.], [1., -1.]], "B.A");
}

#[test]
fn rolora_moves_one_factor_a_round() {
    let bench = Bench::new(job("rolora", 2, "alpha = 4.0")).publish(&[("lora_A", a1()), ("lora_B", b1())]);
    // Round 2: A moves, B is the published one, whatever the clients hold.
    let [one, two, _] = pairs();
    let output = bench.aggregate(Kind::Train, [1., 3.], [&one, &two]);
    close(&part(&output.global, "lora_A"), [[-0.5, 0.5], [1.5, 1.]], "A");
    close(&part(&output.global, "lora_B"), [[1., 0.], [2., 1.], [0., -1.]], "B");
    close(&bench.delta(&output).scaled(0.5), [[-0.5, 0.5], [0.5, 2.], [-1.5, -1.]], "B.A");
    assert!(output.error.unwrap() < 1e-7);
    let sent = |round| {
        bench
            .job
            .upload_manifest(Kind::Train, Instance::in_round(round).with_rank(2))
            .iter()
            .map(|e| e.name.clone())
            .collect::<Vec<_>>()
    };
    let [odd, even] = [sent(1), sent(2)];
    assert!(odd.iter().any(|name| name.ends_with("lora_B")) && !odd.iter().any(|name| name.ends_with("lora_A")));
    assert!(even.iter().any(|name| name.ends_with("lora_A")) && !even.iter().any(|name| name.ends_with("lora_B")));
    assert_eq!((sent(3), sent(4)), (odd, even));
}

#[test]
fn lower_ranks_keep_the_global_values_outside_of_their_block() {
    let frozen = [("lora_B", tensor([[1., 0.], [0., 1.], [0., 0.]])), ("lora_A", tensor([[0.6, 0.8], [-0.8, 0.6]]))];
    let global = [("lora_R", tensor([[1., 2.], [3., 4.]]))];
    let bench = Bench::new(job("fed-sb", 2, "")).freeze(&frozen).publish(&global);
    let clients: [&[(&str, Tensor)]; 2] = [&[("lora_R", tensor([[1., 2.], [0., -1.]]))], &[("lora_R", tensor([[9.]]))]];
    let output = bench.of_ranks(Kind::Train, [2, 1], [1., 3.], clients);
    // .25 [[1, 2], [0, -1]] + .75 [[9, 2], [3, 4]].
    close(&part(&output.global, "lora_R"), [[7., 2.], [2.25, 2.75]], "R");
    assert!(output.error.unwrap() < 1e-7);
    let bench = Bench::new(job("ffa-lora", 2, "alpha = 4.0"));
    let output =
        bench.of_ranks(Kind::Train, [2, 1], [1., 3.], [&[("lora_B", b1())], &[("lora_B", tensor([[0.], [1.], [3.]]))]]);
    close(&part(&output.global, "lora_B"), [[0.25, 0.], [1.25, 0.25], [2.25, -0.25]], "B");
}

#[test]
fn flora_starts_anew_in_every_round_and_the_others_do_not() {
    let start = |job: &Job, round, client: &str| job.initial(round, client, 0)[&format!("{TARGET}.lora_A")].clone();
    let flora = job("flora", 2, "");
    let first = start(&flora, 1, "one");
    assert_eq!(first, start(&flora, 1, "one"));
    assert_ne!(first, start(&flora, 2, "one"));
    assert_ne!(first, start(&flora, 1, "two"));
    for id in ["fedit", "ffa-lora"] {
        let job = job(id, 2, "");
        assert_eq!(start(&job, 1, "one"), start(&job, 2, "two"));
    }
}

#[test]
fn ffa_lora_is_exact_with_a_shared_a() {
    let bench = Bench::new(job("ffa-lora", 2, "alpha = 4.0\nrefactor_every = 1000")).freeze(&[("lora_A", a1())]);
    let output = bench.aggregate(Kind::Train, [1., 3.], [&[("lora_B", b1())], &[("lora_B", b2())]]);
    close(&part(&output.global, "lora_B"), [[0.25, 0.75], [1.25, 0.25], [2.25, 1.25]], "B");
    let delta = bench.delta(&output);
    close(&delta.clone().scaled(0.5), [[0.25, 1.25], [1.25, 2.75], [2.25, 5.75]], "B.A");
    close(&merged(&delta), [[1.5, 2.5], [2.5, 6.5], [6.5, 10.5]], "W");
    assert!(output.error.unwrap() < 1e-7);
}

#[test]
fn ffa_lora_refactoring_keeps_the_product_and_makes_a_orthonormal() {
    let bench = Bench::new(job("ffa-lora", 2, "alpha = 4.0\nrefactor_every = 1")).freeze(&[("lora_A", a1())]);
    let output = bench.aggregate(Kind::Train, [1., 3.], [&[("lora_B", b1())], &[("lora_B", b2())]]);
    close(&bench.delta(&output).scaled(0.5), [[0.25, 1.25], [1.25, 2.75], [2.25, 5.75]], "B.A");
    let a = part(output.frozen.as_deref().unwrap(), "lora_A");
    close(&a.times(&a.transposed()), [[1., 0.], [0., 1.]], "A.A^T");
    assert!(output.error.unwrap() < 1e-6);
}

#[test]
fn fed_sb_averages_r_between_fixed_factors() {
    let frozen = [("lora_B", tensor([[1., 0.], [0., 1.], [0., 0.]])), ("lora_A", tensor([[0.6, 0.8], [-0.8, 0.6]]))];
    let bench = Bench::new(job("fed-sb", 2, "")).freeze(&frozen);
    let (r1, r2) = (tensor([[1., 2.], [0., -1.]]), tensor([[3., 0.], [1., 1.]]));
    let output = bench.aggregate(Kind::Train, [1., 3.], [&[("lora_R", r1.clone())], &[("lora_R", r2.clone())]]);
    close(&part(&output.global, "lora_R"), [[2.5, 0.5], [0.75, 0.5]], "R");
    close(&bench.delta(&output), [[1.1, 2.3], [0.05, 0.9], [0., 0.]], "B.R.A");
    let output = bench.aggregate(Kind::Train, [1., 1.], [&[("lora_R", r1)], &[("lora_R", r2)]]);
    close(&part(&output.global, "lora_R"), [[2., 1.], [0.5, 0.]], "uniform R");
    close(&bench.delta(&output), [[0.4, 2.2], [0.3, 0.4], [0., 0.]], "uniform B.R.A");
}

/// A target of two outputs with as many inputs as asked; two clients,
/// one of them with the D of PEFT's own example.
#[test]
fn miss_repeats_one_matrix_over_the_inputs() {
    let (d1, d2) = (tensor([[0.1, 0.2], [0.3, 0.4]]), tensor([[0.5, -0.2], [0.1, 0.]]));
    let of_inputs = |inputs| Bench::new(job_of_shape([2, inputs], "miss", 2, ""));
    let aggregate = |bench: &Bench, second: &Tensor| {
        bench.aggregate(Kind::Train, [1., 3.], [&[("miss_D", d1.clone())], &[("miss_D", second.clone())]])
    };
    // Three inputs: the second repetition is cut. peft 0.21.2
    // merges d1 with MissConfig(r=2) into just this.
    let bench = of_inputs(3);
    close(&bench.delta(&aggregate(&bench, &d1)), [[0.1, 0.3, 0.1], [0.2, 0.4, 0.2]], "D^T.E of one D");
    let output = aggregate(&bench, &d2);
    close(&part(&output.global, "miss_D"), [[0.4, -0.1], [0.15, 0.1]], "D");
    close(&bench.delta(&output), [[0.4, 0.15, 0.4], [-0.1, 0.1, -0.1]], "D^T.E");
    assert!(output.error.unwrap() < 1e-7);
    // Four inputs: two whole repetitions.
    let bench = of_inputs(4);
    let output = aggregate(&bench, &d2);
    close(&bench.delta(&output), [[0.4, 0.15, 0.4, 0.15], [-0.1, 0.1, -0.1, 0.1]], "D^T.E of four inputs");
    // A client of rank 1 has the first row alone; the second counts with its global value, zero.
    let bench = of_inputs(3);
    let narrow = [("miss_D", tensor([[0.5, -0.2]]))];
    let output = bench.of_ranks(Kind::Train, [2, 1], [1., 3.], [&[("miss_D", d1)], &narrow]);
    close(&part(&output.global, "miss_D"), [[0.4, -0.1], [0.075, 0.1]], "D of ranks 2 and 1");
    assert!(output.error.unwrap() < 1e-7);
}

fn g1() -> Tensor {
    tensor([[4., -1.], [2., 1.], [-3., 2.]])
}
fn g2() -> Tensor {
    tensor([[-1., 0.2], [1., 1.], [0.5, -1.]])
}

#[test]
fn update_approximation_takes_the_sign_of_the_mean() {
    let options = "init = \"update-approximation\"\neta0 = 0.01";
    for rank in [1, 2] {
        let bench = Bench::new(job("fed-sb", rank, options));
        let output = bench.aggregate(Kind::WarmUp, [1., 3.], [&[("dense", g1())], &[("dense", g2())]]);
        let frozen = output.frozen.as_deref().unwrap();
        let (b, a) = (part(frozen, "lora_B"), part(frozen, "lora_A"));
        let r = part(&output.global, "lora_R");
        if rank == 1 {
            close(&bench.delta(&output), [[0., 0.], [-0.01, -0.01], [0.01, 0.01]], "B.R.A at rank 1");
            close(&r, [[0.02]], "R");
            // Up to a joint sign.
            let sign = b.at(1, 0).signum();
            close(&b.scaled(sign), [[0.], [FRAC_1_SQRT_2], [-FRAC_1_SQRT_2]], "B");
            close(&a.scaled(sign), [[-FRAC_1_SQRT_2, -FRAC_1_SQRT_2]], "A");
        } else {
            close(&r, [[0.02, 0.], [0., 0.0141421]], "R");
            close(&bench.delta(&output), [[-0.01, 0.01], [-0.01, -0.01], [0.01, 0.01]], "B.R.A at rank 2");
        }
    }
}

#[test]
fn sign_of_nothing_is_nothing() {
    let gradient = tensor([[0., -2.], [0., 0.], [0., 0.]]).to_matrix();
    let svd = rondo_methods::init::update_approximation::first_step(&gradient, 0.5, 1).unwrap();
    let step = svd.u.scaled(svd.s[0]).times(&svd.v);
    close(&step, [[0., 0.5], [0., 0.], [0., 0.]], "step");
}
