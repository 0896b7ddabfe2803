//! Adapters on a model's linear layers: a method's delta expression, interpreted over libtorch tensors.
//!
//! The change dW of a weight is never formed to run the model: `x dW^T` is computed factor by factor, from the one next
//! to `x` outwards. It is formed once where a published stack is merged into a dense base weight (FLoRA). A packed weight
//! cannot take it in without being unpacked for good, so there the stack's factors are applied beside it.

use std::collections::BTreeMap;

use rondo_base::architecture::ARCHITECTURES;
use rondo_methods::Delta;
use rondo_methods::tensor::full_name;
use tch::{Device, Kind, Tensor};

use crate::batch::padding::Padding;
use crate::error::TrainerError;
use crate::models::Linears;

/// Tensors of one target by part name, for example `lora_A` `[r, in]`.
pub type Parts = BTreeMap<String, Tensor>;

/// What is attached to one linear layer.
#[derive(Default)]
pub struct Attached {
    merged: Option<Tensor>,
    /// Frozen changes of a packed weight, in the order in which they came.
    beside: Vec<(Delta, Parts)>,
    live: Option<Live>,
}

/// The adapter that a run trains.
struct Live {
    target: String,
    delta: Delta,
    factors: Factors,
}

/// The tensors of a delta by part name.
struct Factors {
    /// One for all texts.
    shared: Parts,
    /// One copy per text, `[b, ...]`, and how the texts' tokens are laid out.
    per_text: Option<(Parts, Padding)>,
}

impl Attached {
    /// The base weight with the published stacks added, `[out, in]`, where there are any.
    pub fn merged_weight(&self) -> Option<&Tensor> {
        self.merged.as_ref()
    }

    /// `x dW^T` of the live adapter and of what stands beside a packed weight. Shapes: `x` `[n, in]`, result `[n, out]`.
    pub fn delta(&self, x: &Tensor) -> Result<Option<Tensor>, TrainerError> {
        let mut sum: Option<Tensor> = None;
        let mut add = |y: Tensor| -> Result<(), TrainerError> {
            sum = Some(match sum.take() {
                Some(sum) => sum.f_add(&y)?,
                None => y,
            });
            Ok(())
        };
        for (delta, parts) in &self.beside {
            add(apply(delta, parts, x)?)?;
        }
        if let Some(Live { delta, factors, .. }) = &self.live {
            add(interpret(delta, factors, x, false, 1.0)?)?;
        }
        Ok(sum)
    }
}

/// What is attached to a model, by the number of the linear layer.
#[derive(Default)]
pub struct Adapters {
    slots: Vec<Option<Attached>>,
}

impl Adapters {
    /// Nothing attached: the base model.
    pub fn none() -> Self {
        Self::default()
    }

    /// What is attached to a linear layer.
    pub fn at(&self, number: usize) -> Option<&Attached> {
        self.slots.get(number).and_then(Option::as_ref)
    }

    /// Attaches a live delta to the layer named `target`. Tensors in `parts` that want gradients get them.
    pub fn attach(&mut self, linears: &Linears, target: &str, delta: Delta, parts: Parts) -> Result<(), TrainerError> {
        let number = find(linears, target)?;
        let (out, inp) = linears.weight(number).size()?;
        check(target, &delta, &parts, inp, out)?;
        let factors = Factors { shared: parts, per_text: None };
        self.slot(number).live = Some(Live { target: target.to_owned(), delta, factors });
        Ok(())
    }

    /// The same adapters with a copy of every tensor that takes gradients for each text of a batch, so that the gradient
    /// of a sum over texts is each text's own gradient. Also the copies, `[b, ...]`, by full name. They cost the memory of
    /// `b` adapters and as much again for their gradients; the arithmetic is that of the shared tensors.
    pub fn per_text(&self, padding: &Padding) -> Result<(Self, Vec<(String, Tensor)>), TrainerError> {
        let mut copies = Vec::new();
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let Some(attached) = slot else {
                slots.push(None);
                continue;
            };
            let live = match &attached.live {
                Some(live) => Some(live.per_text(padding, &mut copies)?),
                None => None,
            };
            let merged = attached.merged.as_ref().map(Tensor::shallow_clone);
            let beside = attached.beside.iter().map(|(delta, parts)| (delta.clone(), share(parts))).collect();
            slots.push(Some(Attached { merged, beside, live }));
        }
        Ok((Self { slots }, copies))
    }

    /// Adds a delta to the layer's weight: `W <- W + dW`. Merging several adds them all, in the order of the calls.
    pub fn merge(&mut self, linears: &Linears, target: &str, delta: &Delta, parts: Parts) -> Result<(), TrainerError> {
        let number = find(linears, target)?;
        let base = linears.weight(number);
        let (out, inp) = base.size()?;
        check(target, delta, &parts, inp, out)?;
        if base.is_packed() {
            self.slot(number).beside.push((delta.clone(), parts));
            return Ok(());
        }
        let parts = &parts;
        let change = dense(delta, parts, inp, base.device())?.f_to_kind(base.kind())?;
        let slot = self.slot(number);
        let before = match slot.merged.take() {
            Some(merged) => merged,
            None => base.dense()?,
        };
        slot.merged = Some(before.f_add(&change)?);
        Ok(())
    }

    fn slot(&mut self, number: usize) -> &mut Attached {
        if self.slots.len() <= number {
            self.slots.resize_with(number + 1, || None);
        }
        self.slots[number].get_or_insert_default()
    }
}

impl Live {
    fn per_text(&self, padding: &Padding, copies: &mut Vec<(String, Tensor)>) -> Result<Self, TrainerError> {
        let (mut shared, mut own) = (Parts::new(), Parts::new());
        for (name, tensor) in &self.factors.shared {
            if tensor.requires_grad() {
                let copy = copy_per_text(tensor, padding.texts())?;
                copies.push((full_name(&self.target, name), copy.shallow_clone()));
                own.insert(name.clone(), copy);
            } else {
                shared.insert(name.clone(), tensor.shallow_clone());
            }
        }
        let factors = Factors { shared, per_text: Some((own, padding.share())) };
        Ok(Self { target: self.target.clone(), delta: self.delta.clone(), factors })
    }
}

/// A tensor once for each of `texts` texts, `[texts, ...]`, as a leaf that takes gradients.
pub(super) fn copy_per_text(tensor: &Tensor, texts: i64) -> Result<Tensor, TrainerError> {
    let mut times = vec![1; tensor.dim() + 1];
    times[0] = texts;
    Ok(tensor.f_detach()?.f_unsqueeze(0)?.f_repeat(&times)?.f_set_requires_grad(true)?)
}

fn share(parts: &Parts) -> Parts {
    parts.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// The base weight of the layer named `target`, `[out, in]`.
pub fn base_weight(linears: &Linears, target: &str) -> Result<Tensor, TrainerError> {
    linears.weight(find(linears, target)?).dense()
}

/// Number of the layer; the prefix that names have in a model with a head on top (`bert.`) may stand before it.
fn find(linears: &Linears, target: &str) -> Result<usize, TrainerError> {
    let mut prefixes = ARCHITECTURES.iter().flat_map(|architecture| architecture.prefixes);
    let bare = || prefixes.find_map(|prefix| linears.find(target.strip_prefix(prefix)?));
    linears.find(target).or_else(bare).ok_or_else(|| TrainerError::UnknownTarget {
        target: target.to_owned(),
        known: linears.names().len(),
        example: linears.names().next().unwrap_or("none").to_owned(),
    })
}

/// `x dW^T`, factor by factor. Shapes: `x` `[n, in]`, result `[n, out]`, of the kind of `x`.
pub fn apply(delta: &Delta, parts: &Parts, x: &Tensor) -> Result<Tensor, TrainerError> {
    interpret(delta, &Factors { shared: share(parts), per_text: None }, x, false, 1.0)
}

/// dW itself, `[out, in]`, in f32: the delta applied to the identity.
pub fn dense(delta: &Delta, parts: &Parts, inp: i64, device: Device) -> Result<Tensor, TrainerError> {
    let identity = Tensor::f_eye(inp, (Kind::Float, device))?;
    Ok(apply(delta, parts, &identity)?.f_tr()?.f_contiguous()?)
}

/// `scale * x D^T`, or `scale * x D` when `transposed`.
fn interpret(
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
            // The scale goes with the first factor met, whose result is the narrow one in a low-rank product.
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

    /// `x M^T` with M = sum_j w_j M_j of the parts `weights` `[k]` and `basis` `[k, rows, columns]`, or `x M` when
    /// `transposed`. M is formed, once for all texts or once for each.
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

/// Runs the delta on an empty input once, so that absent parts and shapes that do not chain are found when the adapter
/// is attached and named with their target.
fn check(target: &str, delta: &Delta, parts: &Parts, inp: i64, out: i64) -> Result<(), TrainerError> {
    let refuse = |problem: String| TrainerError::Tensor { name: target.to_owned(), problem };
    let device = parts.values().next().map_or(Device::Cpu, Tensor::device);
    let nothing = Tensor::f_zeros([0, inp], (Kind::Float, device))?;
    let found = tch::no_grad(|| apply(delta, parts, &nothing)).map_err(|error| refuse(error.to_string()))?.size();
    if found == [0, out] {
        Ok(())
    } else {
        Err(refuse(format!("the delta gives {} outputs, the layer has {out}", found[1])))
    }
}
