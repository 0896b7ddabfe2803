//! The client's side: tensors to start from, the state of the
//! adapter after some rounds, and the update file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::manifest::{TensorEntry, diff};
use rondo_proto::run_file::Dtype;

use super::manifest::entries;
use super::{AdapterState, Job, Kind, MergedDelta, SEEDS, STARTED, VERSION};
use crate::answers::Publication;
use crate::at::Instance;
use crate::error::MethodError;
use crate::file::{TensorFile, TensorWriter};
use crate::init::seeded::{self, Identity};
use crate::law::pair_delta;
use crate::layout::{NamedSpec, Start, Target};
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet, fits, full_name, parts_of};
use crate::warm_up::WarmUp;

impl Job {
    /// Every seeded or zero tensor at its start, head included, by full name.
    /// Tensors from artefacts are absent. `round` and `client` matter to
    /// methods whose adapter starts anew in every round.
    pub fn initial(&self, round: u32, client: &str, rank: usize) -> TensorSet {
        let fresh = self.fresh_each_round().then_some((round, client));
        let instance = Instance::OF_RUN.with_rank(rank).of_client(client);
        self.layout(instance).iter().filter_map(|named| self.start(named, fresh)).collect()
    }

    /// The warm-up's probes at their start: trained parts zero,
    /// seeded partners drawn. Statistics have no start.
    pub fn warm_up_initial(&self) -> TensorSet {
        self.warm_up_layout().iter().filter_map(|named| self.start(named, None)).collect()
    }

    /// What a probe multiplies its trained parts with, at its start, by part name.
    pub(crate) fn probe_partners(&self, index: usize, probe: &WarmUp) -> TensorSet {
        let layout = self.probe_layout(index, probe);
        let partners = layout.iter().filter(|named| !named.spec.travel.goes_up());
        partners.filter_map(|named| Some((named.spec.part.clone(), self.start(named, None)?.1))).collect()
    }

    /// One tensor at its start; the head never starts anew.
    pub(crate) fn start(&self, named: &NamedSpec, fresh: Option<(u32, &str)>) -> Option<(String, Tensor)> {
        let fresh = fresh.filter(|_| named.target.is_some());
        if let (None, Some(adapter)) = (named.target, self.start_adapter())
            && let Some(tensor) = adapter.head(&named.name)
        {
            return Some((named.name.clone(), tensor.clone()));
        }
        let shape = &named.spec.shape;
        let tensor = match named.spec.start {
            Start::Zero => Tensor::zeros(shape),
            Start::Constant { value } => {
                Tensor { shape: shape.clone(), data: vec![value as f32; named.spec.numbers()] }
            }
            Start::Tile { period } => match shape[..] {
                [rows, columns] => seeded::tile([rows, columns], period),
                // A tiling of another shape was refused when the job was made.
                _ => return None,
            },
            Start::SeededUniform { bound } => {
                self.drawn(named, fresh, |identity, shape| seeded::uniform(identity, shape, bound))
            }
            Start::SeededNormal { std } => {
                self.drawn(named, fresh, |identity, shape| seeded::normal(identity, shape, std))
            }
            Start::Artefact => return None,
        };
        Some((named.name.clone(), tensor))
    }

    /// A seeded tensor: the target's own, or its leading block of the one that all targets share.
    fn drawn(
        &self,
        named: &NamedSpec,
        fresh: Option<(u32, &str)>,
        draw: impl Fn(Identity<'_>, &[usize]) -> Tensor,
    ) -> Tensor {
        let seed = self.config().seed;
        let shape = &named.spec.shape;
        let of_all = named.spec.shared.as_ref().and_then(|name| Some((name, self.shared_shape(name)?)));
        match of_all {
            Some((name, whole)) if fits(shape, whole) => {
                // No module has this name.
                let name = full_name("*", name);
                draw(Identity { seed, name: &name, fresh }, whole).leading(shape)
            }
            _ => draw(Identity { seed, name: &named.name, fresh }, shape),
        }
    }

    /// Digest over everything that all programs of this run draw alike from its seed.
    pub(crate) fn seeds_digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let fresh = self.fresh_each_round();
        for named in self.layout(Instance::OF_RUN).iter().chain(&self.warm_up_layout()) {
            let shared = named.target.is_none() || !fresh;
            if !shared || !named.spec.start.is_seeded() {
                continue;
            }
            if let Some((name, tensor)) = self.start(named, None) {
                hasher.update(name.as_bytes());
                tensor.data.iter().for_each(|x| {
                    hasher.update(&x.to_le_bytes());
                });
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The adapter from which `client` works in `round`: its start, overlaid by the
    /// frozen artefact, overlaid by the published files, all on top of the adapter
    /// that the run started from. Methods that accumulate need every published
    /// file, in order; of the others the last decides.
    ///
    /// # Errors
    /// The run does not take `rank`, a file cannot be read or does not fit this run, or a tensor is
    /// missing or has another shape than the layout says.
    pub fn state(
        &self,
        round: u32,
        client: &str,
        rank: usize,
        frozen: Option<&Path>,
        published: &[PathBuf],
    ) -> Result<AdapterState, MethodError> {
        let rank = self.client_rank(rank)?;
        let mut tensors = self.initial(round, client, rank);
        let shipped = match frozen {
            Some(path) => self.open_checked(path, |_| self.frozen_manifest())?.read_all(|_| true)?,
            None => TensorSet::new(),
        };
        let mut merged = self.start_deltas()?;
        merged.extend(self.offsets(&shipped)?);
        tensors.extend(shipped);
        let instance = Instance::in_round(round).with_rank(rank).of_client(client);
        let (seeds, started) = (self.seeds_digest(), self.start_digest());
        for (index, path) in published.iter().enumerate() {
            let last = index + 1 == published.len();
            let accumulates = self.publication() == Publication::Accumulate;
            if !accumulates && !last {
                continue;
            }
            let file = self.open_checked(path, |file| self.manifest_like(file))?;
            let below = file.metadata().get(STARTED).map_or("", String::as_str);
            if below != started {
                let [theirs, ours] = [below, &started].map(|digest| if digest.is_empty() { "none" } else { digest });
                let problem = format!("it stands on initial adapter {theirs}, this run's is {ours}");
                return Err(MethodError::Artefact { path: path.clone(), problem });
            }
            if file.metadata().get(SEEDS).is_some_and(|theirs| *theirs != seeds) {
                return Err(MethodError::Seeds(path.clone()));
            }
            if let Some(version) = file.metadata().get(VERSION).filter(|_| accumulates)
                && *version != index.to_string()
            {
                let problem = format!("it was published as number {version} but stands at {index}: one is missing");
                return Err(MethodError::Artefact { path: path.clone(), problem });
            }
            for (index, target) in self.targets().iter().enumerate() {
                let owned = |name: &str| name.rsplit_once('.').is_some_and(|(owner, _)| owner == target.name);
                let mut parts = parts_of(&file.read_all(owned)?, &target.name);
                merged.extend(self.take_merged(index, &mut parts));
                if last {
                    let parts = self.narrowed(index, instance, parts);
                    tensors.extend(parts.into_iter().map(|(part, tensor)| (full_name(&target.name, &part), tensor)));
                }
            }
            if last {
                let head = self.head_layout();
                tensors.extend(file.read_all(|name| head.iter().any(|named| named.name == name))?);
            }
        }
        self.check_complete(instance, &tensors)?;
        Ok(AdapterState { round, client: client.to_owned(), rank, tensors, merged })
    }

    /// What the method adds to the base once: of every target its offset and the parts that it
    /// names, from what was shipped (by full name) or as they start.
    ///
    /// # Errors
    /// A part that only the warm-up brings and that is not among what was shipped.
    pub fn offsets(&self, shipped: &TensorSet) -> Result<Vec<MergedDelta>, MethodError> {
        let mut offsets = Vec::new();
        for index in 0..self.targets().len() {
            let Some(offset) = self.offset(index) else { continue };
            let layout = self.target_layout(index, Instance::OF_RUN);
            let mut parts = TensorSet::new();
            for named in layout.iter().filter(|named| offset.parts().contains(&named.spec.part.as_str())) {
                let there = shipped.get(&named.name).cloned();
                let tensor = there.or_else(|| self.start(named, None).map(|(_, tensor)| tensor));
                let place = || "the frozen file: the warm-up round brings it".to_owned();
                let missing = || MethodError::Missing { tensor: named.name.clone(), place: place() };
                parts.insert(named.spec.part.clone(), tensor.ok_or_else(missing)?);
            }
            offsets.push((index, offset, parts));
        }
        Ok(offsets)
    }

    /// Takes what is merged into the base out of a target's
    /// published parts; a pair of height 0 changes nothing.
    fn take_merged(&self, index: usize, parts: &mut TensorSet) -> Option<MergedDelta> {
        let names = self.law().merged()?;
        let (outer, inner) = (parts.remove_entry(names.0)?, parts.remove_entry(names.1)?);
        (!inner.1.is_empty()).then(|| (index, pair_delta(names), TensorSet::from([outer, inner])))
    }

    /// Published tensors of a target as a client of this rank begins with them.
    fn narrowed(&self, index: usize, instance: Instance<'_>, published: TensorSet) -> TensorSet {
        if instance.rank.is_none_or(|rank| rank == self.rank()) {
            return published;
        }
        self.method().narrowed(self.config(), self.at(index, instance), published)
    }

    fn open_checked(
        &self,
        path: &Path,
        expected: impl Fn(&TensorFile) -> Vec<TensorEntry>,
    ) -> Result<TensorFile, MethodError> {
        let file = TensorFile::open(path)?;
        match diff(&expected(&file), &file.entries()) {
            None => Ok(file),
            Some(problem) => Err(MethodError::Artefact { path: path.to_owned(), problem }),
        }
    }

    /// What a published file must hold, the height of its stacks taken from the file itself.
    fn manifest_like(&self, file: &TensorFile) -> Vec<TensorEntry> {
        let height = |index: usize| {
            let target = &self.targets()[index].name;
            let inner = self.law().merged().map(|(_, inner)| full_name(target, inner));
            inner.and_then(|name| file.shape(&name)?.first().copied()).unwrap_or(0)
        };
        entries(&self.published_with(height), self.wire_dtype())
    }

    fn check_complete(&self, instance: Instance<'_>, tensors: &TensorSet) -> Result<(), MethodError> {
        for named in self.layout(Instance { round: None, ..instance }) {
            match tensors.get(&named.name) {
                Some(tensor) if tensor.shape == named.spec.shape => {}
                Some(tensor) => {
                    return Err(MethodError::Shape {
                        tensor: named.name,
                        place: "the adapter".into(),
                        expected: named.spec.shape,
                        got: tensor.shape.clone(),
                    });
                }
                None => {
                    let place = "the frozen and published files: the warm-up round brings it".to_owned();
                    return Err(MethodError::Missing { tensor: named.name, place });
                }
            }
        }
        Ok(())
    }

    /// The whole change of a weight `[out, in]`, by its index among [`Job::layers`]: what was
    /// merged, and the adapter on top.
    ///
    /// # Errors
    /// The state lacks a tensor that the change needs, or a tensor has a shape that does not fit.
    pub fn dense_delta(&self, state: &AdapterState, layer: usize) -> Result<Matrix, MethodError> {
        let Target { name, out, inp } = &self.layers()[layer];
        let failed = |source| MethodError::delta(name, source);
        let mut sum = if layer < self.targets().len() {
            self.delta(layer, state.instance()).dense(&parts_of(&state.tensors, name)).map_err(failed)?
        } else {
            Matrix::zeros(*out, *inp)
        };
        for (_, delta, parts) in state.merged.iter().filter(|(index, ..)| *index == layer) {
            sum.add_scaled(1.0, &delta.dense(parts).map_err(failed)?);
        }
        Ok(sum)
    }

    /// Writes what a client uploads, out of tensors by full name (others are
    /// left out); returns the file's length in bytes. Where a leading block travels, the
    /// whole tensor may be given: its block is cut out.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the layout says, or the file cannot be
    /// written.
    pub fn write_update(
        &self,
        kind: Kind,
        instance: Instance<'_>,
        tensors: &TensorSet,
        path: &Path,
    ) -> Result<u64, MethodError> {
        let mut cut = TensorSet::new();
        if kind == Kind::Train {
            for NamedSpec { name, spec, .. } in self.layout(instance).into_iter().filter(|n| n.spec.block.is_some()) {
                if let (Some(block), Some(tensor)) = (spec.sent_shape(), tensors.get(&name))
                    && tensor.shape == spec.shape
                {
                    cut.insert(name, tensor.leading(block));
                }
            }
        }
        self.write_file(path, self.upload_tensors(kind, instance), self.upload_dtype(kind), &|name| {
            cut.get(name).or_else(|| tensors.get(name))
        })
    }

    fn write_file<'t>(
        &self,
        path: &Path,
        announced: Vec<(String, Vec<usize>)>,
        dtype: Dtype,
        tensors: &dyn Fn(&str) -> Option<&'t Tensor>,
    ) -> Result<u64, MethodError> {
        let mut writer = TensorWriter::create(path, announced.clone(), dtype, &BTreeMap::new())?;
        for (name, expected) in announced {
            let place = || "the tensors to write".to_owned();
            let Some(tensor) = tensors(&name) else {
                return Err(MethodError::Missing { tensor: name, place: place() });
            };
            if tensor.shape != expected {
                return Err(MethodError::Shape { tensor: name, place: place(), expected, got: tensor.shape.clone() });
            }
            writer.write(&name, tensor)?;
        }
        Ok(writer.finish()?)
    }
}
