//! Noised gradients: clipped jointly, exact sums, noise of the right size, nothing else reported.

use std::sync::Arc;

use rondo_data::{Dataset, OnBadRow, Source, TaskSpec};
use rondo_dp::{Curve, Event, ExamplePlan, Privacy, Schedule, Terms};
use rondo_methods::TensorSet;
use rondo_proto::run_file::Pooling;
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::step::{self, Objective, Plan};
use rondo_trainer::text::load_tokenizer;
use rondo_trainer::train::dp_sgd::DpSgd;
use rondo_trainer_api::work::{Protection, Trainer};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// A plan with almost no noise, or with a given one, and batches of everything.
fn plan(noise: f64) -> ExamplePlan {
    ExamplePlan {
        clip: 0.05,
        noise_multiplier: noise,
        sampling_rate: 1.0,
        expected_batch: 100.0,
        steps: 1,
        rounds: 1,
        epsilon: 1.0,
        delta: 1e-5,
    }
}

fn flat(tensors: &[Tensor]) -> Vec<f64> {
    tensors.iter().flat_map(|tensor| Vec::<f64>::try_from(&tensor.to_kind(Kind::Double).view(-1)).unwrap()).collect()
}

/// (sum of the jointly clipped gradients of single examples) / expected batch, in f64 and by the
/// formula (Abadi et al. 2016, algorithm 1); in micro-batches of any size, in the same bits.
#[test]
fn a_step_is_the_formula_whatever_the_micro_batches() {
    for method in ["id = \"fed-sb\"\nrank = 4", "id = \"ffa-lora\"\nrank = 4", "id = \"fedit\"\nrank = 4"] {
        let run = TestRun::new(method);
        let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
        stir(&run.job, &mut state);
        let model = encoder(&tiny());
        let work = run.work(1, state.clone());
        let session =
            Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
        let mut tokens = load_tokenizer::load_tokenizer(&tiny()).unwrap();
        let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
        let taken = rows.take(&(0..rows.len()).collect::<Vec<_>>()).unwrap();
        let own = |(text, label): (usize, &i64)| {
            let objective = Objective::Labels(std::slice::from_ref(label));
            flat(&step::gradients(&session, &taken.encoded, &[text], objective, Plan::default()).unwrap().tensors)
        };
        let each: Vec<Vec<f64>> = taken.labels().iter().enumerate().map(own).collect();
        let norm = |own: &Vec<f64>| own.iter().map(|number| number * number).sum::<f64>().sqrt();
        let mut norms: Vec<f64> = each.iter().map(norm).collect();
        norms.sort_by(f64::total_cmp);
        // Half of them are clipped.
        let clip = norms[norms.len() / 2];
        let mut sum = vec![0.0; each[0].len()];
        for own in &each {
            let shrink = (clip / norm(own)).min(1.0);
            sum.iter_mut().zip(own).for_each(|(sum, number)| *sum += shrink * number);
        }
        // 2^-13 of the clip as noise, the least that a lattice takes with a clip of 2^24 steps.
        let quiet = ExamplePlan { clip, ..plan(1.0 / 8192.0) };
        for micro_batch in [1, 7, 64] {
            let plan = Plan { micro_batch, ..Plan::default() };
            let found = DpSgd::new(&session, &quiet).unwrap().step(&session, &work, &rows, plan).unwrap();
            assert_eq!((found.loss, found.units), (0.0, 1));
            let found = flat(&found.tensors);
            let off = found.iter().zip(&sum).map(|(found, sum)| (found - sum / 100.0).abs()).fold(0.0, f64::max);
            // Six standard deviations of the noise over the expected batch, and the rounding of f32
            // gradients.
            assert!(off < 6.0 * clip / 8192.0 / 100.0 + 1e-7, "{method}, {micro_batch}: off by {off}");
        }
    }
}

#[test]
fn noise_has_its_size_is_new_every_time_and_comes_with_an_empty_batch_too() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    let model = encoder(&tiny());
    let work = run.work(1, state.clone());
    let session = Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    let mut tokens = load_tokenizer::load_tokenizer(&tiny()).unwrap();
    let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
    let empty = ExamplePlan { sampling_rate: 1e-12, ..plan(2.0) };
    let mut private = DpSgd::new(&session, &empty).unwrap();
    let plan = Plan { micro_batch: 8, ..Plan::default() };
    let mut draw = || flat(&private.step(&session, &work, &rows, plan).unwrap().tensors);
    let first = draw();
    let second = draw();
    let deviation = |numbers: &[f64]| (numbers.iter().map(|n| n * n).sum::<f64>() / numbers.len() as f64).sqrt();
    let expected = 2.0 * 0.05 / 100.0;
    let window = 5.0 / (2.0 * first.len() as f64).sqrt();
    for numbers in [&first, &second] {
        assert!((deviation(numbers) / expected - 1.0).abs() < window, "{} {expected}", deviation(numbers));
    }
    let product: f64 = first.iter().zip(&second).map(|(a, b)| a * b).sum();
    let correlation = product / first.len() as f64 / (deviation(&first) * deviation(&second));
    assert!(correlation.abs() < 5.0 / (first.len() as f64).sqrt(), "{correlation}");
}

/// An attacker who knows everybody's clipped gradient sees one noised step and solves for who was
/// in it. Guessing must prove no more than the promise allows; with next to no noise it does prove
/// more.
#[test]
fn one_step_hides_who_was_in_it_and_one_without_noise_does_not() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    stir(&run.job, &mut state);
    let model = encoder(&tiny());
    let work = run.work(1, state.clone());
    let session = Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    let mut tokens = load_tokenizer::load_tokenizer(&tiny()).unwrap();
    // Texts that differ: words of the tiny vocabulary in orders of their own.
    let words =
        ["film", "movie", "book", "phone", "food", "service", "bad", "awful", "good", "great", "day", "was", "so"];
    let text = |canary: usize| {
        let word = |place: usize| words[(canary * 7919 + place * 104_729 + canary * place * 31) / 17 % words.len()];
        (0..5 + canary % 8).map(word).collect::<Vec<_>>().join(" ")
    };
    let rows: Vec<(String, u32)> = (0..100).map(|canary| (text(canary), (canary % 2) as u32)).collect();
    let mut rng = rondo_dp::SecureRng::new().unwrap();
    let members = rondo_dp::poisson_sample(rows.len(), 0.5, &mut rng);
    let all = Dataset::of("tiny", &labels(), rows.clone(), 0.0);
    let inside = Dataset::of("tiny", &labels(), members.iter().map(|&canary| rows[canary].clone()), 0.0);

    let everybody = tokens.rows(all.train(), &run.run.task).unwrap();
    let taken = everybody.take(&(0..rows.len()).collect::<Vec<_>>()).unwrap();
    // A data set has an order of its own.
    let is_member = |text: &str| members.iter().any(|&canary| rows[canary].0 == text);
    let took_part: Vec<bool> = taken.examples.iter().map(|example| is_member(example.text())).collect();
    let clip = 0.05;
    let mut columns = Vec::new();
    for (canary, label) in taken.labels().iter().enumerate() {
        let objective = Objective::Labels(std::slice::from_ref(label));
        let own =
            flat(&step::gradients(&session, &taken.encoded, &[canary], objective, Plan::default()).unwrap().tensors);
        let shrink = (clip / own.iter().map(|number| number * number).sum::<f64>().sqrt()).min(1.0);
        columns.push(Tensor::from_slice(&own.iter().map(|number| number * shrink).collect::<Vec<_>>()));
    }
    let gradients = Tensor::stack(&columns, 1);
    let inside = tokens.rows(inside.train(), &run.run.task).unwrap();
    let attack = |noise: f64| {
        let plan = ExamplePlan { clip, ..plan(noise) };
        let mut private = DpSgd::new(&session, &plan).unwrap();
        let seen = private.step(&session, &work, &inside, Plan { micro_batch: 32, ..Plan::default() }).unwrap();
        let sum = Tensor::from_slice(&flat(&seen.tensors)) * plan.expected_batch;
        let ridge = gradients.tr().matmul(&gradients) + Tensor::eye(100, (Kind::Double, Device::Cpu)) * 1e-14;
        let found = Tensor::linalg_solve(&ridge, &gradients.tr().matmul(&sum), true);
        let scores = Vec::<f64>::try_from(&found).unwrap();
        // Half of the guesses say "in" and half "out". Guessing all hundred would be wrong for as
        // many as the coins are uneven.
        rondo_dp::audit::one_run(&scores, &took_part, 60, 1e-5, 0.999)
    };
    let claimed = |noise: f64| Curve::of(&Event::new(noise, 1.0, 1).unwrap()).epsilon_enforced(1e-5).unwrap();
    let hidden = attack(4.0);
    let bare = attack(1.0 / 1_048_576.0);
    assert!(hidden.lower_bound <= claimed(4.0), "{hidden:?}, claimed {}", claimed(4.0));
    assert!(bare.lower_bound > 1.5 && bare.lower_bound > claimed(4.0), "the attack is too weak to tell: {bare:?}");
}

/// With privacy a whole round reports nothing but its tensors, and two trainings of the same round
/// differ.
#[test]
fn a_round_tells_nothing_but_its_tensors() {
    let run = TestRun::new("id = \"ffa-lora\"\nrank = 4");
    let mut trainer = trainer();
    let state = SingleClient::start(run.clone(), &mut trainer).state(1);
    let promise = Privacy::new("example", Terms::new(8.0, 1e-3, 1.0)).unwrap();
    let examples = run.data.train().len() as u64;
    let schedule = Schedule { batch: 8, steps: 8, rounds: 2 };
    let mut work = run.work(1, state);
    work.protection = Protection::Examples(ExamplePlan::new(&promise, examples, schedule).unwrap());
    work.run = Arc::clone(&run.run);
    let mut losses = Vec::new();
    let mut train = || {
        trainer
            .train(&work, &mut |progress| {
                losses.push(progress.loss);
                go_on(progress)
            })
            .unwrap()
    };
    let first = train();
    let second = train();
    assert_eq!((first.examples, first.train_loss, first.seconds), (0, 0.0, 0.0));
    assert!(first.before.is_none() && losses.iter().all(|&loss| loss == 0.0));
    assert_ne!(first.tensors, second.tensors, "noise is never repeated");
}

/// With privacy per client the whole change is clipped, and nothing else is reported; a training
/// that diverges changes nothing.
#[test]
fn a_change_is_clipped_and_nothing_else_is_told() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut trainer = trainer();
    let state = SingleClient::start(run.clone(), &mut trainer).state(1);
    let mut work = run.work(1, state);
    let free = trainer.train(&work, &mut go_on).unwrap().tensors;
    let norm = |tensors: &TensorSet, start: &TensorSet| {
        let square = |new: f32, old: f32| (f64::from(new) - f64::from(old)).powi(2);
        let of = |(name, tensor): (&String, &rondo_methods::Tensor)| -> f64 {
            tensor.data.iter().zip(&start[name].data).map(|(&new, &old)| square(new, old)).sum()
        };
        tensors.iter().map(of).sum::<f64>().sqrt()
    };
    let whole = norm(&free, &work.state.tensors);
    for (clip, lr) in [(0.25 * whole, 1.0), (2.0 * whole, 1.0), (1.0, 1e30)] {
        let mut file = (*run.run).clone();
        file.train.lr *= lr;
        work.protection = Protection::WholeChange { clip };
        work.run = Arc::new(file);
        let mut losses = Vec::new();
        let update = trainer
            .train(&work, &mut |progress| {
                losses.push(progress.loss);
                go_on(progress)
            })
            .unwrap();
        assert_eq!((update.examples, update.train_loss, update.seconds), (0, 0.0, 0.0));
        assert!(update.before.is_none() && losses.iter().all(|&loss| loss == 0.0));
        let found = norm(&update.tensors, &work.state.tensors);
        match lr {
            1.0 => assert!((found - clip.min(whole)).abs() < 1e-4 * whole, "{found} {clip} {whole}"),
            _ => assert!(found <= 1.0 + 1e-4 && update.tensors.values().all(|t| t.data.iter().all(|x| x.is_finite()))),
        }
    }
}

/// A protected training that diverges, or that finds no row of use, is an update like any other: no
/// change, no reason.
#[test]
fn a_training_that_comes_to_nothing_is_an_update_without_a_change() {
    let mut run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut trainer = trainer();
    let state = SingleClient::start(run.clone(), &mut trainer).state(1);
    let promise = Privacy::new("example", Terms::new(8.0, 1e-3, 1.0)).unwrap();
    let examples = run.data.train().len() as u64;
    let schedule = Schedule { batch: 8, steps: 8, rounds: 2 };
    let per_example = Protection::Examples(ExamplePlan::new(&promise, examples, schedule).unwrap());
    let whole_change = Protection::WholeChange { clip: 1.0 };
    let mut nothing_changes = |run: &TestRun, protection, lr: f64| {
        let mut file = (*run.run).clone();
        file.train.lr = lr;
        let mut work = run.work(1, state.clone());
        (work.protection, work.run) = (protection, Arc::new(file));
        let update = trainer.train(&work, &mut go_on).unwrap();
        assert_eq!((update.examples, update.train_loss, update.seconds), (0, 0.0, 0.0));
        assert!(update.tensors.iter().all(|(name, tensor)| work.state.tensors[name] == *tensor), "{protection:?}");
    };
    nothing_changes(&run, per_example, 3e38);
    nothing_changes(&run, whole_change, 3e38);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tsv");
    std::fs::write(&path, format!("text\tlabel\n{}", "so it is\tneutral\n".repeat(20))).unwrap();
    let source = Source { on_bad_row: OnBadRow::Keep, eval_fraction: 0.0, ..Source::new("tiny", &path) };
    run.data = Arc::new(Dataset::load(&source, TaskSpec::of(&run.run.task), 0).unwrap());
    nothing_changes(&run, whole_change, 1e-3);
    // With noise the rows of no use are noise alone.
    let mut work = run.work(1, state.clone());
    work.protection = per_example;
    assert_ne!(trainer.train(&work, &mut go_on).unwrap().tensors, TensorSet::new());
}
