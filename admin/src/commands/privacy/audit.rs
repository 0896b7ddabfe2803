//! `rondo privacy audit`: the noise that runs use, measured and attacked from outside, beside
//! broken ones that must be caught.

use clap::Args;
use rondo_dp::audit::{AuditReport, ScaleReport, canary, noise_scale};
use rondo_dp::{GaussianMechanism, Lattice, MechanismError};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::table;

/// What is audited, and how hard.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo privacy audit --noise-multiplier 0.9 --coordinates 1000000

Each line is a mechanism. The first is the one that clients and the coordinator use; an audit cannot prove it, it can only fail to refute it. The
others are broken on purpose, and an audit that is worth anything refutes them. Exit code 0: so it was.")]
pub struct AuditArgs {
    /// Standard deviation of the noise in units of the clip norm
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    noise_multiplier: f64,
    /// Numbers of a release, and canaries in it; more see smaller faults
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    coordinates: usize,
    /// Delta of the epsilons
    #[arg(long, value_name = "D", default_value_t = 1e-5)]
    delta: f64,
    /// Chance with which a sound mechanism passes each audit
    #[arg(long, value_name = "P", default_value_t = 0.999)]
    confidence: f64,
}

/// A way to release a sum: the real one, and what could go wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Variant {
    AsUsed,
    NoiseTimesNineTenths,
    NoNoise,
    SameNoiseTwice,
    TwiceTheClip,
}

impl Variant {
    const ALL: [Self; 5] =
        [Self::AsUsed, Self::NoiseTimesNineTenths, Self::NoNoise, Self::SameNoiseTwice, Self::TwiceTheClip];

    fn words(self) -> &'static str {
        match self {
            Self::AsUsed => "as it is used",
            Self::NoiseTimesNineTenths => "broken: noise times 0.9",
            Self::NoNoise => "broken: no noise",
            Self::SameNoiseTwice => "broken: the same noise twice",
            Self::TwiceTheClip => "broken: contributions of twice the clip",
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    mechanism: Variant,
    noise: ScaleReport,
    canaries: AuditReport,
    /// Nothing speaks against it.
    passed: bool,
    /// The audits said what they should.
    as_expected: bool,
}

#[derive(Debug, Serialize)]
struct Audited {
    noise_multiplier: f64,
    coordinates: usize,
    delta: f64,
    confidence: f64,
    mechanisms: Vec<Line>,
}

/// Audits every mechanism and prints what was found.
pub(super) fn run(args: &AuditArgs, context: &mut Context) -> Result<(), CliError> {
    let &AuditArgs { noise_multiplier, coordinates, delta, confidence } = args;
    let lattice =
        Lattice::new(1.0, noise_multiplier, coordinates).map_err(|error| CliError::usage(error.to_string()))?;
    let refused = |error: rondo_dp::audit::AuditError| CliError::usage(error.to_string());
    let mut mechanisms = Vec::new();
    for mechanism in Variant::ALL {
        let mut release = releases(mechanism, lattice)?;
        let noise = noise_scale(&lattice, confidence, &mut release).map_err(refused)?;
        let canaries = canary(&lattice, delta, confidence, &mut release).map_err(refused)?;
        let passed = noise.passed() && canaries.passed();
        mechanisms.push(Line {
            mechanism,
            noise,
            canaries,
            passed,
            as_expected: passed == (mechanism == Variant::AsUsed),
        });
    }
    let failed = mechanisms.iter().any(|line| !line.as_expected);
    context.output.show(&Audited { noise_multiplier, coordinates, delta, confidence, mechanisms }, text)?;
    if !failed {
        return Ok(());
    }
    let hint = "a sound mechanism fails by chance once in 1 / (1 - confidence) audits: run it again; more coordinates see more";
    Err(CliError::failed("an audit did not say what it should").hint(hint))
}

type Release = Box<dyn FnMut(&[i64]) -> Result<Vec<f64>, MechanismError>>;

fn releases(variant: Variant, lattice: Lattice) -> Result<Release, CliError> {
    let mut sound = GaussianMechanism::new(lattice).map_err(|error| CliError::failed(error.to_string()))?;
    let step = lattice.step();
    let bare = move |sum: &[i64]| sum.iter().map(|&total| total as f64 * step).collect::<Vec<f64>>();
    let mut kept: Option<Vec<f64>> = None;
    Ok(match variant {
        Variant::AsUsed => Box::new(move |sum| sound.release(sum)),
        Variant::NoiseTimesNineTenths => Box::new(move |sum| {
            let noised = sound.release(sum)?;
            Ok(bare(sum).iter().zip(noised).map(|(bare, noised)| bare + 0.9 * (noised - bare)).collect())
        }),
        Variant::NoNoise => Box::new(move |sum| Ok(bare(sum))),
        Variant::SameNoiseTwice => Box::new(move |sum| {
            let noise = match &kept {
                Some(noise) => noise.clone(),
                None => kept.insert(sound.release(&vec![0; sum.len()])?).clone(),
            };
            Ok(bare(sum).iter().zip(noise).map(|(bare, noise)| bare + noise).collect())
        }),
        Variant::TwiceTheClip => Box::new(move |sum| {
            let twice: Vec<i64> = sum.iter().map(|&total| 2 * total).collect();
            sound.release(&twice)
        }),
    })
}

fn text(audited: &Audited) -> String {
    let rows = audited.mechanisms.iter().map(|line| {
        let verdict = match (line.passed, line.as_expected) {
            (true, true) => "not refuted",
            (false, true) => "refuted",
            (true, false) => "NOT CAUGHT",
            (false, false) => "REFUTED",
        };
        vec![
            line.mechanism.words().to_owned(),
            format!("{:.4}", line.noise.ratio),
            format!("{:.4} to {:.4}", line.noise.window.0, line.noise.window.1),
            format!("{:.4}", line.noise.correlation),
            format!("{:.4}", line.canaries.claimed),
            format!("{:.4}", line.canaries.lower_bound),
            verdict.to_owned(),
        ]
    });
    let heads =
        ["MECHANISM", "NOISE/CLAIM", "ALLOWED", "CORRELATION", "EPSILON CLAIMED", "AUDITED, AT LEAST", "VERDICT"];
    let Audited { noise_multiplier, coordinates, delta, .. } = audited;
    format!(
        "one release of {coordinates} numbers, noise multiplier {noise_multiplier}, delta {delta:e}\n{}",
        table(&heads, rows.collect(), "nothing was audited")
    )
}
