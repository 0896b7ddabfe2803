//! How tokens are drawn, as options of `generate` and `chat`.

use clap::Args;
use rondo_trainer::generate::sampling::Sampling;

use super::error::OfflineError;

/// How tokens are drawn.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Most tokens generated
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_new_tokens: usize,
    /// Logits are divided by it; 0 takes the likeliest
    /// token [default: 0 for generate, 0.7 for chat]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Draw among the likeliest tokens whose probabilities sum to this
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Draw among so many of the likeliest tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Seed; the same seed draws the same text on one machine
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

impl SamplingArgs {
    /// The options, checked.
    pub(super) fn sampling(&self, temperature: f64) -> Result<Sampling, OfflineError> {
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(temperature),
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
        };
        match sampling.problem() {
            None => Ok(sampling),
            Some((option, problem)) => Err(OfflineError::Value { option, problem }),
        }
    }
}
