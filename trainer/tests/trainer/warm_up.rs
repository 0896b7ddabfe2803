//! The warm-up's statistics are what the papers' formulas say.

use std::collections::{BTreeMap, BTreeSet};

use rondo_data::batches::Batches;
use rondo_methods::file::write;
use rondo_methods::init::seeded::{self, Identity};
use rondo_methods::init::{base_svd, gradient_sketch};
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{Delta, Matrix, Tensor, TensorSet};
use rondo_proto::run_file::{Dtype, Pooling};
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::text::tokens::Tokens;
use rondo_trainer_api::work::Trainer;
use tch::Device;

use crate::support::*;

/// The mean loss's gradient with respect to each target's weight, formed densely and one text at a
/// time, on top of the tensors in `state` (the adapter of a run) or of the bare base.
fn dense_gradients(run: &TestRun, session: &mut Session<'_>, examples: &[usize]) -> BTreeMap<String, Matrix> {
    let mut trained = BTreeSet::new();
    for target in run.job.targets() {
        let change = TensorSet::from([("change".to_owned(), Tensor::zeros(&[target.out, target.inp]))]);
        trained.insert(full_name(&target.name, "change"));
        session.attach(&target.name, &Delta::mat("change"), &change, &trained).unwrap();
    }
    let train = run.data.train().all().unwrap();
    let encoded = Tokens::load(&tiny()).unwrap().encode(train.iter().map(|e| e.text()), 24).unwrap();
    let mut sums: BTreeMap<String, Matrix> = BTreeMap::new();
    for &index in examples {
        let loss = mean_loss(&session.logits(&encoded, &[index]).unwrap(), &[train[index].label().into()]);
        let parameters: Vec<&tch::Tensor> = session.trained().iter().map(|(_, tensor)| tensor).collect();
        let gradients = tch::Tensor::run_backward(&[loss], &parameters, false, false);
        for ((name, tensor), gradient) in session.trained().iter().zip(gradients) {
            let (rows, cols) = tensor.size2().unwrap();
            let numbers = Vec::<f64>::try_from(&gradient.to_kind(tch::Kind::Double).contiguous().view(-1)).unwrap();
            let gradient = Matrix::new(rows as usize, cols as usize, numbers);
            let target = name.trim_end_matches(".change").to_owned();
            sums.entry(target)
                .or_insert_with(|| Matrix::zeros(rows as usize, cols as usize))
                .add_scaled(1.0, &gradient);
        }
    }
    sums.into_iter().map(|(target, sum)| (target, sum.scaled(1.0 / examples.len() as f64))).collect()
}

/// The first `count` examples of the client's order.
fn first_examples(run: &TestRun, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = Batches::new(run.data.train().len(), 8, "5/solo/train").take(20).flatten().collect();
    order.truncate(count);
    order
}

#[test]
fn sketches_are_the_gradient_times_the_seeded_matrices() {
    let run = TestRun::new("id = \"fed-sb\"\nrank = 4\nwarm_up_examples = 19");
    let update = run.statistic(&mut trainer());
    assert_eq!(update.examples, run.data.train().len() as u64);
    let encoder = encoder(&tiny());
    let head = run.job.initial(0, "", 4);
    let mut session = Session::new(&*encoder, Device::Cpu, &head, Pooling::Mean).unwrap();
    let gradients = dense_gradients(&run, &mut session, &first_examples(&run, 19));
    let probe = run.job.warm_up_initial();
    for target in run.job.targets() {
        let (g, seeded) = (&gradients[&target.name], parts_of(&probe, &target.name));
        let (omega, psi) = (seeded[gradient_sketch::OMEGA].to_matrix(), seeded[gradient_sketch::PSI].to_matrix());
        let sketches = parts_of(&update.tensors, &target.name);
        assert_eq!(sketches.len(), 2);
        let y = Tensor::from_matrix(&g.times(&omega.transposed()));
        assert_close(&format!("{} G.Omega", target.name), &sketches[gradient_sketch::P], &y, 1e-4);
        let z = Tensor::from_matrix(&psi.transposed().times(g));
        assert_close(&format!("{} Psi.G", target.name), &sketches[gradient_sketch::Q], &z, 1e-4);
    }
}

#[test]
fn the_dense_probe_gives_the_mean_gradient() {
    let run = TestRun::new("id = \"fed-sb\"\nrank = 4\ninit = \"update-approximation\"\nwarm_up_examples = 11");
    let update = run.statistic(&mut trainer());
    let (encoder, head) = (encoder(&tiny()), run.job.initial(0, "", 4));
    let mut session = Session::new(&*encoder, Device::Cpu, &head, Pooling::Mean).unwrap();
    for (target, gradient) in dense_gradients(&run, &mut session, &first_examples(&run, 11)) {
        let found = parts_of(&update.tensors, &target).into_values().next().unwrap();
        assert_close(&target, &found, &Tensor::from_matrix(&gradient), 1e-4);
    }
}

#[test]
fn base_factors_rebuild_the_weight() {
    let run = TestRun::with("id = \"fed-sb\"\nrank = 32\ninit = \"base-svd\"", &["query", "output.dense"], 1e-3, 1);
    let update = run.statistic(&mut trainer());
    let encoder = encoder(&tiny());
    for target in run.job.targets() {
        let parts = parts_of(&update.tensors, &target.name);
        let part = |name: &str| parts[name].to_matrix();
        let rebuilt = part(base_svd::U).times(&Matrix::diagonal(part(base_svd::S).data())).times(&part(base_svd::V));
        let weight = encoder.linears().weight(encoder.linears().find(&target.name).unwrap()).dense().unwrap();
        let data = Vec::<f32>::try_from(&weight.contiguous().view(-1)).unwrap();
        let weight = Tensor { shape: vec![target.out, target.inp], data };
        assert_close(&target.name, &Tensor::from_matrix(&rebuilt), &weight, 1e-5);
    }
}

/// g_R = B^T G A^T, and so B g_R A = B B^T G A^T A.
#[test]
fn the_gradient_of_r_is_the_projected_gradient() {
    let mut trainer = trainer();
    let solo = SingleClient::start(TestRun::new("id = \"fed-sb\"\nrank = 4"), &mut trainer);
    let (run, state) = (&solo.run, solo.state(1));
    let encoder = encoder(&tiny());
    let examples = first_examples(run, 6);

    let session =
        Session::of_state(&*encoder, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    let train = run.data.train().all().unwrap();
    let encoded = Tokens::load(&tiny()).unwrap().encode(train.iter().map(|e| e.text()), 24).unwrap();
    let labels: Vec<i64> = examples.iter().map(|&index| train[index].label().into()).collect();
    let loss = mean_loss(&session.logits(&encoded, &examples).unwrap(), &labels);
    let parameters: Vec<&tch::Tensor> = session.trained().iter().map(|(_, tensor)| tensor).collect();
    let gradients = tch::Tensor::run_backward(&[loss], &parameters, false, false);

    // The full gradient at the same point: the adapter merged into the weights.
    let mut merged = Session::new(&*encoder, Device::Cpu, &state.tensors, Pooling::Mean).unwrap();
    for (index, target) in run.job.targets().iter().enumerate() {
        merged
            .merge(&target.name, &run.job.delta(index, state.instance()), &parts_of(&state.tensors, &target.name))
            .unwrap();
    }
    let full = dense_gradients(run, &mut merged, &examples);
    let mut compared = 0;
    for ((name, _), gradient) in session.trained().iter().zip(gradients) {
        let Some(target) = name.strip_suffix(".lora_R") else { continue };
        let parts = parts_of(&state.tensors, target);
        let (a, b) = (parts["lora_A"].to_matrix(), parts["lora_B"].to_matrix());
        let expected = b.transposed().times(&full[target]).times(&a.transposed());
        let found = Tensor { shape: vec![4, 4], data: Vec::try_from(&gradient.contiguous().view(-1)).unwrap() };
        assert_close(target, &found, &Tensor::from_matrix(&expected), 1e-3);
        compared += 1;
    }
    assert_eq!(compared, run.job.targets().len());
}

/// The run with an adapter below it, drawn at random, for `query` alone; and what that adds to each
/// weight.
fn on_an_adapter(method: &str) -> (TestRun, BTreeMap<String, (Delta, TensorSet)>) {
    let mut run = TestRun::new(method);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("initial.safetensors");
    let mut tensors = TensorSet::new();
    for target in run.job.targets().iter().filter(|target| target.name.ends_with("query")) {
        for (part, shape) in [("lora_A", [3, target.inp]), ("lora_B", [target.out, 3])] {
            let name = full_name(&target.name, part);
            let drawn = seeded::uniform(Identity { seed: 3, name: &name, fresh: None }, &shape, 0.5);
            tensors.insert(name, drawn);
        }
    }
    write(&path, &tensors, Dtype::F32, &BTreeMap::new()).unwrap();
    run.job = run.job.starting_from(&path).unwrap();
    let initial = run.job.start_adapter().unwrap();
    let changes = initial.layers().iter().map(|layer| (layer.name.clone(), initial.delta(&layer.name).unwrap()));
    let changes: BTreeMap<_, _> = changes.collect();
    assert!(!changes.is_empty());
    (run, changes)
}

#[test]
fn statistics_stand_on_the_adapter_that_the_run_starts_from() {
    let encoder = encoder(&tiny());
    let (run, changes) =
        on_an_adapter("id = \"fed-sb\"\nrank = 4\ninit = \"update-approximation\"\nwarm_up_examples = 11");
    let update = run.statistic(&mut trainer());
    let head = run.job.initial(0, "", 4);
    let mut session = Session::new(&*encoder, Device::Cpu, &head, Pooling::Mean).unwrap();
    for (layer, (delta, parts)) in &changes {
        session.merge(layer, delta, parts).unwrap();
    }
    for (target, gradient) in dense_gradients(&run, &mut session, &first_examples(&run, 11)) {
        let found = parts_of(&update.tensors, &target).into_values().next().unwrap();
        assert_close(&target, &found, &Tensor::from_matrix(&gradient), 1e-4);
    }

    let (run, changes) = on_an_adapter("id = \"fed-sb\"\nrank = 32\ninit = \"base-svd\"");
    let update = run.statistic(&mut trainer());
    for target in run.job.targets() {
        let parts = parts_of(&update.tensors, &target.name);
        let part = |name: &str| parts[name].to_matrix();
        let rebuilt = part(base_svd::U).times(&Matrix::diagonal(part(base_svd::S).data())).times(&part(base_svd::V));
        let weight = encoder.linears().weight(encoder.linears().find(&target.name).unwrap()).dense().unwrap();
        let data = Vec::<f32>::try_from(&weight.contiguous().view(-1)).unwrap();
        let mut weight = Tensor { shape: vec![target.out, target.inp], data }.to_matrix();
        if let Some((delta, parts)) = changes.get(&target.name) {
            weight.add_scaled(1.0, &delta.dense(parts).unwrap());
        }
        assert_close(&target.name, &Tensor::from_matrix(&rebuilt), &Tensor::from_matrix(&weight), 1e-5);
    }
}

/// With privacy no gradient leaves without noise, whoever asks; what rests on the base alone
/// reveals nothing more.
#[test]
fn with_privacy_a_sketch_is_refused_and_factors_of_the_base_tell_no_number() {
    let warm_up = |method: &str| {
        let mut run = TestRun::new(method);
        let mut file = (*run.run).clone();
        let privacy = "unit = \"example\"\nepsilon = 3.0\ndelta = 1e-5\nclip = 1.0";
        file.privacy = Some(toml::from_str(privacy).unwrap());
        run.run = std::sync::Arc::new(file);
        let state = run.job.warm_up_state(run.job.rank()).unwrap();
        trainer().warm_up(&run.work(0, state), &mut go_on)
    };
    let refused = warm_up("id = \"fed-sb\"\nrank = 4").unwrap_err().to_string();
    assert!(refused.contains("would tell gradients; it needs init = \"base-svd\""), "{refused}");
    let update = warm_up("id = \"fed-sb\"\nrank = 4\ninit = \"base-svd\"").unwrap();
    assert_eq!((update.examples, update.train_loss), (0, 0.0));
}
