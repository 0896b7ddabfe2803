//! Adapters on a model's linear layers: a method's delta expression, interpreted over libtorch tensors.
//!
//! The change dW of a weight is never formed to run the model: `x dW^T` is computed factor by factor, from the one next
//! to `x` outwards. It is formed once where a published stack is merged into a dense base weight (FLoRA). A packed weight
//! cannot take it in without being unpacked for good, so there the stack's factors are applied beside it.

use std::collections::BTreeMap;

use rondo_methods::Delta;
use rondo_proto::architecture::ARCHITECTURES;
use tch::{Device, Kind, Tensor};

use super::error::TrainerError;
use super::models::Linears;

/// Tensors of one target by part name, for example `lora_A` `[r, in]`.
pub type Parts = BTreeMap<String, Tensor>;

/// What is attached to one linear layer.
#[derive(Default)]
pub struct Attached {
    merged: Option<Tensor>,
    /// Frozen changes of a packed weight, in the order in which they came.
    beside: Vec<(Delta, Parts)>,
    delta: Option<(Delta, Parts)>,
}

impl Attached {
    /// The base weight with the published stacks added, `[out, in]`, where there are any.
    pub fn merged_weight(&self) -> Option<&Tensor> {
        self.merged.as_ref()
    }

    /// `x dW^T` of the live adapter and of what stands beside a packed weight. Shapes: `x` `[n, in]`, result `[n, out]`.
    pub fn delta(&self, x: &Tensor) -> Result<Option<Tensor>, TrainerError> {
        let mut sum: Option<Tensor> = None;
        for (delta, parts) in self.beside.iter().chain(&self.delta) {
            let y = apply(delta, parts, x)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&y)?,
                None => y,
            });
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
        self.slot(number).delta = Some((delta, parts));
        Ok(())
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
    interpret(delta, parts, x, false, 1.0)
}

/// dW itself, `[out, in]`, in f32: the delta applied to the identity.
pub fn dense(delta: &Delta, parts: &Parts, inp: i64, device: Device) -> Result<Tensor, TrainerError> {
    let identity = Tensor::f_eye(inp, (Kind::Float, device))?;
    Ok(apply(delta, parts, &identity)?.f_tr()?.f_contiguous()?)
}

/// `scale * x D^T`, or `scale * x D` when `transposed`.
fn interpret(delta: &Delta, parts: &Parts, x: &Tensor, transposed: bool, scale: f64) -> Result<Tensor, TrainerError> {
    let scaled = |y: Tensor| if scale == 1.0 { Ok(y) } else { y.f_mul_scalar(scale) };
    match delta {
        Delta::Mat(name) => {
            let matrix = part(parts, name, x.kind())?;
            let y = if transposed { x.f_matmul(&matrix)? } else { x.f_matmul(&matrix.f_tr()?)? };
            Ok(scaled(y)?)
        }
        Delta::Diag(name) => Ok(scaled(x.f_mul(&part(parts, name, x.kind())?)?)?),
        Delta::Transpose(inner) => interpret(inner, parts, x, !transposed, scale),
        Delta::Scale(factor, inner) => interpret(inner, parts, x, transposed, scale * factor),
        Delta::Product(factors) => {
            // The scale goes with the first factor met, whose result is the narrow one in a low-rank product.
            let mut y = x.shallow_clone();
            let mut scale = scale;
            let mut step = |factor| -> Result<(), TrainerError> {
                y = interpret(factor, parts, &y, transposed, scale)?;
                scale = 1.0;
                Ok(())
            };
            if transposed {
                factors.iter().try_for_each(&mut step)?
            } else {
                factors.iter().rev().try_for_each(&mut step)?
            }
            Ok(if scale == 1.0 { y } else { y.f_mul_scalar(scale)? })
        }
        Delta::Sum(terms) => {
            let mut sum: Option<Tensor> = None;
            for term in terms {
                let y = interpret(term, parts, x, transposed, scale)?;
                sum = Some(match sum {
                    Some(sum) => sum.f_add(&y)?,
                    None => y,
                });
            }
            sum.ok_or_else(|| TrainerError::Tensor { name: "delta".into(), problem: "an empty sum".into() })
        }
    }
}

/// The part as the expression's input kind: adapters stay f32 when the model computes in bf16.
fn part(parts: &Parts, name: &str, kind: Kind) -> Result<Tensor, TrainerError> {
    let tensor = parts.get(name).ok_or_else(|| TrainerError::Tensor {
        name: name.to_owned(),
        problem: "the delta names it, but it is absent".into(),
    })?;
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
