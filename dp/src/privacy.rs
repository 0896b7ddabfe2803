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

/// What a run promises. "No privacy" is a value like
/// the others: it is chosen, recorded and reported.
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
        /// Standard deviation of the noise in units of the clip; absent = each data owner takes the
        /// least that spends the budget over the whole run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noise_multiplier: Option<f64>,
        /// L2 clip norm of one example's statistic in a warm-up that reads data, which is then one
        /// more release; absent = no warm-up reads data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm_up_clip: Option<f64>,
    },
    /// (epsilon, delta)-differential privacy for all data of one client together.
    Client {
        /// Bound on the log-likelihood ratio, over the whole run.
        epsilon: f64,
        /// Probability with which the bound may fail.
        delta: f64,
        /// L2 clip norm of what one client changes in a round, over all tensors it sends together.
        clip: f64,
        /// Standard deviation of the noise in units of the clip; absent = the
        /// least that spends the budget over the whole run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noise_multiplier: Option<f64>,
        /// Chance with which every client that is there, by its own coin, is in a round's cohort;
        /// absent = cohorts are drawn in any way, and nothing is gained by the draw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sampling_rate: Option<f64>,
        /// Share of the clients' changes that is to be within the clip, which then
        /// starts at `clip` and moves; absent = it stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_quantile: Option<f64>,
        /// L2 clip norm of one client's statistic in a warm-up that reads data, which is then one
        /// more release; absent = no warm-up reads data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm_up_clip: Option<f64>,
    },
}

/// The numbers of a promise, as a run file spells them: see [`Privacy`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Bound on the log-likelihood ratio, over the whole run.
    pub epsilon: f64,
    /// Probability with which the bound may fail.
    pub delta: f64,
    /// L2 clip norm of what is protected.
    pub clip: f64,
    /// Standard deviation of the noise in units of the clip.
    pub noise_multiplier: Option<f64>,
    /// Of unit "client": chance with which a client is in a cohort.
    pub sampling_rate: Option<f64>,
    /// Of unit "client": share of the changes that is to be within the clip.
    pub clip_quantile: Option<f64>,
    /// L2 clip norm of what is protected in a warm-up that reads data.
    pub warm_up_clip: Option<f64>,
}

impl Terms {
    /// A budget and a clip; the rest is left to whoever keeps the promise.
    pub const fn new(epsilon: f64, delta: f64, clip: f64) -> Self {
        Self {
            epsilon,
            delta,
            clip,
            noise_multiplier: None,
            sampling_rate: None,
            clip_quantile: None,
            warm_up_clip: None,
        }
    }
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
        /// "epsilon", "delta", "clip", "noise_multiplier", "sampling_rate", "clip_quantile" or
        /// "warm_up_clip".
        name: &'static str,
        /// The number that came.
        value: f64,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Terms of the other unit.
    #[error("privacy {name} is for unit \"client\": with unit \"example\" every data owner draws and clips on its own")]
    PerClient {
        /// "sampling_rate" or "clip_quantile".
        name: &'static str,
    },
}

impl Privacy {
    /// The policy for a unit ("example" or "client").
    ///
    /// # Errors
    /// An unknown unit; numbers that are not positive and finite; delta outside (0, 1), a sampling
    /// rate outside (0, 1], a quantile outside (0, 1); terms of unit "client" with another.
    pub fn new(unit: &str, terms: Terms) -> Result<Self, PrivacyError> {
        let Terms { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } = terms;
        positive("epsilon", epsilon)?;
        share("delta", delta)?;
        positive("clip", clip)?;
        noise_multiplier.map_or(Ok(()), |noise| positive("noise_multiplier", noise))?;
        warm_up_clip.map_or(Ok(()), |clip| positive("warm_up_clip", clip))?;
        match unit.parse()? {
            Unit::Example => {
                for (name, value) in [("sampling_rate", sampling_rate), ("clip_quantile", clip_quantile)] {
                    value.map_or(Ok(()), |_| Err(PrivacyError::PerClient { name }))?;
                }
                Ok(Self::Example { epsilon, delta, clip, noise_multiplier, warm_up_clip })
            }
            Unit::Client => {
                let rate = sampling_rate.unwrap_or(1.0);
                if !(rate > 0.0 && rate <= 1.0) {
                    let allowed = "above 0 and at most 1";
                    return Err(PrivacyError::Value { name: "sampling_rate", value: rate, allowed });
                }
                clip_quantile.map_or(Ok(()), |quantile| share("clip_quantile", quantile))?;
                Ok(Self::Client { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip })
            }
        }
    }

    /// Whether anything is promised.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// L2 clip norm of what is protected in a warm-up that reads data and pays for it.
    pub fn warm_up_clip(&self) -> Option<f64> {
        match *self {
            Self::None => None,
            Self::Example { warm_up_clip, .. } | Self::Client { warm_up_clip, .. } => warm_up_clip,
        }
    }

    /// The promise in one line, as every report carries it.
    pub fn statement(&self) -> String {
        let (unit, epsilon, delta, clip, quantile) = match *self {
            Self::None => return "no privacy".to_owned(),
            Self::Example { epsilon, delta, clip, .. } => (Unit::Example, epsilon, delta, clip, None),
            Self::Client { epsilon, delta, clip, clip_quantile, .. } => {
                (Unit::Client, epsilon, delta, clip, clip_quantile)
            }
        };
        let moves = quantile.map(|share| format!(" at first, then moving to quantile {share}")).unwrap_or_default();
        let warm_up = self.warm_up_clip().map(|clip| format!(", warm-up clip {clip}")).unwrap_or_default();
        format!("({epsilon}, {delta:e})-differential privacy per {unit}, clip {clip}{moves}{warm_up}")
    }
}

fn share(name: &'static str, value: f64) -> Result<(), PrivacyError> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(PrivacyError::Value { name, value, allowed: "above 0 and below 1" })
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

    const TERMS: Terms = Terms::new(3.0, 1e-5, 1.0);

    #[test]
    fn a_promise_is_said() {
        assert_eq!(Privacy::default().statement(), "no privacy");
        let said = |unit, terms| Privacy::new(unit, terms).unwrap().statement();
        assert_eq!(said("example", TERMS), "(3, 1e-5)-differential privacy per example, clip 1");
        let terms = Terms { noise_multiplier: Some(2.0), sampling_rate: Some(0.1), ..TERMS };
        assert_eq!(said("client", terms), "(3, 1e-5)-differential privacy per client, clip 1");
        let moving = said("client", Terms { clip_quantile: Some(0.5), ..TERMS });
        assert!(moving.ends_with("clip 1 at first, then moving to quantile 0.5"), "{moving}");
    }

    #[test]
    fn coins_and_quantiles_are_for_clients() {
        let coins = Terms { sampling_rate: Some(0.1), ..TERMS };
        let quantile = Terms { clip_quantile: Some(0.5), ..TERMS };
        for (terms, name) in [(coins, "sampling_rate"), (quantile, "clip_quantile")] {
            Privacy::new("client", terms).unwrap();
            assert_eq!(Privacy::new("example", terms), Err(PrivacyError::PerClient { name }));
        }
    }

    #[test]
    fn senseless_numbers_are_refused() {
        assert!(Privacy::new("row", TERMS).is_err());
        let senseless = [
            Terms::new(0.0, 1e-5, 1.0),
            Terms::new(f64::NAN, 1e-5, 1.0),
            Terms::new(1.0, 0.0, 1.0),
            Terms::new(1.0, 1.0, 1.0),
            Terms::new(1.0, 1e-5, f64::INFINITY),
            Terms { noise_multiplier: Some(0.0), ..TERMS },
            Terms { sampling_rate: Some(0.0), ..TERMS },
            Terms { sampling_rate: Some(1.1), ..TERMS },
            Terms { sampling_rate: Some(f64::NAN), ..TERMS },
            Terms { clip_quantile: Some(0.0), ..TERMS },
            Terms { clip_quantile: Some(1.0), ..TERMS },
            Terms { warm_up_clip: Some(0.0), ..TERMS },
            Terms { warm_up_clip: Some(f64::INFINITY), ..TERMS },
        ];
        for terms in senseless {
            assert!(Privacy::new("client", terms).is_err(), "{terms:?}");
        }
    }
}
