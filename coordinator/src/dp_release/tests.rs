use rondo_dp::{ClientPlan, Privacy, Terms};
use rondo_methods::{Instance, Kind, TensorFile};
use rondo_proto::{ClientId, RunId};
use rondo_rounds::{PlannedUpdate, RoundKind, WorkKey};

use crate::test_tensors::{file, job, run_file};

use super::*;

const CLIP: f64 = 0.5;

struct Bench {
    job: Job,
    dir: tempfile::TempDir,
}

/// One round at its start, and what comes out of a release over these updates.
impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { job: job(&run_file("ffa-lora", 1)), dir }
    }

    fn start(&self) -> RoundStart {
        self.job.round_start(1, None, &[]).unwrap()
    }

    /// An update that changes every number by what `change` says.
    fn update(&self, mut change: impl FnMut(usize) -> f32) -> Digest {
        let start = self.start().changed(&vec![0.0; self.start().dimension()]);
        let entries = self.job.upload_manifest(Kind::Train, Instance::in_round(1).with_rank(4));
        // In the order of the file, which is not that of the vector; norms do not mind.
        let mut numbers = entries.iter().flat_map(|entry| start[&entry.name].data.clone());
        let mut index = 0;
        let bytes = file(&entries, || {
            index += 1;
            numbers.next().unwrap() + change(index - 1)
        });
        let digest = Digest::of(&bytes);
        std::fs::write(self.dir.path().join(digest.hex()), bytes).unwrap();
        digest
    }

    /// An update whose change has this norm.
    fn of_norm(&self, norm: f32) -> Digest {
        let each = norm / (self.start().dimension() as f32).sqrt();
        self.update(|index| if index % 2 == 0 { each } else { -each })
    }

    fn release(&self, updates: &[Digest], noise: f64, cohort: u32) -> NoisedMean {
        self.moving(updates, noise, cohort, None)
    }

    fn moving(&self, updates: &[Digest], noise: f64, cohort: u32, clip_quantile: Option<f64>) -> NoisedMean {
        let terms = Terms { noise_multiplier: Some(noise), clip_quantile, ..Terms::new(1e30, 1e-5, CLIP) };
        self.by_plan(updates, ClientPlan::new(&Privacy::new("client", terms).unwrap(), cohort, 1).unwrap())
    }

    fn by_plan(&self, updates: &[Digest], plan: ClientPlan) -> NoisedMean {
        let release = Release { plan, clip: plan.clip, domain: "reviews".into() };
        let planned = |(index, digest): (usize, &Digest)| PlannedUpdate {
            client: ClientId::new(format!("c{index}")).unwrap(),
            digest: *digest,
            weight: 1.0,
            rank: 4,
        };
        let plan = AggregatePlan {
            work: WorkKey { run: RunId::new("r").unwrap(), round: 1, attempt: 1 },
            kind: RoundKind::Train,
            updates: updates.iter().enumerate().map(planned).collect(),
            start_adapter: None,
            frozen: None,
            published: Vec::new(),
            server: None,
            release: Some(release.clone()),
        };
        let sum = ClippedSum::of(&self.job, &plan, &release, |digest| self.dir.path().join(digest.hex())).unwrap();
        sum.add_noise().unwrap()
    }

    /// Changes of a release from the round's start, by tensor name.
    fn change(&self, released: &NoisedMean) -> Vec<f64> {
        let start = self.start().changed(&vec![0.0; self.start().dimension()]);
        let differences = released.tensors.iter().flat_map(|(name, tensor)| {
            tensor.data.iter().zip(&start[name].data).map(|(&new, &old)| f64::from(new) - f64::from(old))
        });
        differences.collect()
    }

    fn of_update(&self, digest: &Digest) -> Vec<f64> {
        let file = TensorFile::open(&self.dir.path().join(digest.hex())).unwrap();
        self.change(&NoisedMean { tensors: file.read_all(|_| true).unwrap(), next_clip: None })
    }
}

fn norm(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn difference(left: &[f64], right: &[f64]) -> f64 {
    norm(&left.iter().zip(right).map(|(l, r)| l - r).collect::<Vec<_>>())
}

/// Noise of 1e-5 of the clip in all: far below what the tests look for.
const NEGLIGIBLE: f64 = 1e-6;

#[test]
fn without_noise_it_is_the_start_and_the_clipped_changes_over_the_divisor() {
    let bench = Bench::new();
    let updates = [bench.of_norm(0.2), bench.of_norm(5.0), bench.update(|index| (index % 7) as f32 * 1e-3)];
    let released = bench.change(&bench.release(&updates, NEGLIGIBLE, 4));
    let mut expected = vec![0.0; released.len()];
    for update in &updates {
        let change = bench.of_update(update);
        let factor = (CLIP / norm(&change)).min(1.0);
        // Four are expected, three came.
        expected.iter_mut().zip(&change).for_each(|(sum, x)| *sum += factor * x / 4.0);
    }
    assert!(difference(&released, &expected) < 1e-4 * norm(&expected), "{}", difference(&released, &expected));
}

#[test]
fn one_client_moves_the_sum_by_the_clip_at_most() {
    let bench = Bench::new();
    let others = [bench.of_norm(0.2), bench.of_norm(0.3)];
    let without = bench.change(&bench.release(&others, NEGLIGIBLE, 2));
    for huge in [bench.of_norm(5.0), bench.of_norm(3e30), bench.update(|index| if index == 3 { 1e30 } else { 0.0 })] {
        let with = bench.change(&bench.release(&[others[0], others[1], huge], NEGLIGIBLE, 2));
        let moved = 2.0 * difference(&with, &without);
        assert!(moved < CLIP * 1.001 && moved > CLIP * 0.99, "{moved}");
    }
}

#[test]
fn a_number_that_is_none_makes_its_update_count_as_nothing() {
    let bench = Bench::new();
    let sound = bench.of_norm(0.3);
    let alone = bench.change(&bench.release(&[sound], NEGLIGIBLE, 2));
    for bad in [f32::NAN, f32::INFINITY] {
        let odd = bench.update(|index| if index == 5 { bad } else { 0.01 });
        let both = bench.change(&bench.release(&[sound, odd], NEGLIGIBLE, 2));
        assert!(difference(&both, &alone) < 1e-4, "{}", difference(&both, &alone));
    }
}

#[test]
fn the_noise_has_its_size_and_is_new_each_time() {
    let bench = Bench::new();
    let (noise, cohort) = (4.0, 8);
    // Nobody came: noise alone.
    let draws: Vec<Vec<f64>> = (0..60).map(|_| bench.change(&bench.release(&[], noise, cohort))).collect();
    let all: Vec<f64> = draws.concat();
    let count = all.len() as f64;
    let deviation = norm(&all) / count.sqrt();
    let expected = noise * CLIP / f64::from(cohort);
    // Five standard deviations of an estimated deviation.
    let margin = 5.0 / (2.0 * count).sqrt();
    assert!((deviation / expected - 1.0).abs() < margin, "{deviation} against {expected}, {count} numbers");
    let mean = all.iter().sum::<f64>() / count;
    assert!(mean.abs() < 5.0 * expected / count.sqrt(), "{mean}");
    let product: f64 = draws[0].iter().zip(&draws[1]).map(|(l, r)| l * r).sum();
    assert!(product.abs() / (norm(&draws[0]) * norm(&draws[1])) < 0.3, "two releases are alike");
}

#[test]
fn a_clip_that_moves_goes_by_how_many_changes_it_leaves_whole() {
    let bench = Bench::new();
    let next = |norms: [f32; 3]| {
        let updates = norms.map(|norm| bench.of_norm(norm));
        bench.moving(&updates, 1e-3, 3, Some(0.5)).next_clip.unwrap() / CLIP
    };
    // The count's noise is a twentieth of the cohort, the share that was within is 0, 1/3 and 1.
    let near = |found: f64, share: f64| (found.ln() + 0.2 * (share - 0.5)).abs() < 0.06;
    assert!(near(next([0.5, 0.9, 5.0]), 0.0) && near(next([0.1, 0.2, 0.3]), 1.0));
    assert!(bench.release(&[], 1.0, 2).next_clip.is_none(), "one that stays has no next");
}

#[test]
fn the_door_knows_a_change_that_was_not_clipped() {
    let bench = Bench::new();
    let start = bench.start();
    let check = |digest: Digest| start.check_clipped(&bench.dir.path().join(digest.hex()), CLIP);
    check(bench.of_norm(0.5)).unwrap();
    check(bench.of_norm(0.1)).unwrap();
    let refusal = check(bench.of_norm(3.2)).unwrap_err().to_string();
    assert_eq!(refusal, "the update arrives unclipped: its change is larger than 0.5, at which the round clips");
    assert!(check(bench.of_norm(0.502)).is_err());
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LessNoise,
    NoClip,
    DividedBeforeClipping,
    NoiseRepeated,
    NoisePerClient,
}

#[derive(Debug, PartialEq)]
enum Finding {
    /// Two releases of the same updates differ by other noise than twice the claimed variance.
    Noise,
    /// One update moves the sum by more than the clip.
    Sensitivity,
}

/// What is found out about the coordinator's release with a fault. Claimed is a noise of 2 clips on
/// the sum over 4.
fn findings(fault: Fault) -> Vec<Finding> {
    let bench = Bench::new();
    let updates: Vec<Digest> = [0.9, 2.0, 3.0, 5.0].into_iter().map(|norm| bench.of_norm(norm)).collect();
    let (claimed, divisor) = (2.0, 4.0);
    let release = |updates: &[Digest], noise: f64| {
        let terms = Terms { noise_multiplier: Some(claimed), ..Terms::new(1e30, 1e-5, CLIP) };
        let sound = ClientPlan::new(&Privacy::new("client", terms).unwrap(), 4, 1).unwrap();
        // A wider clip at the same noise: what is drawn does not change, what a client may do does.
        let wider = |by: f64| ClientPlan { clip: by * CLIP, noise_multiplier: noise / by, ..sound };
        bench.change(&bench.by_plan(
            updates,
            match fault {
                Fault::LessNoise => ClientPlan { noise_multiplier: 0.9 * noise, ..sound },
                Fault::NoClip => wider(1000.0),
                // clip(change / W, C) without a division after it is clip(change, W C) / W.
                Fault::DividedBeforeClipping => wider(divisor),
                Fault::None | Fault::NoiseRepeated | Fault::NoisePerClient => {
                    ClientPlan { noise_multiplier: noise, ..sound }
                }
            },
        ))
    };
    let whole = || match fault {
        Fault::NoisePerClient => {
            let each: Vec<Vec<f64>> = updates.iter().map(|update| release(&[*update], claimed)).collect();
            (0..each[0].len()).map(|at| each.iter().map(|one| one[at]).sum()).collect()
        }
        _ => release(&updates, claimed),
    };
    let mut found = Vec::new();
    let differences = (0..40).flat_map(|_| {
        let first: Vec<f64> = whole();
        let second = if fault == Fault::NoiseRepeated { first.clone() } else { whole() };
        first.into_iter().zip(second).map(|(first, second)| first - second).collect::<Vec<_>>()
    });
    let differences: Vec<f64> = differences.collect();
    let count = differences.len() as f64;
    let deviation = norm(&differences) / (2.0 * count).sqrt();
    // Five standard deviations of an estimated deviation.
    if (deviation / (claimed * CLIP / divisor) - 1.0).abs() > 5.0 / (2.0 * count).sqrt() {
        found.push(Finding::Noise);
    }
    // With next to no noise a lone update's release is what it adds.
    if norm(&release(&updates[3..], 1e-3)) * divisor > 1.05 * CLIP {
        found.push(Finding::Sensitivity);
    }
    found
}

#[test]
fn a_sound_release_passes_and_every_broken_one_is_found_out() {
    assert_eq!(findings(Fault::None), []);
    for fault in [Fault::LessNoise, Fault::NoiseRepeated, Fault::NoisePerClient] {
        assert_eq!(findings(fault), [Finding::Noise], "{fault:?}");
    }
    for fault in [Fault::NoClip, Fault::DividedBeforeClipping] {
        assert_eq!(findings(fault), [Finding::Sensitivity], "{fault:?}");
    }
}
