//! The noise: its distribution against the exact one and against opendp's sampler, and the
//! mechanism around it against the audits. Statistics at 99.9 % are given a second try, so that a
//! run fails by chance once in a million.

#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

use dashu::rational::RBig;
use opendp::traits::samplers::sample_discrete_gaussian;
use rondo_dp::audit::{AuditError, canary, noise_scale};
use rondo_dp::{DiscreteGaussian, GaussianMechanism, Lattice, MechanismError, SecureRng};

fn holds(mut statistic: impl FnMut() -> Result<(), String>) {
    if let Err(first) = statistic() {
        statistic().unwrap_or_else(|second| panic!("{first}; {second}"));
    }
}

#[test]
fn draws_are_distributed_as_the_formula_says() {
    for scale in [1u64, 2, 5, 16] {
        holds(|| chi_squared(scale, scale as f64));
    }
}

/// A control: the same test against a distribution a tenth narrower.
#[test]
fn a_noise_that_is_a_tenth_off_is_noticed() {
    for scale in [1u64, 2, 5, 16] {
        assert!(chi_squared(scale, 0.9 * scale as f64).is_err(), "{scale}");
    }
}

/// Compares draws at `scale` with the exact probabilities at `claimed`.
fn chi_squared(scale: u64, claimed: f64) -> Result<(), String> {
    const DRAWS: u32 = 300_000;
    let distribution = DiscreteGaussian::new(scale).unwrap();
    let mut noise = SecureRng::new().unwrap();
    let widest = 8 * scale as i64;
    let mut counts = vec![0u32; 2 * widest as usize + 1];
    for _ in 0..DRAWS {
        counts[(distribution.sample(&mut noise).clamp(-widest, widest) + widest) as usize] += 1;
    }
    let weight = |x: i64| (-(x as f64).powi(2) / (2.0 * claimed * claimed)).exp();
    let total: f64 = (-50 * widest..=50 * widest).map(weight).sum();
    // Cells with fewer than 10 expected draws are counted together.
    let mut statistic = 0.0;
    let mut cells = 0.0;
    let mut rest = f64::from(DRAWS);
    let mut rest_count = f64::from(DRAWS);
    for x in -widest..=widest {
        let expected = f64::from(DRAWS) * weight(x) / total;
        let count = f64::from(counts[(x + widest) as usize]);
        if expected >= 10.0 {
            statistic += (count - expected).powi(2) / expected;
            cells += 1.0;
            rest -= expected;
            rest_count -= count;
        }
    }
    if rest >= 1.0 {
        statistic += (rest_count - rest).powi(2) / rest;
        cells += 1.0;
    }
    // The 99.9 % quantile by Wilson and Hilferty, good to a percent from two degrees of freedom.
    let freedom: f64 = cells - 1.0;
    let limit = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.0902 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    if statistic <= limit { Ok(()) } else { Err(format!("scale {scale}: chi squared {statistic:.1} above {limit:.1}")) }
}

#[test]
fn draws_are_distributed_as_those_of_opendp() {
    const SCALE: u64 = 1 << 20;
    const DRAWS: usize = 30_000;
    let distribution = DiscreteGaussian::new(SCALE).unwrap();
    holds(|| {
        let mut noise = SecureRng::new().unwrap();
        let mut ours: Vec<i64> = (0..DRAWS).map(|_| distribution.sample(&mut noise)).collect();
        let theirs = || i64::try_from(sample_discrete_gaussian(RBig::from(SCALE)).unwrap()).unwrap();
        let mut theirs: Vec<i64> = (0..DRAWS).map(|_| theirs()).collect();
        let distance = kolmogorov_smirnov(&mut ours, &mut theirs);
        let limit = 1.9495 * (2.0 / DRAWS as f64).sqrt();
        if distance <= limit { Ok(()) } else { Err(format!("KS distance {distance:.4} above {limit:.4}")) }
    });
}

fn kolmogorov_smirnov(a: &mut [i64], b: &mut [i64]) -> f64 {
    a.sort_unstable();
    b.sort_unstable();
    let mut i = 0;
    let mut j = 0;
    let mut distance = 0f64;
    while i < a.len() && j < b.len() {
        if a[i] <= b[j] {
            i += 1
        } else {
            j += 1
        }
        distance = distance.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    distance
}

#[test]
fn a_release_is_the_sum_with_noise_in_units_of_the_data() {
    let lattice = Lattice::new(0.5, 2.0, 3).unwrap();
    let mut mechanism = GaussianMechanism::new(lattice).unwrap();
    // So far from zero that the noise cannot reach it.
    let far = 1i64 << 40;
    let released = mechanism.release(&[far, -far, far]).unwrap();
    for (number, sign) in released.iter().zip([1.0, -1.0, 1.0]) {
        let noise = number - sign * far as f64 * lattice.step();
        assert!(noise != 0.0 && noise.abs() < 40.0, "{noise}");
        assert_eq!((number / lattice.step()).fract(), 0.0, "what is released lies on the lattice");
    }
    assert!(mechanism.release(&[i64::MAX, i64::MIN, 0]).unwrap().iter().all(|number| number.is_finite()));
}

#[test]
fn a_wrong_length_is_refused() {
    let mut mechanism = GaussianMechanism::new(Lattice::new(1.0, 1.0, 3).unwrap()).unwrap();
    for sum in [&[0i64; 2][..], &[0; 4], &[]] {
        assert!(matches!(mechanism.release(sum), Err(MechanismError::Length { dimension: 3, .. })));
    }
}

#[test]
fn rho_is_that_of_the_noise_multiplier() {
    for noise in [0.3, 1.0, 4.7, 1000.0] {
        let lattice = Lattice::new(0.37, noise, 100).unwrap();
        let mechanism = GaussianMechanism::new(lattice).unwrap();
        let rho = mechanism.rho().unwrap();
        let want = 0.5 / lattice.noise_multiplier().powi(2);
        assert!((rho / want - 1.0).abs() < 1e-12 && rho <= 0.5 / (noise * noise) * (1.0 + 1e-12), "{rho} {want}");
    }
}

#[test]
fn mechanisms_can_change_threads() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&GaussianMechanism::new(Lattice::new(1.0, 1.0, 3).unwrap()).unwrap());
}

#[test]
fn noise_has_its_size_and_is_new_every_time() {
    let lattice = Lattice::new(1.0, 1.3, 100_000).unwrap();
    let mut mechanism = GaussianMechanism::new(lattice).unwrap();
    holds(|| {
        let report = noise_scale(&lattice, 0.999, |sum| mechanism.release(sum)).unwrap();
        if report.passed() { Ok(()) } else { Err(format!("{report:?}")) }
    });
}

/// Releases with noise that is `share` of what the lattice claims.
fn weak(lattice: Lattice, share: f64) -> impl FnMut(&[i64]) -> Result<Vec<f64>, MechanismError> {
    let distribution = DiscreteGaussian::new((share * lattice.scale() as f64) as u64).unwrap();
    let mut noise = SecureRng::new().unwrap();
    move |sum| Ok(sum.iter().map(|&unit| (unit + distribution.sample(&mut noise)) as f64 * lattice.step()).collect())
}

/// Controls of the audit of the noise.
#[test]
fn weak_repeated_and_missing_noise_are_noticed() {
    let lattice = Lattice::new(1.0, 1.3, 20_000).unwrap();
    for share in [0.9, 1.1] {
        assert!(!noise_scale(&lattice, 0.999, weak(lattice, share)).unwrap().passed());
    }
    let once = weak(lattice, 1.0)(&vec![0; 20_000]).unwrap();
    let report = noise_scale(&lattice, 0.999, |_| Ok::<_, MechanismError>(once.clone())).unwrap();
    assert!(report.repeated && !report.passed());
    let noiseless = |sum: &[i64]| Ok::<_, MechanismError>(sum.iter().map(|&unit| unit as f64).collect());
    assert!(!noise_scale(&lattice, 0.999, noiseless).unwrap().passed());
}

#[test]
fn canaries_prove_no_more_than_is_claimed_and_nearly_as_much() {
    for noise in [0.7, 1.0, 3.0] {
        let lattice = Lattice::new(1.0, noise, 400_000).unwrap();
        let mut mechanism = GaussianMechanism::new(lattice).unwrap();
        holds(|| {
            let report = canary(&lattice, 1e-5, 0.999, |sum| mechanism.release(sum)).unwrap();
            let near = report.lower_bound > 0.85 * report.claimed;
            if report.passed() && near { Ok(()) } else { Err(format!("{report:?}")) }
        });
    }
}

/// Controls of the audit by canaries.
#[test]
fn canaries_notice_weak_noise_and_a_clip_that_is_off() {
    for noise in [0.5, 0.7, 1.0] {
        let lattice = Lattice::new(1.0, noise, 400_000).unwrap();
        let report = canary(&lattice, 1e-5, 0.999, weak(lattice, 0.9)).unwrap();
        assert!(!report.passed(), "{report:?}");
    }
    let lattice = Lattice::new(1.0, 1.0, 100_000).unwrap();
    let mut mechanism = GaussianMechanism::new(lattice).unwrap();
    let unclipped = |sum: &[i64]| mechanism.release(&sum.iter().map(|&unit| 2 * unit).collect::<Vec<_>>());
    assert!(!canary(&lattice, 1e-5, 0.999, unclipped).unwrap().passed());
}

#[test]
fn audits_that_make_no_sense_are_refused() {
    let small = Lattice::new(1.0, 1.0, 10).unwrap();
    let answer = |sum: &[i64]| Ok::<_, MechanismError>(vec![0.0; sum.len()]);
    assert!(matches!(canary(&small, 1e-5, 0.999, answer), Err(AuditError::Dimension { .. })));
    let lattice = Lattice::new(1.0, 1.0, 1000).unwrap();
    assert!(matches!(canary(&lattice, 0.0, 0.999, answer), Err(AuditError::Delta { .. })));
    assert!(matches!(noise_scale(&lattice, 1.0, answer), Err(AuditError::Confidence { .. })));
    let short = |_: &[i64]| Ok::<_, MechanismError>(vec![0.0; 3]);
    assert!(matches!(canary(&lattice, 1e-5, 0.999, short), Err(AuditError::Answer { dimension: 1000 })));
    let broken = |sum: &[i64]| Ok::<_, MechanismError>(vec![f64::NAN; sum.len()]);
    assert!(matches!(noise_scale(&lattice, 0.999, broken), Err(AuditError::Answer { .. })));
}
