//! The client's side: tensors to start from, the state of the adapter after some rounds, and the update file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::manifest::{TensorEntry, diff};
use rondo_proto::run_file::Dtype;

use super::manifest::entries;
use super::{AdapterState, Job, Kind, MergedDelta, SEEDS, STARTED, VERSION};
use crate::error::MethodError;
use crate::file::{TensorFile, TensorWriter};
use crate::init::seeded::{self, Identity};
use crate::law::pair_delta;
use crate::layout::{NamedSpec, Start, Target};
use crate::linalg::Matrix;
use crate::method::Publication;
use crate::tensor::{Tensor, TensorSet, full_name, parts_of};

impl Job {
    /// Every seeded or zero tensor at its start, head included, by full name. Tensors from artefacts are absent.
    /// `round` and `client` matter to methods whose adapter starts anew in every round.
    pub fn initial(&self, round: u32, client: &str, rank: usize) -> TensorSet {
        let fresh = self.method().fresh_each_round().then_some((round, client));
        self.layout(0, rank).iter().filter_map(|named| self.start(named, fresh)).collect()
    }

    /// The warm-up's probe at its start: trained parts zero, seeded partners drawn. Statistics have no start.
    pub fn warm_up_initial(&self) -> TensorSet {
        self.warm_up_layout().iter().filter_map(|named| self.start(named, None)).collect()
    }

    /// One tensor at its start; the head never starts anew.
    pub(crate) fn start(&self, named: &NamedSpec, fresh: Option<(u32, &str)>) -> Option<(String, Tensor)> {
        let fresh = fresh.filter(|_| named.target.is_some());
        if let (None, Some(adapter)) = (named.target, self.start_adapter())
            && let Some(tensor) = adapter.head(&named.name)
        {
            return Some((named.name.clone(), tensor.clone()));
        }
        let tensor = match named.spec.start {
            Start::Zero => Tensor::zeros(&named.spec.shape),
            Start::SeededUniform { bound } => {
                let identity = Identity { seed: self.config().seed, name: &named.name, fresh };
                seeded::uniform(identity, &named.spec.shape, bound)
            }
            Start::Artefact => return None,
        };
        Some((named.name.clone(), tensor))
    }

    /// Digest over everything that all programs of this run draw alike from its seed.
    pub(crate) fn seeds_digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let fresh = self.method().fresh_each_round();
        for named in self.layout(0, self.rank()).iter().chain(&self.warm_up_layout()) {
            let shared = named.target.is_none() || !fresh;
            if !shared || !matches!(named.spec.start, Start::SeededUniform { .. }) {
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

    /// The adapter from which `client` works in `round`: its start, overlaid by the frozen artefact, overlaid by the
    /// published files, all on top of the adapter that the run started from. Methods that accumulate need every published file, in order; of the others the last decides.
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
        if let Some(path) = frozen {
            tensors.extend(self.open_checked(path, |_| self.frozen_manifest())?.read_all(|_| true)?);
        }
        let mut merged = self.start_deltas()?;
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
                    let parts = self.narrowed(target, rank, parts);
                    tensors.extend(parts.into_iter().map(|(part, tensor)| (full_name(&target.name, &part), tensor)));
                }
            }
            if last {
                let head = self.head_layout();
                tensors.extend(file.read_all(|name| head.iter().any(|named| named.name == name))?);
            }
        }
        self.check_complete(rank, &tensors)?;
        Ok(AdapterState { round, rank, tensors, merged })
    }

    /// Takes what is merged into the base out of a target's published parts; a pair of height 0 changes nothing.
    fn take_merged(&self, index: usize, parts: &mut TensorSet) -> Option<MergedDelta> {
        let names = self.method().law().merged()?;
        let (outer, inner) = (parts.remove_entry(names.0)?, parts.remove_entry(names.1)?);
        (!inner.1.is_empty()).then(|| (index, pair_delta(names), TensorSet::from([outer, inner])))
    }

    /// Published tensors of a target as a client of this rank begins with them.
    fn narrowed(&self, target: &Target, rank: usize, published: TensorSet) -> TensorSet {
        if rank == self.rank() {
            return published;
        }
        self.method().narrowed(self.config(), target, rank, published)
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
        let height = |target: &Target| {
            let inner = self.method().law().merged().map(|(_, inner)| full_name(&target.name, inner));
            inner.and_then(|name| file.shape(&name)?.first().copied()).unwrap_or(0)
        };
        entries(&self.published_with(height), self.wire_dtype())
    }

    fn check_complete(&self, rank: usize, tensors: &TensorSet) -> Result<(), MethodError> {
        for named in self.layout(0, rank) {
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

    /// The whole change of a weight `[out, in]`, by its index among [`Job::layers`]: what was merged, and the adapter on top.
    pub fn dense_delta(&self, state: &AdapterState, layer: usize) -> Result<Matrix, MethodError> {
        let Target { name, out, inp } = &self.layers()[layer];
        let failed = |source| MethodError::delta(name, source);
        let mut sum = if layer < self.targets().len() {
            self.delta(state.rank).dense(&parts_of(&state.tensors, name)).map_err(failed)?
        } else {
            Matrix::zeros(*out, *inp)
        };
        for (_, delta, parts) in state.merged.iter().filter(|(index, ..)| *index == layer) {
            sum.add_scaled(1.0, &delta.dense(parts).map_err(failed)?);
        }
        Ok(sum)
    }

    /// Writes what a client uploads in a round, out of tensors by full name (others are left out); returns the file's
    /// bytes. Where a leading block travels, the whole tensor may be given: its block is cut out.
    pub fn write_update(
        &self,
        kind: Kind,
        round: u32,
        rank: usize,
        tensors: &TensorSet,
        path: &Path,
    ) -> Result<u64, MethodError> {
        let mut cut = TensorSet::new();
        if kind == Kind::Train {
            for NamedSpec { name, spec, .. } in self.layout(round, rank).into_iter().filter(|n| n.spec.block.is_some())
            {
                if let (Some(block), Some(tensor)) = (spec.sent_shape(), tensors.get(&name))
                    && tensor.shape == spec.shape
                {
                    cut.insert(name, tensor.leading(block));
                }
            }
        }
        self.write_file(path, self.upload_tensors(kind, round, rank), self.upload_dtype(kind), &|name| {
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
