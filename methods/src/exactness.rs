//! The aggregation error: how far the aggregate's delta is from the dense weighted mean of the
//! clients' deltas.

use crate::linalg::Matrix;

/// ||D - M||_F / ||M||_F over all targets, D the delta of what was published and M = sum_k w_k dW_k, both dense in f64.
#[derive(Debug, Clone, Copy, Default)]
pub struct AggregationError {
    difference: f64,
    mean: f64,
}

impl AggregationError {
    /// Adds one target.
    pub fn add(&mut self, published: &Matrix, mean: &Matrix) {
        let mut difference = published.clone();
        difference.add_scaled(-1.0, mean);
        self.difference += difference.norm().powi(2);
        self.mean += mean.norm().powi(2);
    }

    /// The relative error; `None` when the mean is zero and the aggregate is not.
    pub fn relative(&self) -> Option<f64> {
        if self.difference == 0.0 {
            Some(0.0)
        } else if self.mean > 0.0 {
            Some((self.difference / self.mean).sqrt())
        } else {
            None
        }
    }
}
