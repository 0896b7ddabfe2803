//! Rounds of language models, their weights as numbers and packed: the warm-up's statistics, what
//! moves in a round and what rests, FedProx.

use std::collections::BTreeSet;
use std::sync::Arc;

use rondo_data::{Content, Dataset, Example};
use rondo_methods::init::{base_svd, gradient_sketch};
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{AdapterState, BaseFactors, Delta, Job, Matrix, Registry, Tensor, TensorSet};
use rondo_proto::run_file::{Pooling, RunFile};
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::step::{self, Objective, Plan};
use rondo_trainer::text::tokens::Tokens;
use rondo_trainer::train::local;
use rondo_trainer::train::warm_up;
use rondo_trainer_api::memory::ModelSizes;
use rondo_trainer_api::work::Work;
use tch::Device;

use crate::step::{by_definition, plain as numbers};
use crate::support::*;

/// Weights as numbers, and in blocks of several kinds.
const MODELS: [&str; 2] = ["tiny-llama", "tiny-llama.gguf"];

/// A run on short texts. `method` and `train` are lines of these tables.
fn speaking(model: &str, texts: usize, method: &str, train: &str) -> TestRun {
    let text = format!(
        "name = \"tiny\"\nbase = {{ model = \"tiny\" }}\n\
         [task]\nkind = \"causal-lm\"\ndataset = \"tiny\"\nmax_tokens = 24\n\
         [method]\n{method}\ntargets = [\"q_proj\", \"v_proj\", \"down_proj\"]\n\
         [train]\nlocal_steps = 3\nbatch = 2\nlr = 1e-2\nseed = 5\n{train}\n\
         [rounds]\ncount = 2\ncohort = 1\nquorum = 1\n"
    );
    let run = RunFile::parse(&text).unwrap();
    let base = ModelSizes::read(&golden(model)).unwrap().base("tiny");
    let job = Job::new(&Registry::builtin(), &run, &base).unwrap();
    let words = ["red", "a quick fox", "and so on", "Paris", "to be or not", "no", "seven of them", "rivers"];
    let text = |n: usize| Content::Text(format!("{} {}", words[n % 8], words[(n + 3) % 8]).into());
    let examples = (0..texts).map(|n| Example::of("tiny", text(n), None)).collect();
    let data = Arc::new(Dataset::of_examples("tiny", examples, 0.0));
    TestRun { run: Arc::new(run), base: Arc::new(base), job, data }
}

fn tokens() -> Tokens {
    Tokens::load(&golden("tiny-llama")).unwrap()
}

/// An adapter none of whose numbers is zero.
fn stirred(job: &Job, round: u32, rank: usize) -> AdapterState {
    let mut tensors = job.initial(round, "solo", rank);
    for (seed, tensor) in (1..).zip(tensors.values_mut()) {
        *tensor = numbers([tensor.shape[0], tensor.shape[1]], seed);
    }
    AdapterState { round, client: String::new(), rank, tensors, merged: Vec::new() }
}

#[test]
fn sketches_are_the_mean_gradient_times_the_seeded_matrices() {
    for name in MODELS {
        let run = speaking(name, 8, "id = \"fed-sb\"\nrank = 3\nwarm_up_examples = 8", "");
        let (model, mut tokens, plan) = (encoder(&golden(name)), tokens(), run.job.warm_up().remove(0));
        let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
        let probe = run.job.warm_up_initial();
        let state =
            AdapterState { round: 0, client: String::new(), rank: 3, tensors: probe.clone(), merged: Vec::new() };
        let work = run.work(0, state);

        // Each weight's own gradient, of the mean over all texts' tokens, on one tape.
        let mut whole = Session::language(&*model, Device::Cpu).unwrap();
        for target in run.job.targets() {
            let change = TensorSet::from([("change".to_owned(), Tensor::zeros(&[target.out, target.inp]))]);
            let trained = BTreeSet::from([full_name(&target.name, "change")]);
            whole.attach(&target.name, &Delta::mat("change"), &change, &trained).unwrap();
        }
        let all = rows.take(&(0..8).collect::<Vec<_>>()).unwrap();
        let (loss, gradients) = by_definition(&whole, &all.encoded, &all.indices());

        for plan_of_step in [Plan::default(), Plan { checkpoint: true, micro_batch: 1, chunk: 3 }] {
            let session = Session::of_probe(&*model, Device::Cpu, &run.job, &plan, &work.state, Pooling::Mean).unwrap();
            let update = warm_up::gradient(&session, &work, plan.examples, &rows, plan_of_step, &mut go_on).unwrap();
            assert!((update.train_loss - loss).abs() < 1e-5 * loss, "{name}: {} {loss}", update.train_loss);
            assert_eq!(update.examples, 8);
            for ((change, _), gradient) in whole.trained().iter().zip(&gradients) {
                let target = change.trim_end_matches(".change");
                let (g, seeded) = (plain(gradient).to_matrix(), parts_of(&probe, target));
                let (omega, psi) =
                    (seeded[gradient_sketch::OMEGA].to_matrix(), seeded[gradient_sketch::PSI].to_matrix());
                let found = parts_of(&update.tensors, target);
                let y = Tensor::from_matrix(&g.times(&omega.transposed()));
                assert_close(&format!("{name} {target} G.Omega"), &found[gradient_sketch::P], &y, 1e-4);
                let z = Tensor::from_matrix(&psi.transposed().times(&g));
                assert_close(&format!("{name} {target} Psi.G"), &found[gradient_sketch::Q], &z, 1e-4);
            }
        }
    }
}

#[test]
fn base_factors_rebuild_what_the_weight_is_when_unpacked() {
    // The full rank of the narrowest target, so that its factors leave nothing out.
    for (name, rank) in MODELS.into_iter().zip([16, 32]) {
        let run = speaking(name, 2, &format!("id = \"fed-sb\"\nrank = {rank}\ninit = \"base-svd\""), "");
        let model = encoder(&golden(name));
        let state =
            AdapterState { round: 0, client: String::new(), rank, tensors: TensorSet::new(), merged: Vec::new() };
        let update = warm_up::base_factors(
            &*model,
            &run.work(0, state),
            BaseFactors::SvdHead,
            &run.job.warm_up()[0],
            &mut go_on,
        )
        .unwrap();
        for target in run.job.targets() {
            let parts = parts_of(&update.tensors, &target.name);
            let part = |name: &str| parts[name].to_matrix();
            let singular = part(base_svd::S);
            let found =
                part(base_svd::U).times(&Matrix::diagonal(singular.data())).times(&part(base_svd::V)).data().to_vec();
            let linears = model.linears();
            let weight = plain(&linears.weight(linears.find(&target.name).unwrap()).dense().unwrap());
            // By Eckart and Young the best of this rank: off by as much as the singular values that
            // were left out, and those are what the weight's own length lacks.
            let square = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
            let all = square(&mut weight.data.iter().map(|&x| f64::from(x)));
            let kept = square(&mut singular.data().iter().copied());
            let off = square(&mut found.iter().zip(&weight.data).map(|(left, &right)| left - f64::from(right)));
            assert!((off - (all - kept)).abs() < 1e-5 * all, "{name} {}: {off} of {all}, {kept}", target.name);
            assert!(kept > 0.5 * all, "{name} {}", target.name);
            if target.out.min(target.inp) == rank {
                assert!(off < 1e-9 * all, "{name} {}: {off}", target.name);
            }
        }
    }
}

/// In a round that moves one factor only, and at a rank below the run's, only the leading block of
/// that factor moves and goes up.
#[test]
fn what_does_not_train_keeps_its_bits() {
    for name in MODELS {
        let model = encoder(&golden(name));
        for (method, round, moves) in [("rolora", 1, "lora_B"), ("rolora", 2, "lora_A"), ("ffa-lora", 1, "lora_B")] {
            let what = format!("{name} {method} round {round}");
            let run = speaking(name, 8, &format!("id = \"{method}\"\nrank = 4"), "weight_decay = 0.1");
            let state = stirred(&run.job, round, 2);
            let of_state = |state: &AdapterState, mode| {
                Session::of_state(&*model, Device::Cpu, &run.job, state, Pooling::Mean, mode).unwrap()
            };
            let (session, mut tokens) = (of_state(&state, SessionMode::Train), tokens());
            let work = Work { rank: 2, ..run.work(round, state.clone()) };
            let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
            let update = local::train(&session, &work, &rows, Plan::default(), &mut go_on).unwrap();
            assert_eq!(session.trained().len(), run.job.targets().len(), "{what}");
            assert_eq!(update.tensors.len(), session.trained().len(), "{what}");
            let mut after = state.clone();
            for (name, leaf) in session.trained() {
                let target = run.job.targets().iter().find(|target| name.starts_with(&target.name)).unwrap();
                let block = if moves == "lora_A" { [2, target.inp] } else { [target.out, 2] };
                let (before, now, sent) = (&state.tensors[name], plain(leaf), &update.tensors[name]);
                assert!(name.ends_with(moves), "{what} {name}");
                assert_eq!(sent.shape, block, "{what} {name}");
                for place in 0..now.data.len() {
                    let (row, column) = (place / now.shape[1], place % now.shape[1]);
                    let inside = row < block[0] && column < block[1];
                    let moved = now.data[place].to_bits() != before.data[place].to_bits();
                    assert_eq!(moved, inside, "{what} {name} {row} {column}");
                    if inside {
                        assert_eq!(sent.data[row * block[1] + column], now.data[place], "{what} {name}");
                    }
                }
                after.tensors.insert(name.clone(), now);
            }
            // The factors that rest rest in the model too: the same adapter, attached again, gives
            // the same losses.
            let all = rows.take(&(0..8).collect::<Vec<_>>()).unwrap();
            let losses = |session: &Session<'_>| session.token_losses(&all.encoded, 8, &mut |_| Ok(())).unwrap();
            assert_eq!(losses(&session), losses(&of_state(&after, SessionMode::Evaluate)), "{what}");
            assert_ne!(losses(&session), losses(&of_state(&state, SessionMode::Evaluate)), "{what}");
        }
    }
}

/// AdamW's formulas on the gradient plus `mu (x - x_received)`, in f64.
#[test]
fn fedprox_is_its_formula() {
    let (mu, lr, (first, second), eps) = (5.0, 1e-2, (0.9, 0.999), 1e-8);
    for name in MODELS {
        let model = encoder(&golden(name));
        let trained = |train: &str| {
            let run = speaking(name, 1, "id = \"fedit\"\nrank = 2", train);
            let state = stirred(&run.job, 1, 2);
            let session =
                Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
            let mut tokens = tokens();
            let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
            let work = run.work(1, state.clone());
            local::train(&session, &work, &rows, Plan::default(), &mut go_on).unwrap().tensors
        };
        let (pulled, free) = (trained(&format!("proximal = {mu:?}")), trained(""));

        let run = speaking(name, 1, "id = \"fedit\"\nrank = 2", "");
        let state = stirred(&run.job, 1, 2);
        let session =
            Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
        let mut tokens = tokens();
        let encoded = tokens.rows(run.data.train(), &run.run.task).unwrap().take(&[0]).unwrap().encoded;
        let numbers = |tensor: &tch::Tensor| -> Vec<f64> { plain(tensor).data.into_iter().map(f64::from).collect() };
        let mut parameters = session.parameters().unwrap();
        let received: Vec<Vec<f64>> = parameters.iter().map(numbers).collect();
        let mut x = received.clone();
        let mut moments: Vec<Vec<(f64, f64)>> = received.iter().map(|tensor| vec![(0.0, 0.0); tensor.len()]).collect();
        for step in 1..=3 {
            let found = step::gradients(&session, &encoded, &[0], Objective::Tokens, Plan::default()).unwrap();
            for (tensor, gradient) in found.tensors.iter().enumerate() {
                for (place, gradient) in numbers(gradient).into_iter().enumerate() {
                    let (x, (m, v)) = (&mut x[tensor][place], &mut moments[tensor][place]);
                    let gradient = gradient + mu * (*x - received[tensor][place]);
                    *m = first * *m + (1.0 - first) * gradient;
                    *v = second * *v + (1.0 - second) * gradient * gradient;
                    let (m, v) = (*m / (1.0 - first.powi(step)), *v / (1.0 - second.powi(step)));
                    *x -= lr * m / (v.sqrt() + eps);
                }
                let now: Vec<f32> = x[tensor].iter().map(|&x| x as f32).collect();
                let parameter = &mut parameters[tensor];
                let size = parameter.size();
                tch::no_grad(|| parameter.copy_(&tch::Tensor::from_slice(&now).view(size.as_slice())));
            }
        }
        let mut differs = 0.0_f32;
        for ((name_of, _), expected) in session.trained().iter().zip(&parameters) {
            let expected = plain(expected);
            let off = distance(&pulled[name_of].data, &expected.data);
            assert!(off < 2e-5, "{name} {name_of}: off by {off}");
            differs = differs.max(distance(&free[name_of].data, &expected.data));
        }
        assert!(differs > 1e-3, "{name}: the pull does something, {differs}");
    }
}
