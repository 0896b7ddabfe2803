//! Adapters change the model by exactly their delta, and nothing else is trained.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::tensor::parts_of;
use rondo_methods::{AdapterState, Delta, Tensor, TensorSet};
use rondo_proto::run_file::Pooling;
use rondo_trainer::adapters::{apply, dense};
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer_api::work::Trainer;
use tch::{Device, Kind};

use crate::support::*;

fn torch(tensor: &Tensor) -> tch::Tensor {
    let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
    tch::Tensor::from_slice(&tensor.data).view(shape.as_slice())
}

fn torch_parts(parts: &TensorSet) -> BTreeMap<String, tch::Tensor> {
    parts.iter().map(|(name, tensor)| (name.clone(), torch(tensor))).collect()
}

fn numbers(tensor: &tch::Tensor) -> Vec<f32> {
    Vec::try_from(&tensor.detach().contiguous().view(-1)).unwrap()
}

#[test]
fn the_delta_in_torch_is_the_delta_in_plain_rust() {
    let mut trainer = trainer();
    for run in TestRun::of_every_method() {
        let solo = SingleClient::start(run, &mut trainer);
        let (job, mut state) = (&solo.run.job, solo.state(1));
        stir(job, &mut state);
        for (index, target) in job.targets().iter().enumerate() {
            let what = format!("{} {}", job.method().id(), target.name);
            let expected = Tensor::from_matrix(&job.dense_delta(&state, index).unwrap());
            let (delta, parts) =
                (job.delta(index, state.instance()), torch_parts(&parts_of(&state.tensors, &target.name)));
            let change = dense(&delta, &parts, target.inp as i64, Device::Cpu).unwrap();
            let found = Tensor { shape: vec![target.out, target.inp], data: numbers(&change) };
            assert_close(&what, &found, &expected, 1e-5);
            tch::manual_seed(1);
            let x = tch::Tensor::randn([5, target.inp as i64], (Kind::Float, Device::Cpu));
            let y = x.matmul(&torch(&expected).tr());
            let off = distance(&numbers(&apply(&delta, &parts, &x).unwrap()), &numbers(&y));
            assert!(off < 1e-4, "{what}: off by {off}");
        }
    }
}

#[test]
fn every_kind_of_delta_is_interpreted() {
    let tensor = |shape: &[usize], first: i32| Tensor {
        shape: shape.to_vec(),
        data: (first..).take(shape.iter().product()).map(|n| (n % 7) as f32 - 2.5).collect(),
    };
    let parts = TensorSet::from([
        ("a".to_owned(), tensor(&[2, 5], 1)),
        ("b".to_owned(), tensor(&[4, 2], 3)),
        ("d".to_owned(), tensor(&[2], 2)),
        ("t".to_owned(), tensor(&[5, 4], 5)),
    ]);
    let inner = Delta::Product(vec![Delta::mat("b"), Delta::Diag("d".into()), Delta::mat("a")]);
    let turned = Delta::Transpose(Box::new(Delta::Product(vec![
        Delta::Transpose(Box::new(Delta::mat("a"))),
        Delta::Scale(0.25, Box::new(Delta::Diag("d".into()))),
        Delta::Transpose(Box::new(Delta::mat("b"))),
    ])));
    let delta = Delta::Sum(vec![
        Delta::Scale(-1.5, Box::new(inner)),
        turned,
        Delta::Scale(0.5, Box::new(Delta::Transpose(Box::new(Delta::mat("t"))))),
    ]);
    let expected = Tensor::from_matrix(&delta.dense(&parts).unwrap());
    let found = dense(&delta, &torch_parts(&parts), 5, Device::Cpu).unwrap();
    assert!(distance(&numbers(&found), &expected.data) < 1e-5);
}

/// Logits of the golden texts.
fn logits(session: &Session<'_>) -> Vec<f32> {
    let encoded = golden_ids(&golden_tensors("tiny-bert.safetensors"), 2.0);
    session.predict(&encoded, encoded.len(), &mut |_| Ok(())).unwrap().concat()
}

#[test]
fn a_zero_start_leaves_the_logits_unchanged() {
    let (mut trainer, encoder) = (trainer(), encoder(&tiny()));
    let mut promised = 0;
    let mut runs = TestRun::of_every_method();
    runs.push(TestRun::new("id = \"fed-sb\"\nrank = 4\nstart = \"zero\""));
    runs.push(TestRun::new("id = \"fed-sb\"\nrank = 4\ninit = \"base-svd\""));
    for run in runs {
        let solo = SingleClient::start(run, &mut trainer);
        let (job, state) = (&solo.run.job, solo.state(1));
        let of_state = |state| {
            Session::of_state(&*encoder, Device::Cpu, job, state, Pooling::Mean, SessionMode::Evaluate).unwrap()
        };
        let base = Session::new(&*encoder, Device::Cpu, &state.tensors, Pooling::Mean).unwrap();
        let off = distance(&logits(&of_state(&state)), &logits(&base));
        if job.starts_at_base() {
            promised += 1;
            assert_eq!(off, 0.0, "{}", job.method().id());
        } else {
            assert!(off > 0.0, "{}", job.method().id());
        }
        let mut stirred = state.clone();
        stir(job, &mut stirred);
        assert!(distance(&logits(&of_state(&stirred)), &logits(&base)) > 1e-3);
    }
    assert!(promised >= 5, "{promised}");
}

#[test]
fn merging_equals_attaching_and_forming_the_weight() {
    let (mut trainer, encoder) = (trainer(), encoder(&tiny()));
    for run in TestRun::of_every_method() {
        let solo = SingleClient::start(run, &mut trainer);
        let (job, mut state) = (&solo.run.job, solo.state(1));
        stir(job, &mut state);
        let attached =
            Session::of_state(&*encoder, Device::Cpu, job, &state, Pooling::Mean, SessionMode::Evaluate).unwrap();
        let mut merged = Session::new(&*encoder, Device::Cpu, &state.tensors, Pooling::Mean).unwrap();
        for (index, target) in job.targets().iter().enumerate() {
            let delta = job.delta(index, state.instance());
            merged.merge(&target.name, &delta, &parts_of(&state.tensors, &target.name)).unwrap();
        }
        let off = distance(&logits(&attached), &logits(&merged));
        assert!(off < 2e-5, "{}: off by {off}", job.method().id());
    }
}

#[test]
fn a_published_stack_is_merged_before_the_next_round() {
    let (mut trainer, encoder) = (trainer(), encoder(&tiny()));
    let mut solo = SingleClient::start(TestRun::new("id = \"flora\"\nrank = 4\nalpha = 8"), &mut trainer);
    let mut trained: AdapterState = solo.state(1);
    stir(&solo.run.job, &mut trained);
    let session = |state: &AdapterState| {
        logits(
            &Session::of_state(&*encoder, Device::Cpu, &solo.run.job, state, Pooling::Mean, SessionMode::Evaluate)
                .unwrap(),
        )
    };
    let before = session(&trained);
    let tensors = trained.tensors.clone();
    solo.publish(1, rondo_methods::Kind::Train, &tensors);
    let state = solo.state(2);
    assert_eq!(state.merged.len(), solo.run.job.targets().len());
    let after = logits(
        &Session::of_state(&*encoder, Device::Cpu, &solo.run.job, &state, Pooling::Mean, SessionMode::Evaluate)
            .unwrap(),
    );
    let off = distance(&before, &after);
    assert!(off < 2e-5, "off by {off}");
}

#[test]
fn gradients_reach_the_trained_tensors_and_no_others() {
    let (mut trainer, encoder) = (trainer(), encoder(&tiny()));
    let weights = |encoder: &dyn rondo_trainer::models::Transformer| -> Vec<Vec<f32>> {
        let linears = encoder.linears();
        (0..linears.names().len()).map(|number| numbers(&linears.weight(number).dense().unwrap())).collect()
    };
    let before = weights(&*encoder);
    for run in TestRun::of_every_method() {
        let solo = SingleClient::start(run, &mut trainer);
        let (job, mut state) = (&solo.run.job, solo.state(1));
        stir(job, &mut state);
        let session =
            Session::of_state(&*encoder, Device::Cpu, job, &state, Pooling::Mean, SessionMode::Train).unwrap();
        let expected: BTreeSet<String> = job
            .layout(state.instance())
            .into_iter()
            .filter(|named| named.spec.trained_shape().is_some())
            .map(|named| named.name)
            .collect();
        let trained: BTreeSet<String> = session.trained().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(trained, expected, "{}", job.method().id());
        let encoded = golden_ids(&golden_tensors("tiny-bert.safetensors"), 2.0);
        mean_loss(&session.logits(&encoded, &[0, 1, 2]).unwrap(), &[1, 0, 0]).backward();
        for (name, tensor) in session.trained() {
            assert!(numbers(&tensor.grad()).iter().any(|g| *g != 0.0), "{} {name}", job.method().id());
        }
        let linears = encoder.linears();
        for number in 0..linears.names().len() {
            let weight = linears.weight(number).dense().unwrap();
            assert!(!weight.requires_grad() && !weight.grad().defined());
        }
        let update = trainer.train(&solo.work(1), &mut go_on).unwrap();
        let uploaded: Vec<String> = update.tensors.keys().cloned().collect();
        let manifest = job.upload_manifest(rondo_methods::Kind::Train, solo.work(1).instance());
        assert_eq!(uploaded, manifest.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>());
        for entry in &manifest {
            assert_eq!(update.tensors[&entry.name].shape, entry.shape);
            assert_ne!(update.tensors[&entry.name], solo.state(1).tensors[&entry.name], "{}", entry.name);
        }
    }
    assert_eq!(weights(&*encoder), before);
}

#[test]
fn a_frozen_head_takes_no_gradients() {
    let mut run = TestRun::new("id = \"ffa-lora\"\nrank = 4");
    let mut file = (*run.run).clone();
    file.task.head = rondo_proto::run_file::HeadMode::Freeze;
    run.job = rondo_methods::Job::new(&rondo_methods::Registry::builtin(), &file, &run.base).unwrap();
    let (encoder, state) = (encoder(&tiny()), run.job.state(1, "solo", 4, None, &[]).unwrap());
    let session =
        Session::of_state(&*encoder, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    assert!(session.trained().iter().all(|(name, _)| name.ends_with("lora_B")));
    assert_eq!(session.trained().len(), run.job.targets().len());
}
