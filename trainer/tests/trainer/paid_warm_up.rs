//! A warm-up that reads data and pays for it: clipped
//! per example and noised, or clipped as a whole.

use rondo_dp::ExamplePlan;
use rondo_proto::run_file::Pooling;
use rondo_trainer::session::Session;
use rondo_trainer::step::{self, Objective, Plan};
use rondo_trainer::text::load_tokenizer;
use rondo_trainer_api::work::{LocalUpdate, Protection, Trainer, Work};
use tch::{Device, Kind, Tensor};

use crate::support::*;

const SKETCH: &str = "id = \"fed-sb\"\nrank = 4\nwarm_up_examples = 19";
const BATCH: f64 = 50.0;

/// The sketch's warm-up in a run with privacy that pays for it.
fn paid(protection: Protection) -> (TestRun, Work) {
    let mut run = TestRun::new(SKETCH);
    let mut file = (*run.run).clone();
    let privacy = "unit = \"example\"\nepsilon = 3.0\ndelta = 1e-5\nclip = 1.0\nwarm_up_clip = 0.5";
    file.privacy = Some(toml::from_str(privacy).unwrap());
    run.run = std::sync::Arc::new(file);
    let mut work = run.work(0, run.job.warm_up_state(run.job.rank()).unwrap());
    work.protection = protection;
    (run, work)
}

/// Everybody in the batch; the clip of training is far from the warm-up's.
fn plan(noise_multiplier: f64, warm_up_clip: f64) -> Protection {
    Protection::Examples(ExamplePlan {
        clip: 1e6 * warm_up_clip,
        noise_multiplier,
        sampling_rate: 1.0,
        expected_batch: BATCH,
        steps: 8,
        rounds: 2,
        epsilon: 3.0,
        delta: 1e-5,
        warm_up_clip: Some(warm_up_clip),
    })
}

fn flat(update: &LocalUpdate) -> Vec<f64> {
    update.tensors.values().flat_map(|tensor| tensor.data.iter().map(|&number| f64::from(number))).collect()
}

fn norm(numbers: &[f64]) -> f64 {
    numbers.iter().map(|number| number * number).sum::<f64>().sqrt()
}

/// The statistic of every example on its own, over all probes.
fn of_each(run: &TestRun, work: &Work) -> Vec<Vec<f64>> {
    let model = encoder(&tiny());
    let probes = run.job.warm_up();
    let session = Session::of_probe(&*model, Device::Cpu, &run.job, &probes[0], &work.state, Pooling::Mean).unwrap();
    let mut tokens = load_tokenizer::load_tokenizer(&tiny()).unwrap();
    let rows = tokens.rows(run.data.train(), &run.run.task).unwrap();
    let taken = rows.take(&(0..rows.len()).collect::<Vec<_>>()).unwrap();
    let numbers = |tensor: &Tensor| Vec::<f64>::try_from(&tensor.to_kind(Kind::Double).view(-1)).unwrap();
    let own = |(text, label): (usize, &i64)| {
        let goal = Objective::Labels(std::slice::from_ref(label));
        let found = step::gradients(&session, &taken.encoded, &[text], goal, Plan::default()).unwrap();
        found.tensors.iter().flat_map(numbers).collect()
    };
    taken.labels().iter().enumerate().map(own).collect()
}

/// A clip that half of the examples exceed, and (sum of the clipped statistics) / expected batch.
fn expected(run: &TestRun, work: &Work) -> (f64, Vec<f64>) {
    let each = of_each(run, work);
    let mut norms: Vec<f64> = each.iter().map(|own| norm(own)).collect();
    norms.sort_by(f64::total_cmp);
    let clip = norms[norms.len() / 2];
    assert!(clip < *norms.last().unwrap(), "some are clipped");
    let mut mean = vec![0.0; each[0].len()];
    for own in &each {
        let share = (clip / norm(own)).min(1.0) / BATCH;
        mean.iter_mut().zip(own).for_each(|(mean, number)| *mean += share * number);
    }
    (clip, mean)
}

#[test]
fn every_example_is_clipped_over_all_probes_together() {
    let (run, mut work) = paid(Protection::None);
    let (clip, mean) = expected(&run, &work);
    work.protection = plan(1.0 / 8192.0, clip);
    let update = trainer().warm_up(&work, &mut go_on).unwrap();
    assert_eq!((update.examples, update.train_loss, update.seconds), (0, 0.0, 0.0));
    let found = flat(&update);
    assert_eq!(found.len(), mean.len());
    let off = found.iter().zip(&mean).map(|(found, mean)| (found - mean).abs()).fold(0.0, f64::max);
    assert!(off < 6.0 * clip / 8192.0 / BATCH + 1e-6 * clip, "off by {off}, clip {clip}");
}

#[test]
fn the_mean_of_many_draws_is_the_clipped_sum_and_each_has_its_noise() {
    const DRAWS: usize = 24;
    let (run, mut work) = paid(Protection::None);
    let (clip, mean) = expected(&run, &work);
    let mut trainer = trainer();
    let mut deviations = |noise: f64| {
        work.protection = plan(noise, clip);
        let mut sum = vec![0.0; mean.len()];
        let mut squares = 0.0;
        for _ in 0..DRAWS {
            let found = flat(&trainer.warm_up(&work, &mut go_on).unwrap());
            for ((sum, found), mean) in sum.iter_mut().zip(found).zip(&mean) {
                *sum += (found - mean) / DRAWS as f64;
                squares += (found - mean) * (found - mean);
            }
        }
        let count = mean.len() as f64;
        (norm(&sum) / count.sqrt(), (squares / count / DRAWS as f64).sqrt())
    };
    let claimed = 2.0 * clip / BATCH;
    let window = |draws: f64| 6.0 / (2.0 * draws * mean.len() as f64).sqrt();
    let (of_mean, of_each) = deviations(2.0);
    assert!((of_each / claimed - 1.0).abs() < window(DRAWS as f64), "{of_each}, claimed {claimed}");
    let shrunk = claimed / (DRAWS as f64).sqrt();
    assert!((of_mean / shrunk - 1.0).abs() < window(1.0), "{of_mean}, expected {shrunk}");
    // With nine tenths of the noise the same look finds it out.
    let (_, less) = deviations(1.8);
    assert!((less / claimed - 1.0).abs() > window(DRAWS as f64), "{less}, claimed {claimed}");
}

#[test]
fn a_whole_statistic_is_scaled_down_to_the_clip() {
    let (run, mut work) = paid(Protection::None);
    let whole = flat(&run_open().statistic(&mut trainer()));
    let clip = norm(&whole) / 4.0;
    work.protection = Protection::WholeChange { clip };
    let update = trainer().warm_up(&work, &mut go_on).unwrap();
    assert_eq!((update.examples, update.train_loss, update.seconds), (0, 0.0, 0.0));
    let found = flat(&update);
    assert!((norm(&found) / clip - 1.0).abs() < 1e-5);
    let off: Vec<f64> = found.iter().zip(&whole).map(|(found, whole)| found - whole / 4.0).collect();
    assert!(norm(&off) < 1e-5 * clip, "only its length has changed");
    assert_eq!(run.job.warm_up_start().dimension(), found.len());
}

/// The same run without privacy.
fn run_open() -> TestRun {
    TestRun::new(SKETCH)
}
