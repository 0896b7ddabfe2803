//! A lower bound on epsilon, from canaries that an attacker distinguishes as well as anyone can.

use rand_core::RngCore;
use serde::Serialize;

use super::interval::{upper_bound, upper_quantile};
use super::{AuditError, check_confidence, check_dimension, released};
use crate::gaussian;
use crate::lattice::Lattice;
use crate::secure_rng::SecureRng;

/// What [`canary`] found. It is about canaries, and holds no data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// Canaries in the release.
    pub canaries: usize,
    /// The delta of both epsilons.
    pub delta: f64,
    /// Probability with which a true claim passes, at least.
    pub confidence: f64,
    /// The epsilon that one release costs by the noise of the lattice, in closed form.
    pub claimed: f64,
    /// The epsilon that the attack proves: a mechanism with less would let it succeed as often only
    /// with probability 1 - confidence.
    pub lower_bound: f64,
}

impl AuditReport {
    /// Whether nothing speaks against the claim.
    pub fn passed(&self) -> bool {
        self.lower_bound <= self.claimed
    }
}

/// Thresholds that are tried.
const THRESHOLDS: u32 = 101;

/// Releases a sum of canaries and attacks it. Canary i is as large as clipping allows, m on
/// coordinate i alone, and takes part by the toss of a coin; the attacker holds the noisy
/// coordinate against a threshold, which is found on one half of the canaries and judged on the
/// other. Bounds on both error rates (Clopper and Pearson) bound mu of Gaussian differential
/// privacy from below (Nasr et al., "Tight Auditing of Differentially Private Machine Learning",
/// 2023, section 4), and so epsilon at `delta`.
///
/// `release` takes a sum of shape `[dimension]` in lattice units and returns it with
/// noise, in units of the data. With 10^6 coordinates and a noise multiplier of 1 or less,
/// a noise that is a twentieth too small is found.
///
/// # Errors
/// Fewer than 1000 coordinates, a senseless delta or
/// confidence, no randomness, or a mechanism that fails.
pub fn canary<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    lattice: &Lattice,
    delta: f64,
    confidence: f64,
    release: impl FnOnce(&[i64]) -> Result<Vec<f64>, E>,
) -> Result<AuditReport, AuditError> {
    check_dimension(lattice, 1000)?;
    check_confidence(confidence)?;
    if !(delta > 0.0 && delta < 1.0) {
        return Err(AuditError::Delta { delta });
    }
    let canaries = lattice.dimension();
    let mut coins = SecureRng::new()?;
    let members: Vec<bool> = (0..canaries).map(|_| coins.next_u32() & 1 == 1).collect();
    let radius = lattice.radius() as i64;
    let sum: Vec<i64> = members.iter().map(|&member| if member { radius } else { 0 }).collect();
    let scores = released(release(&sum), lattice)?;
    let (seen, unseen) = scores.split_at(canaries / 2);
    let (seen_members, unseen_members) = members.split_at(canaries / 2);
    // Both error rates share what the confidence leaves.
    let each = 1.0 - (1.0 - confidence) / 2.0;
    let threshold = best_threshold(seen, seen_members, radius as f64, each);
    let mu = mu_bound(unseen, unseen_members, threshold, each);
    Ok(AuditReport {
        canaries,
        delta,
        confidence,
        claimed: gaussian::epsilon(1.0 / lattice.noise_multiplier(), delta),
        lower_bound: if mu > 0.0 { gaussian::epsilon(mu, delta) } else { 0.0 },
    })
}

/// The threshold, between "no canary" and "canary", that gives the largest bound.
fn best_threshold(scores: &[f64], members: &[bool], radius: f64, confidence: f64) -> f64 {
    let candidates = (0..THRESHOLDS).map(|i| radius * f64::from(i) / f64::from(THRESHOLDS - 1));
    let judged = candidates.map(|threshold| (threshold, mu_bound(scores, members, threshold, confidence)));
    judged.fold((0.0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best }).0
}

/// mu >= quantile(1 - FPR) - quantile(FNR), with upper bounds on both rates.
fn mu_bound(scores: &[f64], members: &[bool], threshold: f64, confidence: f64) -> f64 {
    let mut present = 0;
    let mut missed = 0;
    let mut absent = 0;
    let mut false_alarms = 0;
    for (&score, &member) in scores.iter().zip(members) {
        if member {
            present += 1;
            missed += usize::from(score < threshold);
        } else {
            absent += 1;
            false_alarms += usize::from(score >= threshold);
        }
    }
    let missed = upper_bound(missed, present, confidence);
    let false_alarms = upper_bound(false_alarms, absent, confidence);
    if missed >= 1.0 || false_alarms >= 1.0 {
        return f64::NEG_INFINITY;
    }
    upper_quantile(missed) + upper_quantile(false_alarms)
}
