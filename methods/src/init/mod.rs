//! Where tensors start: from the run's seed, from factors of the base
//! weight, or from an estimate of the first gradient.

pub mod base_factors;
pub mod base_svd;
pub mod gradient_sketch;
pub mod seeded;
pub mod update_approximation;
