//! The noise itself: its size, and that it is new every time.

use serde::Serialize;

use super::interval::upper_quantile;
use super::{AuditError, check_confidence, check_dimension, released};
use crate::lattice::Lattice;

/// What [`noise_scale`] found. It is about noise on zeros, and holds no data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleReport {
    /// Noise drawn, in each of two releases.
    pub coordinates: usize,
    /// Standard deviation of the noise over the one claimed.
    pub ratio: f64,
    /// The window in which the ratio lies with the confidence asked for, if the claim is true.
    pub window: (f64, f64),
    /// Correlation of the two releases.
    pub correlation: f64,
    /// How far from zero the correlation lies at most, with that confidence.
    pub correlation_bound: f64,
    /// Whether the two releases were the same.
    pub repeated: bool,
}

impl ScaleReport {
    /// Whether nothing speaks against the claim.
    pub fn passed(&self) -> bool {
        let (low, high) = self.window;
        !self.repeated && (low..=high).contains(&self.ratio) && self.correlation.abs() <= self.correlation_bound
    }
}

/// Releases zeros twice and compares the noise with what `lattice` claims, at two-sided
/// `confidence` for the size and again for the correlation. `release` takes a sum of shape
/// `[dimension]` in lattice units and returns it with noise, in units of the data.
///
/// # Errors
/// Fewer than 1000 coordinates, a senseless confidence, or a mechanism that fails.
pub fn noise_scale<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    lattice: &Lattice,
    confidence: f64,
    mut release: impl FnMut(&[i64]) -> Result<Vec<f64>, E>,
) -> Result<ScaleReport, AuditError> {
    check_dimension(lattice, 1000)?;
    check_confidence(confidence)?;
    let zeros = vec![0; lattice.dimension()];
    let first = released(release(&zeros), lattice)?;
    let second = released(release(&zeros), lattice)?;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let energy_a = product(&first, &first);
    let energy_b = product(&second, &second);
    let coordinates = lattice.dimension();
    let n = coordinates as f64;
    let quantile = upper_quantile((1.0 - confidence) / 2.0);
    // The sample deviation over 2 n numbers has a relative standard error of 1 / sqrt(4 n).
    let half_width = quantile / (4.0 * n).sqrt();
    let correlation =
        if energy_a > 0.0 && energy_b > 0.0 { product(&first, &second) / (energy_a * energy_b).sqrt() } else { 0.0 };
    Ok(ScaleReport {
        coordinates,
        ratio: ((energy_a + energy_b) / (2.0 * n)).sqrt() / lattice.scale() as f64,
        window: (1.0 - half_width, 1.0 + half_width),
        correlation,
        correlation_bound: quantile / n.sqrt(),
        repeated: first == second,
    })
}
