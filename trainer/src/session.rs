//! A base model with one adapter on a device, and the head of a classifier: what is trained and
//! evaluated.

mod evaluation;
mod trained;

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{AdapterState, Delta, Job, MergedDelta, NamedSpec, TensorSet, WarmUpStep};
use rondo_proto::run_file::Pooling;
use tch::{Device, Kind, Tensor};

use crate::adapters::{Adapters, Parts};
use crate::batch::Batch;
use crate::error::TrainerError;
use crate::head::Head;
use crate::models::{Transformer, Weight};

pub use evaluation::TextLoss;

/// Whether a session's trained tensors take gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionMode {
    /// They do.
    Train,
    /// They do not.
    Evaluate,
}

/// A model ready to run.
pub struct Session<'m> {
    model: &'m dyn Transformer,
    device: Device,
    adapters: Adapters,
    head: Option<Head>,
    trained: Vec<(String, Tensor)>,
    /// Of trained tensors that do not train as a whole: the sizes of the leading block that does.
    blocks: BTreeMap<String, Vec<usize>>,
}

impl<'m> Session<'m> {
    /// A language model without an adapter. Refuses a model that has no vocabulary matrix.
    ///
    /// # Errors
    /// The model has no vocabulary matrix.
    pub fn language(model: &'m dyn Transformer, device: Device) -> Result<Self, TrainerError> {
        let session = Self {
            model,
            device,
            adapters: Adapters::none(),
            head: None,
            trained: Vec::new(),
            blocks: BTreeMap::new(),
        };
        session.vocabulary()?;
        Ok(session)
    }

    /// A classifier without an adapter: `head.weight` and `head.bias` out of `tensors`.
    ///
    /// # Errors
    /// The head is absent or does not fit the model.
    pub fn new(
        model: &'m dyn Transformer,
        device: Device,
        tensors: &TensorSet,
        pooling: Pooling,
    ) -> Result<Self, TrainerError> {
        let take = |name: &str, dims: usize| -> Result<Tensor, TrainerError> {
            let refuse = |problem: String| TrainerError::Tensor { name: name.to_owned(), problem };
            let tensor = tensors.get(name).ok_or_else(|| refuse("the classifier head is not there".into()))?;
            if tensor.shape.len() != dims || (dims == 2 && tensor.shape[1] != model.hidden_size()) {
                let hidden = model.hidden_size();
                return Err(refuse(format!("shape {:?}; the model's states have {hidden} numbers", tensor.shape)));
            }
            to_torch(tensor, device)
        };
        let head = Head { weight: take(HEAD_WEIGHT, 2)?, bias: take(HEAD_BIAS, 1)?, pooling, per_text: false };
        Ok(Self {
            model,
            device,
            adapters: Adapters::none(),
            head: Some(head),
            trained: Vec::new(),
            blocks: BTreeMap::new(),
        })
    }

    /// What the job's task needs: a classifier if it has a head, else a language model.
    fn of_job(
        model: &'m dyn Transformer,
        device: Device,
        job: &Job,
        tensors: &TensorSet,
        pooling: Pooling,
    ) -> Result<Self, TrainerError> {
        match job.head() {
            Some(_) => Self::new(model, device, tensors, pooling),
            None => Self::language(model, device),
        }
    }

    /// A run's adapter in some state. With [`SessionMode::Train`] its trained tensors take
    /// gradients, the head's too if the run trains it. `pooling` matters to classifiers alone.
    ///
    /// # Errors
    /// A head, target or part that is absent or does not fit the model.
    pub fn of_state(
        model: &'m dyn Transformer,
        device: Device,
        job: &Job,
        state: &AdapterState,
        pooling: Pooling,
        mode: SessionMode,
    ) -> Result<Self, TrainerError> {
        let mut session = Self::of_job(model, device, job, &state.tensors, pooling)?;
        session.merge_all(job, &state.merged)?;
        let layout = job.layout(state.instance());
        let trained = match mode {
            SessionMode::Train => trained_names(&layout),
            SessionMode::Evaluate => BTreeSet::new(),
        };
        for (index, target) in job.targets().iter().enumerate() {
            let delta = job.delta(index, state.instance());
            session.attach(&target.name, &delta, &parts_of(&state.tensors, &target.name), &trained)?;
        }
        if let Some(head) = &session.head {
            for (name, tensor) in [(HEAD_WEIGHT, &head.weight), (HEAD_BIAS, &head.bias)] {
                if trained.contains(name) {
                    session.trained.push((name.to_owned(), tensor.f_set_requires_grad(true)?));
                }
            }
        }
        session.trained.sort_by(|(left, _), (right, _)| left.cmp(right));
        for named in layout.iter().filter(|named| trained.contains(&named.name)) {
            if let Some(block) = named.spec.trained_shape().filter(|block| *block != named.spec.shape) {
                session.train_block(&named.name, block)?;
            }
        }
        Ok(session)
    }

    /// A warm-up step's probes on what the run starts from, the bare base model or an adapter
    /// merged into it, with the run's head at its start; only the probes take gradients. Several
    /// probes of one target stand side by side: each is at zero, so none changes what the others
    /// see.
    ///
    /// # Errors
    /// As of [`Session::of_state`].
    pub fn of_probe(
        model: &'m dyn Transformer,
        device: Device,
        job: &Job,
        step: &WarmUpStep,
        state: &AdapterState,
        pooling: Pooling,
    ) -> Result<Self, TrainerError> {
        // The head never starts again in a round, so neither round nor client matter to it.
        let mut session = Self::of_job(model, device, job, &job.initial(0, "", job.rank()), pooling)?;
        session.merge_all(job, &state.merged)?;
        let mut deltas: BTreeMap<usize, Vec<Delta>> = BTreeMap::new();
        for probe in &step.probes {
            deltas.entry(probe.target).or_default().push(probe.delta.clone());
        }
        let trained = step.probes.iter().flat_map(|probe| trained_names(&probe.layout)).collect();
        for (index, mut deltas) in deltas {
            let target = &job.targets()[index].name;
            let delta = if deltas.len() == 1 { deltas.remove(0) } else { Delta::Sum(deltas) };
            let mut parts = parts_of(&state.tensors, target);
            parts.retain(|part, _| delta.parts().contains(&part.as_str()));
            session.attach(target, &delta, &parts, &trained)?;
        }
        session.trained.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(session)
    }

    fn merge_all(&mut self, job: &Job, merged: &[MergedDelta]) -> Result<(), TrainerError> {
        let layers = job.layers();
        merged.iter().try_for_each(|(layer, delta, parts)| self.merge(&layers[*layer].name, delta, parts))
    }

    /// Adds a delta to a base weight for the life of this session.
    ///
    /// # Errors
    /// No such layer, absent parts, shapes that do not chain.
    pub fn merge(&mut self, target: &str, delta: &Delta, parts: &TensorSet) -> Result<(), TrainerError> {
        let parts = self.parts(parts)?;
        self.adapters.merge(self.model.linears(), target, delta, parts)
    }

    /// Attaches a delta; parts whose full name is in `trained` take gradients.
    ///
    /// # Errors
    /// As of [`Session::merge`].
    pub fn attach(
        &mut self,
        target: &str,
        delta: &Delta,
        parts: &TensorSet,
        trained: &BTreeSet<String>,
    ) -> Result<(), TrainerError> {
        let mut parts = self.parts(parts)?;
        for (part, tensor) in &mut parts {
            let name = full_name(target, part);
            if trained.contains(&name) {
                *tensor = tensor.f_set_requires_grad(true)?;
                self.trained.push((name, tensor.shallow_clone()));
            }
        }
        self.adapters.attach(self.model.linears(), target, delta.clone(), parts)
    }

    fn parts(&self, parts: &TensorSet) -> Result<Parts, TrainerError> {
        parts.iter().map(|(name, tensor)| Ok((name.clone(), to_torch(tensor, self.device)?))).collect()
    }

    /// The same session with a copy of every trained tensor for each text of a batch:
    /// [`Session::leaves`] are `[b, ...]`, and the gradient of a sum over the batch's texts holds
    /// each text's own. It runs that batch alone.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn per_text(&self, batch: &Batch) -> Result<Self, TrainerError> {
        let (adapters, mut trained) = self.adapters.per_text(batch.padding())?;
        let head = match &self.head {
            Some(head) => Some(head.for_texts(batch.texts(), &mut trained)?),
            None => None,
        };
        trained.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(Self { model: self.model, device: self.device, adapters, head, trained, blocks: self.blocks.clone() })
    }

    /// The base model.
    pub fn model(&self) -> &'m dyn Transformer {
        self.model
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What is attached to the model.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// True when some of the base's weights are packed, so that a tape over all layers would hold
    /// them unpacked.
    pub fn is_packed(&self) -> bool {
        let linears = self.model.linears();
        (0..linears.names().len()).any(|number| linears.weight(number).is_packed())
    }

    /// A classifier's head.
    pub(super) fn head(&self) -> Result<&Head, TrainerError> {
        self.head.as_ref().ok_or_else(|| TrainerError::Tensor {
            name: HEAD_WEIGHT.into(),
            problem: "a language model has no classifier head".into(),
        })
    }

    /// A language model's matrix `[vocabulary, hidden]`.
    pub(super) fn vocabulary(&self) -> Result<&'m Weight, TrainerError> {
        self.model.vocabulary().ok_or(TrainerError::NoVocabulary)
    }
}

fn trained_names(layout: &[NamedSpec]) -> BTreeSet<String> {
    layout.iter().filter(|named| named.spec.trained_shape().is_some()).map(|named| named.name.clone()).collect()
}

/// An f32 tensor on the device.
pub(crate) fn to_torch(tensor: &rondo_methods::Tensor, device: Device) -> Result<Tensor, TrainerError> {
    let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_slice(&tensor.data)?.f_view(shape.as_slice())?.f_to_device(device)?)
}

/// Plain numbers from any device and kind.
pub(crate) fn to_plain(tensor: &Tensor) -> Result<rondo_methods::Tensor, TrainerError> {
    let shape = tensor.size().into_iter().map(|n| n as usize).collect();
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
    Ok(rondo_methods::Tensor { shape, data: Vec::<f32>::try_from(&flat)? })
}
