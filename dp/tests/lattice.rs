//! Clipping onto the lattice: the sensitivity is m, in integers, whatever comes.

#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

use proptest::prelude::*;
use rondo_dp::{ClipOutcome, Lattice, MAX_SCALE, MIN_SCALE};

/// Numbers that break clipping in floating point.
fn hostile() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -2f32..2.0,
        2 => (-40i32..40).prop_map(|exponent| 2f32.powi(exponent)),
        2 => Just(3.0e38f32),
        1 => Just(-f32::MAX),
        1 => Just(1e-40f32),
        1 => Just(f32::MIN_POSITIVE),
        1 => Just(-0.0f32),
    ]
}

fn broken() -> impl Strategy<Value = f32> {
    prop_oneof![20 => hostile(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)]
}

fn squared_norm(units: impl Iterator<Item = i64>) -> u128 {
    units.map(|unit| u128::from(unit.unsigned_abs()) * u128::from(unit.unsigned_abs())).sum()
}

fn squared_radius(lattice: &Lattice) -> u128 {
    u128::from(lattice.radius()) * u128::from(lattice.radius())
}

proptest! {
    // No file of past failures: a case that failed becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_contribution_moves_the_sum_by_m_at_most(
        others in prop::collection::vec(prop::collection::vec(broken(), 24), 0..4),
        one in prop::collection::vec(broken(), 24),
        cut in 0usize..=24,
        clip in -20i32..20,
        fraction in 1.0f64..2.0,
        noise in -6i32..13,
    ) {
        let lattice = Lattice::new(fraction * 2f64.powi(clip), 2f64.powi(noise), 24).unwrap();
        let mut without = vec![0i64; 24];
        for other in &others {
            let _ = lattice.add(&[other.as_slice()], &mut without).unwrap();
        }
        let mut with = without.clone();
        let (left, right) = one.split_at(cut);
        let outcome = lattice.add(&[left, right, &[]], &mut with).unwrap();
        let moved = squared_norm(with.iter().zip(&without).map(|(a, b)| a - b));
        prop_assert!(moved <= squared_radius(&lattice));
        if one.iter().all(|number| number.is_finite()) {
            prop_assert_ne!(outcome, ClipOutcome::NonFinite);
        } else {
            prop_assert_eq!(outcome, ClipOutcome::NonFinite);
            prop_assert_eq!(moved, 0);
        }
    }

    #[test]
    fn a_clipped_vector_keeps_its_direction_and_nearly_all_its_norm(
        one in prop::collection::vec(hostile(), 1..40),
    ) {
        let lattice = Lattice::new(0.7, 1.0, one.len()).unwrap();
        let mut sum = vec![0i64; one.len()];
        let outcome = lattice.add(&[one.as_slice()], &mut sum).unwrap();
        let largest = one.iter().fold(0f64, |largest, &x| largest.max(f64::from(x).abs()));
        prop_assume!(largest > 0.0);
        let norm = largest * one.iter().map(|&x| (f64::from(x) / largest).powi(2)).sum::<f64>().sqrt();
        let factor = (lattice.clip() / norm).min(1.0) / lattice.step();
        for (&x, &unit) in one.iter().zip(&sum) {
            let exact = f64::from(x) * factor;
            prop_assert!((unit as f64 - exact).abs() <= 1.0 + exact.abs() * 1e-9, "{x} {unit} {exact}");
            prop_assert!((unit as f64).abs() <= exact.abs() * (1.0 + 1e-12), "not toward zero: {x} {unit} {exact}");
        }
        if (norm / lattice.clip() - 1.0).abs() > 1e-9 {
            prop_assert_eq!(outcome == ClipOutcome::Clipped, norm > lattice.clip());
        }
    }

    #[test]
    fn a_lattice_holds_what_was_asked_for(exponent in -99i32..99, fraction in 1.0f64..2.0, noise in 0.0001f64..8000.0) {
        let clip = fraction * 2f64.powi(exponent);
        let lattice = Lattice::new(clip, noise, 7).unwrap();
        prop_assert!(lattice.clip() <= clip && lattice.clip() > clip * (1.0 - 1.0 / 1024.0));
        prop_assert!(lattice.noise_multiplier() >= noise && lattice.noise_multiplier() < noise * 1.001);
        prop_assert!((MIN_SCALE..=MAX_SCALE).contains(&lattice.scale()));
        prop_assert_eq!(lattice.step(), 2f64.powi(lattice.exponent()));
        // Steps are powers of two and s is at most 2^24, so the radius lies above 2^23 / noise:
        // 2^20 up to a noise of 8, and 2^19 up to 16. (A clip of 1.9939 with noise 13.18 has the
        // radius 1,045,392, a little below 2^20.)
        if noise <= 16.0 {
            let finest = if noise <= 8.0 { -20 } else { -19 };
            prop_assert!(lattice.step() <= clip * 2f64.powi(finest), "{}", lattice.radius());
        }
    }

    #[test]
    fn the_sum_does_not_depend_on_the_order(all in prop::collection::vec(prop::collection::vec(hostile(), 5), 1..6)) {
        let lattice = Lattice::new(1.0, 1.0, 5).unwrap();
        let sum = |order: &mut dyn Iterator<Item = &Vec<f32>>| {
            let mut sum = vec![0i64; 5];
            for one in order {
 let _ = lattice.add(&[one.as_slice()], &mut sum).unwrap();
}
            sum
        };
        prop_assert_eq!(sum(&mut all.iter()), sum(&mut all.iter().rev()));
    }
}

/// A control: without the clip the same neighbours are further apart than m.
#[test]
fn without_the_clip_the_sensitivity_is_broken() {
    let lattice = Lattice::new(1.0, 1.0, 3).unwrap();
    let one = [3.0f32, 0.0, 4.0];
    let unclipped = one.iter().map(|&x| (f64::from(x) / lattice.step()) as i64);
    assert!(squared_norm(unclipped) > squared_radius(&lattice));
    let mut sum = vec![0i64; 3];
    assert_eq!(lattice.add(&[&one], &mut sum).unwrap(), ClipOutcome::Clipped);
    assert!(squared_norm(sum.iter().copied()) <= squared_radius(&lattice));
    assert!((sum[0] as f64 * lattice.step() - 0.6).abs() < 1e-6, "{sum:?}");
}

#[test]
fn numbers_in_double_precision_are_clipped_as_well() {
    let lattice = Lattice::new(2.0, 0.5, 4).unwrap();
    let mut sum = vec![0i64; 4];
    for hostile in [[f64::MAX; 4], [f64::MIN_POSITIVE; 4], [5e-324; 4], [1e308, -1e308, 1.0, 0.0], [0.0; 4]] {
        let before = sum.clone();
        let _ = lattice.add(&[&hostile], &mut sum).unwrap();
        assert!(squared_norm(sum.iter().zip(&before).map(|(a, b)| a - b)) <= squared_radius(&lattice), "{hostile:?}");
    }
    let before = sum.clone();
    assert_eq!(lattice.add(&[&[0.5, f64::NAN, 0.0, 0.0]], &mut sum).unwrap(), ClipOutcome::NonFinite);
    assert_eq!(sum, before);
    // What lies on the lattice and within the norm stays what it is.
    let mut exact = vec![0i64; 4];
    assert_eq!(lattice.add(&[&[0.5, -0.25, 1.0, 0.0]], &mut exact).unwrap(), ClipOutcome::Whole);
    assert_eq!(exact.iter().map(|&unit| unit as f64 * lattice.step()).collect::<Vec<_>>(), [0.5, -0.25, 1.0, 0.0]);
}

#[test]
fn a_wrong_length_is_refused_and_leaves_the_sum() {
    let lattice = Lattice::new(1.0, 1.0, 3).unwrap();
    let mut sum = vec![7i64; 3];
    assert!(lattice.add(&[&[1.0f32, 2.0]], &mut sum).is_err());
    assert!(lattice.add::<f32>(&[], &mut sum).is_err());
    assert_eq!(sum, [7; 3]);
    assert!(lattice.add(&[&[1.0f32, 2.0, 3.0]], &mut [0i64; 4]).is_err());
}

#[test]
fn senseless_lattices_are_refused() {
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-40, 1e40] {
        assert!(Lattice::new(clip, 1.0, 3).is_err(), "{clip}");
    }
    for noise in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e-8, 1e5, 1e300] {
        assert!(Lattice::new(1.0, noise, 3).is_err(), "{noise}");
    }
    assert!(Lattice::new(1.0, 1.0, 0).is_err());
    assert!(Lattice::new(1.0, 1.0, usize::MAX).is_err());
}
