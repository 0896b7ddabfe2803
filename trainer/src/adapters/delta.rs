//! A delta expression interpreted over libtorch tensors.

use std::collections::BTreeMap;

use rondo_methods::Delta;
use tch::{Device, Kind, Tensor};

use crate::batch::padding::Padding;
use crate::error::TrainerError;

/// Tensors of one target by part name, for example `lora_A` `[r, in]`.
pub type Parts = BTreeMap<String, Tensor>;

/// The tensors of a delta by part name.
pub(super) struct Factors {
    /// One for all texts.
    pub(super) shared: Parts,
    /// One copy per text, `[b, ...]`, and how the texts' tokens are laid out.
    pub(super) per_text: Option<(Parts, Padding)>,
}

/// The same tensors once more; they are shared.
pub(super) fn share(parts: &Parts) -> Parts {
    parts.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// `x dW^T`, factor by factor. Shapes: `x` `[n, in]`, result `[n, out]`, of the kind of `x`.
///
/// # Errors
/// A part that is absent, shapes that do not chain.
pub fn apply(delta: &Delta, parts: &Parts, x: &Tensor) -> Result<Tensor, TrainerError> {
    interpret(delta, &Factors { shared: share(parts), per_text: None }, x, false, 1.0)
}

/// dW itself, `[out, in]`, in f32: the delta applied to the identity.
///
/// # Errors
/// As of [`apply`].
pub fn dense(delta: &Delta, parts: &Parts, inp: i64, device: Device) -> Result<Tensor, TrainerError> {
    let identity = Tensor::f_eye(inp, (Kind::Float, device))?;
    Ok(apply(delta, parts, &identity)?.f_tr()?.f_contiguous()?)
}

/// `scale * x D^T`, or `scale * x D` when `transposed`.
pub(super) fn interpret(
    delta: &Delta,
    factors: &Factors,
    x: &Tensor,
    transposed: bool,
    scale: f64,
) -> Result<Tensor, TrainerError> {
    let scaled = |y: Tensor| if scale == 1.0 { Ok(y) } else { y.f_mul_scalar(scale) };
    match delta {
        Delta::Mat(name) => Ok(scaled(factors.times(name, x, transposed)?)?),
        Delta::Diag(name) => Ok(scaled(factors.diagonal_times(name, x)?)?),
        Delta::Comb { weights, basis } => Ok(scaled(factors.combination_times(weights, basis, x, transposed)?)?),
        Delta::Transpose(inner) => interpret(inner, factors, x, !transposed, scale),
        Delta::Scale(factor, inner) => interpret(inner, factors, x, transposed, scale * factor),
        Delta::Product(product) => {
            // The scale goes with the first factor met, whose result is the narrow one in a
            // low-rank product.
            let mut y = x.shallow_clone();
            let mut scale = scale;
            let mut step = |factor| -> Result<(), TrainerError> {
                y = interpret(factor, factors, &y, transposed, scale)?;
                scale = 1.0;
                Ok(())
            };
            if transposed {
                product.iter().try_for_each(&mut step)?
            } else {
                product.iter().rev().try_for_each(&mut step)?
            }
            Ok(if scale == 1.0 { y } else { y.f_mul_scalar(scale)? })
        }
        Delta::Sum(terms) => {
            let mut sum: Option<Tensor> = None;
            for term in terms {
                let y = interpret(term, factors, x, transposed, scale)?;
                sum = Some(match sum {
                    Some(sum) => sum.f_add(&y)?,
                    None => y,
                });
            }
            sum.ok_or_else(|| TrainerError::Tensor { name: "delta".into(), problem: "an empty sum".into() })
        }
    }
}

impl Factors {
    /// `x M^T` with the part M, or `x M` when `transposed`.
    fn times(&self, name: &str, x: &Tensor, transposed: bool) -> Result<Tensor, TrainerError> {
        if let Some((copies, padding)) = self.own(name) {
            let copies = of_kind(copies, x.kind())?;
            return padding.times(x, &if transposed { copies } else { copies.f_transpose(1, 2)? });
        }
        let matrix = of_kind(self.shared(name)?, x.kind())?;
        Ok(x.f_matmul(&if transposed { matrix } else { matrix.f_tr()? })?)
    }

    /// `x diag(v)` with the part v.
    fn diagonal_times(&self, name: &str, x: &Tensor) -> Result<Tensor, TrainerError> {
        if let Some((copies, padding)) = self.own(name) {
            return padding.times(x, &of_kind(copies, x.kind())?.f_diag_embed(0, -2, -1)?);
        }
        Ok(x.f_mul(&of_kind(self.shared(name)?, x.kind())?)?)
    }

    /// `x M^T` with M = sum_j w_j M_j of the parts `weights` `[k]` and `basis`
    /// `[k, rows, columns]`, or `x M` when `transposed`. M is formed, once for all texts or once
    /// for each.
    fn combination_times(
        &self,
        weights: &str,
        basis: &str,
        x: &Tensor,
        transposed: bool,
    ) -> Result<Tensor, TrainerError> {
        // `[.., k, rows, columns]` with each matrix as one row, and its sizes.
        let flat = |matrices: &Tensor| -> Result<(Tensor, i64, i64), TrainerError> {
            match matrices.size()[..] {
                [.., _, rows, columns] => Ok((matrices.f_flatten(-2, -1)?, rows, columns)),
                _ => Err(TrainerError::Tensor { name: basis.to_owned(), problem: "it is no list of matrices".into() }),
            }
        };
        let (matrix, padding) = match (self.own(weights), self.own(basis)) {
            // [b, k] . [k, rows * columns]
            (Some((weights, padding)), None) => {
                let (basis, rows, columns) = flat(self.shared(basis)?)?;
                (weights.f_matmul(&basis)?.f_reshape([-1, rows, columns])?, Some(padding))
            }
            // [1, k] . [b, k, rows * columns]
            (None, Some((basis, padding))) => {
                let (basis, rows, columns) = flat(basis)?;
                let weights = self.shared(weights)?.f_unsqueeze(0)?;
                (weights.f_matmul(&basis)?.f_reshape([-1, rows, columns])?, Some(padding))
            }
            // [b, 1, k] . [b, k, rows * columns]
            (Some((weights, _)), Some((basis, padding))) => {
                let (basis, rows, columns) = flat(basis)?;
                let weights = weights.f_unsqueeze(1)?;
                (weights.f_matmul(&basis)?.f_reshape([-1, rows, columns])?, Some(padding))
            }
            (None, None) => {
                let (basis, rows, columns) = flat(self.shared(basis)?)?;
                (self.shared(weights)?.f_matmul(&basis)?.f_reshape([rows, columns])?, None)
            }
        };
        let matrix = of_kind(&matrix, x.kind())?;
        match padding {
            Some(padding) => padding.times(x, &if transposed { matrix } else { matrix.f_transpose(1, 2)? }),
            None => Ok(x.f_matmul(&if transposed { matrix } else { matrix.f_tr()? })?),
        }
    }

    fn own(&self, name: &str) -> Option<(&Tensor, &Padding)> {
        let (copies, padding) = self.per_text.as_ref()?;
        Some((copies.get(name)?, padding))
    }

    fn shared(&self, name: &str) -> Result<&Tensor, TrainerError> {
        self.shared.get(name).ok_or_else(|| TrainerError::Tensor {
            name: name.to_owned(),
            problem: "the delta names it, but it is absent".into(),
        })
    }
}

/// The tensor as the expression's input kind: adapters stay f32 when the model computes in bf16.
fn of_kind(tensor: &Tensor, kind: Kind) -> Result<Tensor, TrainerError> {
    if tensor.kind() == kind { Ok(tensor.shallow_clone()) } else { Ok(tensor.f_to_kind(kind)?) }
}
