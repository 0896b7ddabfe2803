//! Adapters on a model's linear layers: a method's delta expression, interpreted over libtorch
//! tensors.
//!
//! The change dW of a weight is never formed to run the model. `x dW^T` is computed factor by
//! factor, from the one next to `x` outwards. dW is formed once where a published stack is merged
//! into a dense base weight (FLoRA). A packed weight would have to be unpacked for good to take it
//! in, so there the stack stays unmerged and its factors are applied.

mod delta;

use rondo_base::architecture::ARCHITECTURES;
use rondo_methods::Delta;
use rondo_methods::tensor::full_name;
use tch::{Device, Kind, Tensor};

use crate::batch::padding::Padding;
use crate::error::TrainerError;
use crate::models::{LinearHook, Linears};
use delta::{Factors, interpret, share};

pub use delta::{Parts, apply, dense};

/// What is attached to one linear layer.
#[derive(Default)]
struct Attached {
    /// The base weight with the published stacks added, `[out, in]`.
    merged: Option<Tensor>,
    /// Frozen changes of a packed weight, in the order in which they came.
    unmerged: Vec<(Delta, Parts)>,
    active: Option<ActiveAdapter>,
}

/// The adapter that a run trains.
struct ActiveAdapter {
    target: String,
    delta: Delta,
    factors: Factors,
}

impl Attached {
    /// `x dW^T` of the active adapter and of what is unmerged. Shapes: `x` `[n, in]`, result
    /// `[n, out]`.
    fn delta(&self, x: &Tensor) -> Result<Option<Tensor>, TrainerError> {
        let mut sum: Option<Tensor> = None;
        let mut add = |y: Tensor| -> Result<(), TrainerError> {
            sum = Some(match sum.take() {
                Some(sum) => sum.f_add(&y)?,
                None => y,
            });
            Ok(())
        };
        for (delta, parts) in &self.unmerged {
            add(apply(delta, parts, x)?)?;
        }
        if let Some(ActiveAdapter { delta, factors, .. }) = &self.active {
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

    fn at(&self, number: usize) -> Option<&Attached> {
        self.slots.get(number).and_then(Option::as_ref)
    }

    /// Attaches the active adapter of the layer named `target`. Tensors in `parts` that want
    /// gradients get them.
    ///
    /// # Errors
    /// No such layer, absent parts, shapes that do not chain.
    pub fn attach(&mut self, linears: &Linears, target: &str, delta: Delta, parts: Parts) -> Result<(), TrainerError> {
        let number = find(linears, target)?;
        let (out, inp) = linears.weight(number).size()?;
        check(target, &delta, &parts, inp, out)?;
        let factors = Factors { shared: parts, per_text: None };
        self.slot(number).active = Some(ActiveAdapter { target: target.to_owned(), delta, factors });
        Ok(())
    }

    /// The same adapters with a copy of every tensor that takes gradients for each text of a batch,
    /// so that the gradient of a sum over texts is each text's own gradient. Also returns the
    /// copies, `[b, ...]`, by full name. They cost the memory of `b` adapters and as much again for
    /// their gradients. The arithmetic is that of the shared tensors.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn per_text(&self, padding: &Padding) -> Result<(Self, Vec<(String, Tensor)>), TrainerError> {
        let mut copies = Vec::new();
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let Some(attached) = slot else {
                slots.push(None);
                continue;
            };
            let active = match &attached.active {
                Some(active) => Some(active.per_text(padding, &mut copies)?),
                None => None,
            };
            let merged = attached.merged.as_ref().map(Tensor::shallow_clone);
            let unmerged = attached.unmerged.iter().map(|(delta, parts)| (delta.clone(), share(parts))).collect();
            slots.push(Some(Attached { merged, unmerged, active }));
        }
        Ok((Self { slots }, copies))
    }

    /// Adds a delta to the layer's weight: `W <- W + dW`. Merging several adds them all, in the
    /// order of the calls. A packed weight keeps them unmerged.
    ///
    /// # Errors
    /// As of [`Adapters::attach`].
    pub fn merge(&mut self, linears: &Linears, target: &str, delta: &Delta, parts: Parts) -> Result<(), TrainerError> {
        let number = find(linears, target)?;
        let base = linears.weight(number);
        let (out, inp) = base.size()?;
        check(target, delta, &parts, inp, out)?;
        if base.is_packed() {
            self.slot(number).unmerged.push((delta.clone(), parts));
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

impl LinearHook for Adapters {
    fn merged_weight(&self, layer: usize) -> Option<&Tensor> {
        self.at(layer)?.merged.as_ref()
    }

    fn delta(&self, layer: usize, x: &Tensor) -> Result<Option<Tensor>, TrainerError> {
        match self.at(layer) {
            Some(attached) => attached.delta(x),
            None => Ok(None),
        }
    }
}

impl ActiveAdapter {
    fn per_text(&self, padding: &Padding, copies: &mut Vec<(String, Tensor)>) -> Result<Self, TrainerError> {
        let mut shared = Parts::new();
        let mut own = Parts::new();
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

/// The base weight of the layer named `target`, `[out, in]`.
///
/// # Errors
/// No such layer, a packed weight that cannot be unpacked.
pub fn base_weight(linears: &Linears, target: &str) -> Result<Tensor, TrainerError> {
    linears.weight(find(linears, target)?).dense()
}

/// Number of the layer; the prefix that names have in a model with a head on top (`bert.`) may
/// stand before it.
fn find(linears: &Linears, target: &str) -> Result<usize, TrainerError> {
    let mut prefixes = ARCHITECTURES.iter().flat_map(|architecture| architecture.prefixes);
    let bare = || prefixes.find_map(|prefix| linears.find(target.strip_prefix(prefix)?));
    linears.find(target).or_else(bare).ok_or_else(|| TrainerError::UnknownTarget {
        target: target.to_owned(),
        known: linears.names().len(),
        example: linears.names().next().unwrap_or("none").to_owned(),
    })
}

/// Runs the delta on an empty input once, so that absent parts and shapes that do not chain are
/// found when the adapter is attached and named with their target.
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
