//! The delta expression: what turns a method's tensors into
//! the change dW `[out, in]` of a target's weight.
//!
//! A formula stands once, as data: `Scale(alpha / r, Product[Mat("lora_B"), Mat("lora_A")])`. It is
//! evaluated densely to merge, applied to x factor by factor in a forward pass, folded into two
//! factors for the stack law and the export, and printed for people.

mod evaluate;

use std::fmt;

pub use evaluate::Folded;

/// An expression over the part names of one target.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// A matrix part.
    Mat(String),
    /// A vector part `[n]` as a diagonal matrix `[n, n]`.
    Diag(String),
    /// The transpose.
    Transpose(Box<Delta>),
    /// A number times an expression.
    Scale(f64, Box<Delta>),
    /// A matrix product, left to right; never empty.
    Product(Vec<Delta>),
    /// A sum; never empty.
    Sum(Vec<Delta>),
    /// A linear combination sum_j w_j M_j of matrices.
    Comb {
        /// The part with the weights w, `[k]`.
        weights: String,
        /// The part with the matrices M_1 ... M_k, `[k, rows, columns]`.
        basis: String,
    },
}

/// Why an expression could not be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeltaError {
    /// A part that the expression names is not there.
    #[error("part `{0}` is not there")]
    Missing(String),
    /// A part has the wrong number of dimensions.
    #[error("part `{part}` has shape {shape:?}, the expression needs {needs}")]
    Dimensions {
        /// The part.
        part: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What was expected.
        needs: &'static str,
    },
    /// Factors or terms that do not fit each other.
    #[error("`{left}` is {left_shape:?} and `{right}` is {right_shape:?}: they cannot be {joined}")]
    Shapes {
        /// First expression.
        left: String,
        /// Its shape.
        left_shape: (usize, usize),
        /// Second expression.
        right: String,
        /// Its shape.
        right_shape: (usize, usize),
        /// "multiplied", "added" or "combined".
        joined: &'static str,
    },
    /// A product or a sum of nothing.
    #[error("a product or a sum without members")]
    Empty,
}

impl Delta {
    /// A matrix part.
    pub fn mat(part: &str) -> Self {
        Self::Mat(part.to_owned())
    }

    /// A product of matrix parts.
    pub fn product(parts: &[&str]) -> Self {
        Self::Product(parts.iter().map(|part| Self::mat(part)).collect())
    }

    /// A linear combination: the weights' part `[k]`, the matrices' part `[k, rows, columns]`.
    pub fn comb(weights: &str, basis: &str) -> Self {
        Self::Comb { weights: weights.to_owned(), basis: basis.to_owned() }
    }

    /// This expression times a number.
    pub fn scaled(self, scale: f64) -> Self {
        if scale == 1.0 { self } else { Self::Scale(scale, Box::new(self)) }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self::Transpose(Box::new(self))
    }

    /// Scale, outer and inner part of an expression that is
    /// `scale * outer . inner`; of any other `None`.
    pub fn pair(&self) -> Option<(f64, &str, &str)> {
        match self {
            Self::Scale(factor, inner) => inner.pair().map(|(scale, outer, inner)| (factor * scale, outer, inner)),
            Self::Product(members) => match members.as_slice() {
                [Self::Mat(outer), Self::Mat(inner)] => Some((1.0, outer, inner)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Names of all parts, in order of appearance, each once.
    pub fn parts(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect_parts(&mut found);
        found
    }

    fn collect_parts<'a>(&'a self, found: &mut Vec<&'a str>) {
        let mut add = |part: &'a str| {
            if !found.contains(&part) {
                found.push(part);
            }
        };
        match self {
            Self::Mat(part) | Self::Diag(part) => add(part),
            Self::Comb { weights, basis } => {
                add(weights);
                add(basis);
            }
            Self::Transpose(inner) | Self::Scale(_, inner) => inner.collect_parts(found),
            Self::Product(members) | Self::Sum(members) => {
                members.iter().for_each(|member| member.collect_parts(found));
            }
        }
    }

    /// Shape `(rows, columns)` of the value, given the shapes of the parts; also checks that
    /// everything fits.
    ///
    /// # Errors
    /// A part is missing or has the wrong number of dimensions, factors or terms do not fit each
    /// other, or a product or sum has no members.
    pub fn shape(&self, of: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<(usize, usize), DeltaError> {
        let look = |part: &str| of(part).ok_or_else(|| DeltaError::Missing(part.to_owned()));
        match self {
            Self::Mat(part) => match look(part)?.as_slice() {
                [rows, cols] => Ok((*rows, *cols)),
                shape => Err(dimensions(part, shape, "a matrix")),
            },
            Self::Diag(part) => match look(part)?.as_slice() {
                [n] => Ok((*n, *n)),
                shape => Err(dimensions(part, shape, "a vector")),
            },
            Self::Comb { weights, basis } => {
                let (count, matrices) = (look(weights)?, look(basis)?);
                match (count.as_slice(), matrices.as_slice()) {
                    ([count], [same, rows, cols]) if count == same => Ok((*rows, *cols)),
                    ([count], [other, rows, cols]) => Err(DeltaError::Shapes {
                        left: weights.clone(),
                        left_shape: (1, *count),
                        right: basis.clone(),
                        right_shape: (*other, rows * cols),
                        joined: "combined",
                    }),
                    ([_], shape) => Err(dimensions(basis, shape, "a list of matrices")),
                    (shape, _) => Err(dimensions(weights, shape, "a vector")),
                }
            }
            Self::Transpose(inner) => inner.shape(of).map(|(rows, cols)| (cols, rows)),
            Self::Scale(_, inner) => inner.shape(of),
            Self::Product(members) => {
                let mut members = members.iter();
                let mut left = members.next().ok_or(DeltaError::Empty)?;
                let (rows, mut inner) = left.shape(of)?;
                for right in members {
                    let shape = right.shape(of)?;
                    if shape.0 != inner {
                        return Err(mismatch(left, (rows, inner), right, shape, "multiplied"));
                    }
                    (left, inner) = (right, shape.1);
                }
                Ok((rows, inner))
            }
            Self::Sum(members) => {
                let mut members = members.iter();
                let first = members.next().ok_or(DeltaError::Empty)?;
                let shape = first.shape(of)?;
                for other in members {
                    let next = other.shape(of)?;
                    if next != shape {
                        return Err(mismatch(first, shape, other, next, "added"));
                    }
                }
                Ok(shape)
            }
        }
    }

    /// The middle dimension that [`Delta::fold`] will have, given the shapes of the parts.
    ///
    /// # Errors
    /// As [`Delta::shape`].
    pub fn folded_rank(&self, of: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<usize, DeltaError> {
        self.shape(of)?;
        match self {
            Self::Scale(_, inner) | Self::Transpose(inner) => inner.folded_rank(of),
            Self::Product(members) if members.len() > 1 => {
                let rows = members[1..].iter().map(|member| member.shape(of).map(|shape| shape.0));
                rows.collect::<Result<Vec<_>, _>>()?.into_iter().min().ok_or(DeltaError::Empty)
            }
            Self::Sum(members) => members.iter().map(|member| member.folded_rank(of)).sum(),
            Self::Mat(_) | Self::Diag(_) | Self::Comb { .. } | Self::Product(_) => {
                self.shape(of).map(|(rows, cols)| rows.min(cols))
            }
        }
    }
}

fn dimensions(part: &str, shape: &[usize], needs: &'static str) -> DeltaError {
    DeltaError::Dimensions { part: part.to_owned(), shape: shape.to_vec(), needs }
}

fn mismatch(
    left: &Delta,
    left_shape: (usize, usize),
    right: &Delta,
    right_shape: (usize, usize),
    joined: &'static str,
) -> DeltaError {
    DeltaError::Shapes { left: left.to_string(), left_shape, right: right.to_string(), right_shape, joined }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, members: &[Delta], sign: &str| {
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    f.write_str(sign)?;
                }
                match member {
                    Self::Sum(_) => write!(f, "({member})")?,
                    _ => write!(f, "{member}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Mat(part) => f.write_str(part),
            Self::Diag(part) => write!(f, "diag({part})"),
            Self::Comb { weights, basis } => write!(f, "comb({weights}, {basis})"),
            Self::Transpose(inner) => match **inner {
                Self::Mat(_) | Self::Diag(_) | Self::Comb { .. } => write!(f, "{inner}^T"),
                _ => write!(f, "({inner})^T"),
            },
            Self::Scale(scale, inner) => match **inner {
                Self::Sum(_) => write!(f, "{scale} ({inner})"),
                _ => write!(f, "{scale} {inner}"),
            },
            Self::Product(members) => list(f, members, "."),
            Self::Sum(members) => list(f, members, " + "),
        }
    }
}
