//! An audit of the step that clients take, and of the same step broken in five ways: each must be
//! found out.

use rondo_data::Dataset;
use rondo_dp::ExamplePlan;
use rondo_proto::run_file::Pooling;
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::step::Plan;
use rondo_trainer::text::load_tokenizer;
use rondo_trainer::text::rows::Rows;
use rondo_trainer::train::dp_sgd::DpSgd;
use rondo_trainer_api::work::Work;
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// What is claimed of every step. The clip is below the norm of every text's gradient.
const CLAIMED: ExamplePlan = ExamplePlan {
    clip: 0.01,
    noise_multiplier: 2.0,
    sampling_rate: 1.0,
    expected_batch: 50.0,
    steps: 1,
    rounds: 1,
    epsilon: 1.0,
    delta: 1e-5,
};
/// Pairs of releases that are compared; some 1,900 numbers each.
const PAIRS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LessNoise,
    NoClip,
    DividedBeforeClipping,
    NoiseRepeated,
    NoisePerText,
}

#[derive(Debug, PartialEq)]
enum Finding {
    /// Two releases of the same batch differ by other noise than twice the claimed variance.
    Noise,
    /// One text moves the sum by more than the clip.
    Sensitivity,
}

/// A step as clients take it, with a fault.
struct Suspect<'a> {
    session: &'a Session<'a>,
    work: &'a Work,
    /// All texts, and each alone.
    rows: &'a Rows<'a>,
    alone: &'a [Rows<'a>],
    fault: Fault,
}

impl Suspect<'_> {
    /// One release on all texts, or on the first alone, as numbers.
    fn release(&self, only_first: bool, noise_multiplier: f64) -> Vec<f64> {
        let claimed = ExamplePlan { noise_multiplier, ..CLAIMED };
        // A wider clip at the same noise: what is drawn does not change, what a text may do does.
        let wider =
            |by: f64| ExamplePlan { clip: by * claimed.clip, noise_multiplier: noise_multiplier / by, ..claimed };
        let plan = match self.fault {
            Fault::LessNoise => ExamplePlan { noise_multiplier: 0.9 * noise_multiplier, ..claimed },
            Fault::NoClip => wider(1000.0),
            // clip(g / B, C) without a division after it is clip(g, B C) / B.
            Fault::DividedBeforeClipping => wider(claimed.expected_batch),
            Fault::None | Fault::NoiseRepeated | Fault::NoisePerText => claimed,
        };
        let taken = |rows| {
            let mut private = DpSgd::new(self.session, &plan).unwrap();
            let step = private.step(self.session, self.work, rows, Plan { micro_batch: 8, ..Plan::default() });
            let tensors = step.unwrap().tensors;
            Tensor::cat(&tensors.iter().map(|t| t.to_kind(Kind::Double).view(-1)).collect::<Vec<_>>(), 0)
        };
        let sum = match (only_first, self.fault) {
            (true, _) => taken(&self.alone[0]),
            (false, Fault::NoisePerText) => self.alone.iter().map(taken).reduce(|sum, one| sum + one).unwrap(),
            (false, _) => taken(self.rows),
        };
        Vec::try_from(&sum).unwrap()
    }

    fn pair(&self) -> (Vec<f64>, Vec<f64>) {
        let first = self.release(false, CLAIMED.noise_multiplier);
        let second = match self.fault {
            Fault::NoiseRepeated => first.clone(),
            _ => self.release(false, CLAIMED.noise_multiplier),
        };
        (first, second)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let differences = (0..PAIRS).flat_map(|_| {
            let (first, second) = self.pair();
            first.into_iter().zip(second).map(|(first, second)| first - second).collect::<Vec<_>>()
        });
        let differences: Vec<f64> = differences.collect();
        let count = differences.len() as f64;
        let deviation = (differences.iter().map(|number| number * number).sum::<f64>() / count / 2.0).sqrt();
        let claimed = CLAIMED.noise_multiplier * CLAIMED.clip / CLAIMED.expected_batch;
        // Five standard deviations of an estimated deviation.
        if (deviation / claimed - 1.0).abs() > 5.0 / (2.0 * count).sqrt() {
            found.push(Finding::Noise);
        }
        // With noise far below the clip, a lone text's release is what it adds.
        let quiet = 1.0 / 1024.0;
        let alone = self.release(true, quiet).iter().map(|number| number * number).sum::<f64>().sqrt();
        let noise = quiet * (count / PAIRS as f64).sqrt();
        if alone * CLAIMED.expected_batch > CLAIMED.clip * (1.0 + 2.0 * noise) {
            found.push(Finding::Sensitivity);
        }
        found
    }
}

#[test]
fn a_sound_step_passes_and_every_broken_one_is_found_out() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    stir(&run.job, &mut state);
    let model = encoder(&tiny());
    let work = run.work(1, state.clone());
    let session = Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    let mut tokens = load_tokenizer::load_tokenizer(&tiny()).unwrap();
    let texts =
        ["good film", "awful movie", "great book", "bad phone", "good food", "awful day", "great service", "so bad"];
    let texts = texts.iter().enumerate().map(|(index, text)| ((*text).to_owned(), (index % 2) as u32));
    let texts: Vec<(String, u32)> = texts.collect();
    let all = Dataset::of("tiny", &labels(), texts.clone(), 0.0);
    let each = texts.into_iter().map(|text| Dataset::of("tiny", &labels(), [text], 0.0));
    let each: Vec<Dataset> = each.collect();
    let rows = tokens.rows(all.train(), &run.run.task).unwrap();
    let alone: Vec<Rows<'_>> = each.iter().map(|one| tokens.rows(one.train(), &run.run.task).unwrap()).collect();
    let findings = |fault| Suspect { session: &session, work: &work, rows: &rows, alone: &alone, fault }.findings();

    assert_eq!(findings(Fault::None), []);
    for fault in [Fault::LessNoise, Fault::NoiseRepeated, Fault::NoisePerText] {
        assert_eq!(findings(fault), [Finding::Noise], "{fault:?}");
    }
    for fault in [Fault::NoClip, Fault::DividedBeforeClipping] {
        assert_eq!(findings(fault), [Finding::Sensitivity], "{fault:?}");
    }
}
