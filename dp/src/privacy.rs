//! The privacy policy of a run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whose data one unit of protection covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// One training example; the client clips and noises every gradient.
    Example,
    /// All data of one client; the whole update is clipped and the sum is noised.
    Client,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Example => "example",
            Self::Client => "client",
        })
    }
}

impl FromStr for Unit {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        match text {
            "example" => Ok(Self::Example),
            "client" => Ok(Self::Client),
            other => Err(PrivacyError::UnknownUnit { unit: other.to_owned() }),
        }
    }
}

/// What a run promises. "No privacy" is a value like the others: it is chosen, recorded and reported.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "unit", rename_all = "kebab-case")]
pub enum Privacy {
    /// Nothing is promised.
    #[default]
    None,
    /// (epsilon, delta)-differential privacy for every single example.
    Example {
        /// Bound on the log-likelihood ratio, over the whole run.
        epsilon: f64,
        /// Probability with which the bound may fail.
        delta: f64,
        /// L2 clip norm of one example's gradient.
        clip: f64,
        /// Standard deviation of the noise in units of the clip; absent = each data owner takes the least that spends
        /// the budget over the whole run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noise_multiplier: Option<f64>,
    },
    /// (epsilon, delta)-differential privacy for all data of one client together.
    Client {
        /// Bound on the log-likelihood ratio, over the whole run.
        epsilon: f64,
        /// Probability with which the bound may fail.
        delta: f64,
        /// L2 clip norm of what one client changes in a round, over all tensors it sends together.
        clip: f64,
        /// Standard deviation of the noise in units of the clip; absent = the least that spends the budget over the
        /// whole run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noise_multiplier: Option<f64>,
        /// Chance with which every client that is there, by its own coin, is in a round's cohort; absent = cohorts are
        /// drawn in any way, and nothing is gained by the draw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sampling_rate: Option<f64>,
    },
}

/// Why a privacy policy was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrivacyError {
    /// A unit nobody knows.
    #[error("privacy unit {unit:?} is not known: use \"example\" or \"client\"")]
    UnknownUnit {
        /// The text that came.
        unit: String,
    },
    /// A number outside what makes sense.
    #[error("privacy {name} is {value}: it must be {allowed}")]
    Value {
        /// "epsilon", "delta", "clip", "noise_multiplier" or "sampling_rate".
        name: &'static str,
        /// The number that came.
        value: f64,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Cohorts by coins, where the promise does not rest on cohorts.
    #[error("privacy sampling_rate is for unit \"client\": with unit \"example\" every client draws its own batches")]
    Sampling,
}

impl Privacy {
    /// The policy for a unit ("example" or "client") and a budget.
    ///
    /// # Errors
    /// An unknown unit; epsilon or clip that is not positive and finite; delta outside (0, 1).
    pub fn new(unit: &str, epsilon: f64, delta: f64, clip: f64) -> Result<Self, PrivacyError> {
        let unit: Unit = unit.parse()?;
        positive("epsilon", epsilon)?;
        positive("clip", clip)?;
        if !(delta > 0.0 && delta < 1.0) {
            return Err(PrivacyError::Value { name: "delta", value: delta, allowed: "above 0 and below 1" });
        }
        Ok(match unit {
            Unit::Example => Self::Example { epsilon, delta, clip, noise_multiplier: None },
            Unit::Client => Self::Client { epsilon, delta, clip, noise_multiplier: None, sampling_rate: None },
        })
    }

    /// The same with a fixed noise multiplier, in units of the clip.
    ///
    /// # Errors
    /// One that is not positive and finite.
    pub fn with_noise(self, noise: Option<f64>) -> Result<Self, PrivacyError> {
        noise.map_or(Ok(()), |noise| positive("noise_multiplier", noise))?;
        Ok(match self {
            Self::None => Self::None,
            Self::Example { epsilon, delta, clip, .. } => {
                Self::Example { epsilon, delta, clip, noise_multiplier: noise }
            }
            Self::Client { epsilon, delta, clip, sampling_rate, .. } => {
                Self::Client { epsilon, delta, clip, noise_multiplier: noise, sampling_rate }
            }
        })
    }

    /// The same with cohorts drawn by coins.
    ///
    /// # Errors
    /// A rate outside (0, 1]; a rate for anything but [`Privacy::Client`].
    pub fn with_sampling(self, rate: Option<f64>) -> Result<Self, PrivacyError> {
        let Some(value) = rate else { return Ok(self) };
        if !(value > 0.0 && value <= 1.0) {
            return Err(PrivacyError::Value { name: "sampling_rate", value, allowed: "above 0 and at most 1" });
        }
        match self {
            Self::Client { epsilon, delta, clip, noise_multiplier, .. } => {
                Ok(Self::Client { epsilon, delta, clip, noise_multiplier, sampling_rate: rate })
            }
            Self::None | Self::Example { .. } => Err(PrivacyError::Sampling),
        }
    }

    /// Whether anything is promised.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The promise in one line, as every report carries it.
    pub fn statement(&self) -> String {
        let (unit, epsilon, delta, clip) = match self {
            Self::None => return "no privacy".to_owned(),
            Self::Example { epsilon, delta, clip, .. } => (Unit::Example, epsilon, delta, clip),
            Self::Client { epsilon, delta, clip, .. } => (Unit::Client, epsilon, delta, clip),
        };
        format!("({epsilon}, {delta:e})-differential privacy per {unit}, clip {clip}")
    }
}

fn positive(name: &'static str, value: f64) -> Result<(), PrivacyError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(PrivacyError::Value { name, value, allowed: "positive and finite" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_said() {
        assert_eq!(Privacy::default().statement(), "no privacy");
        let privacy = Privacy::new("example", 3.0, 1e-5, 1.0).unwrap();
        assert_eq!(privacy.statement(), "(3, 1e-5)-differential privacy per example, clip 1");
        let privacy = Privacy::new("client", 3.0, 1e-5, 1.0).unwrap().with_noise(Some(2.0)).unwrap();
        assert_eq!(privacy.statement(), "(3, 1e-5)-differential privacy per client, clip 1");
        let sampled = privacy.with_sampling(Some(0.1)).unwrap();
        let Privacy::Client { noise_multiplier, sampling_rate, .. } = sampled else { panic!("{sampled:?}") };
        assert_eq!((noise_multiplier, sampling_rate), (Some(2.0), Some(0.1)));
    }

    #[test]
    fn coins_are_for_clients() {
        let of = |unit: &str| Privacy::new(unit, 3.0, 1e-5, 1.0).unwrap();
        let (example, client) = (of("example"), of("client"));
        assert_eq!(example.with_sampling(Some(0.1)), Err(PrivacyError::Sampling));
        assert_eq!(Privacy::None.with_sampling(Some(0.1)), Err(PrivacyError::Sampling));
        assert_eq!(example.with_sampling(None), Ok(example));
        for rate in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(client.with_sampling(Some(rate)).is_err(), "{rate}");
        }
        assert!(client.with_noise(Some(0.0)).is_err());
    }

    #[test]
    fn senseless_numbers_are_refused() {
        assert!(Privacy::new("row", 1.0, 1e-5, 1.0).is_err());
        for (epsilon, delta, clip) in
            [(0.0, 1e-5, 1.0), (f64::NAN, 1e-5, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1e-5, f64::INFINITY)]
        {
            assert!(Privacy::new("client", epsilon, delta, clip).is_err(), "{epsilon} {delta} {clip}");
        }
    }
}
