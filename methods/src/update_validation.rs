//! An uploaded update is checked before it counts.

use std::path::Path;

use rondo_proto::manifest::diff;
use rondo_proto::wording::SettingKey;

use crate::at::Instance;
use crate::change::{RoundStart, norm};
use crate::error::MethodError;
use crate::file::{FileError, TensorFile};
use crate::job::{Job, Kind};

/// What validation finds out about an update that it accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateFacts {
    /// L2 norm over all its tensors.
    pub norm: f64,
}

/// Why an update was refused.
#[derive(Debug, thiserror::Error)]
pub enum UpdateRefusal {
    /// The run has no warm-up.
    #[error("a warm-up statistic came, but method `{0}` has no warm-up")]
    NoWarmUp(String),
    /// The rank is not one this run takes.
    #[error(transparent)]
    Rank(MethodError),
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// Names, shapes or dtypes differ from the layout.
    #[error("the update does not fit the layout of method `{method}` at rank {rank}: {difference}")]
    Manifest {
        /// The method.
        method: String,
        /// The rank the update was announced with.
        rank: usize,
        /// What differs, in words.
        difference: String,
    },
    /// A number is NaN or infinite.
    #[error("tensor `{tensor}` holds {value} at position {position}: training diverged, lower {}", SettingKey::Lr.quoted())]
    NotFinite {
        /// Full name.
        tensor: String,
        /// Row-major index.
        position: usize,
        /// The number.
        value: f32,
    },
    /// The update is larger than the run allows.
    #[error("the update's norm {norm:.6} is above `rounds.max_update_norm` = {limit}")]
    Norm {
        /// Its norm.
        norm: f64,
        /// The limit.
        limit: f64,
    },
    /// The client did not clip.
    #[error("the update arrives unclipped: its change is larger than {clip}, at which the round clips")]
    Unclipped {
        /// The round's clip. The message does not say how much larger the change is: records and
        /// events quote this error.
        clip: f64,
    },
}

/// How far above the clip the norm of a change may lie, as a share of it, beside what the wire's
/// rounding does.
const CLIP_SLACK: f64 = 1e-3;

impl RoundStart {
    /// Checks that an update which passed [`Job::check_update`] arrives clipped. The sum clips it
    /// once more, whatever comes.
    ///
    /// # Errors
    /// [`UpdateRefusal::Unclipped`], or a file that cannot be read.
    pub fn check_clipped(&self, update: &Path, clip: f64) -> Result<(), UpdateRefusal> {
        let mut change = Vec::with_capacity(self.dimension());
        self.change(update, &mut change)?;
        let norm = norm(change.iter().copied());
        if norm <= clip * (1.0 + CLIP_SLACK) + self.rounding(clip) {
            return Ok(());
        }
        Err(UpdateRefusal::Unclipped { clip })
    }
}

impl Job {
    /// Checks an uploaded file: manifest equal to the layout, every number finite, the Euclidean
    /// norm of all numbers at most `max_norm`. Holds a small block of numbers in memory, never a
    /// tensor.
    ///
    /// # Errors
    /// The run has no warm-up or does not take this rank, the file cannot be read or differs from
    /// the layout, a number is not finite, or the norm is above `max_norm`.
    pub fn check_update(
        &self,
        kind: Kind,
        instance: Instance<'_>,
        path: &Path,
        max_norm: Option<f64>,
    ) -> Result<UpdateFacts, UpdateRefusal> {
        if kind == Kind::WarmUp && !self.needs_warm_up() {
            return Err(UpdateRefusal::NoWarmUp(self.method().id().to_owned()));
        }
        let rank = self.client_rank(instance.rank.unwrap_or(0)).map_err(UpdateRefusal::Rank)?;
        let file = TensorFile::open(path)?;
        let got = file.entries();
        if let Some(difference) = diff(&self.upload_manifest(kind, instance), &got) {
            return Err(UpdateRefusal::Manifest { method: self.method().id().to_owned(), rank, difference });
        }
        let mut squares = 0.0;
        for entry in &got {
            let mut position = 0;
            let mut broken = None;
            file.for_each_block(&entry.name, |block| {
                if broken.is_none()
                    && let Some(index) = block.iter().position(|x| !x.is_finite())
                {
                    broken = Some((position + index, block[index]));
                }
                position += block.len();
                squares += block.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            })?;
            if let Some((position, value)) = broken {
                return Err(UpdateRefusal::NotFinite { tensor: entry.name.clone(), position, value });
            }
        }
        let norm = squares.sqrt();
        match max_norm {
            Some(limit) if norm > limit => Err(UpdateRefusal::Norm { norm, limit }),
            _ => Ok(UpdateFacts { norm }),
        }
    }
}
