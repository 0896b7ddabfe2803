//! A frozen matrix: as numbers, or packed in fewer bits and unpacked whenever it is used.

use tch::{Device, Kind, Tensor};

use crate::error::TrainerError;

/// A matrix in a quantised form.
pub trait Packed {
    /// Rows and columns.
    fn size(&self) -> (i64, i64);

    /// Bytes it takes in memory.
    fn bytes(&self) -> usize;

    /// All numbers, `[rows, columns]`.
    fn dense(&self, kind: Kind, device: Device) -> Result<Tensor, TrainerError>;

    /// Some rows, `[n, columns]`; `rows` `[n]`.
    fn rows(&self, rows: &[i64], kind: Kind, device: Device) -> Result<Tensor, TrainerError>;
}

/// A frozen matrix, `[out, in]`.
pub enum Weight {
    /// As numbers.
    Dense(Tensor),
    /// Packed; unpacked to `kind` on `device` for each use.
    Packed {
        /// The numbers.
        packed: Box<dyn Packed>,
        /// What they become.
        kind: Kind,
        /// Where they are used.
        device: Device,
    },
}

impl Weight {
    /// Rows and columns.
    ///
    /// # Errors
    /// It is no matrix.
    pub fn size(&self) -> Result<(i64, i64), TrainerError> {
        match self {
            Self::Dense(weight) => Ok(weight.size2()?),
            Self::Packed { packed, .. } => Ok(packed.size()),
        }
    }

    /// The numbers, `[out, in]`: shared when dense, a fresh tensor when packed.
    ///
    /// # Errors
    /// A packed weight that cannot be unpacked.
    pub fn dense(&self) -> Result<Tensor, TrainerError> {
        match self {
            Self::Dense(weight) => Ok(weight.shallow_clone()),
            Self::Packed { packed, kind, device } => packed.dense(*kind, *device),
        }
    }

    /// The rows with these numbers, `[n, in]`; `rows` `[n]`.
    ///
    /// # Errors
    /// A row that is not there.
    pub fn rows(&self, rows: &Tensor) -> Result<Tensor, TrainerError> {
        match self {
            Self::Dense(weight) => Ok(weight.f_index_select(0, rows)?),
            Self::Packed { packed, kind, device } => {
                packed.rows(&Vec::<i64>::try_from(&rows.f_to_device(Device::Cpu)?)?, *kind, *device)
            }
        }
    }

    /// True when every use unpacks it, so that a gradient's tape would hold a second copy.
    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Packed { .. })
    }

    /// What it computes in.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Dense(weight) => weight.kind(),
            Self::Packed { kind, .. } => *kind,
        }
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device(),
            Self::Packed { device, .. } => *device,
        }
    }
}
