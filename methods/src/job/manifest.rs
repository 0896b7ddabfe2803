//! What travels: layouts of the whole adapter, manifests of files, and the byte formulas.

use rondo_proto::manifest::{TensorEntry, safetensors_name};
use rondo_proto::run_file::Dtype;

use super::{Job, Kind};
use crate::at::Instance;
use crate::head::{HEAD_BIAS, HEAD_WEIGHT};
use crate::init::seeded::kaiming_bound;
use crate::law::residual_rank;
use crate::layout::{NamedSpec, Origin, Role, Start, Target, TensorSpec, Travel};
use crate::tensor::full_name;
use crate::warm_up::WarmUp;

impl Job {
    /// Every tensor of an adapter, target by target, then the head.
    ///
    /// What of it trains in the instance's round is what [`TensorSpec::trained_shape`]
    /// says of each tensor: all of it, a leading block, or nothing where the part
    /// rests. In no round in particular nothing rests.
    pub fn layout(&self, instance: Instance<'_>) -> Vec<NamedSpec> {
        let mut all = Vec::new();
        for index in 0..self.targets().len() {
            all.extend(self.target_layout(index, instance));
        }
        all.extend(self.head_layout());
        all
    }

    /// The tensors of one target.
    pub(crate) fn target_layout(&self, index: usize, instance: Instance<'_>) -> Vec<NamedSpec> {
        let at = self.at(index, instance);
        let method = self.method();
        let config = self.config();
        let turned = |spec: TensorSpec| {
            let trains = spec.role != Role::Trained || at.round.is_none() || method.trains_in(config, at, &spec.part);
            named(index, &at.target.name, if trains { spec } else { spec.resting() })
        };
        method.layout(config, at).into_iter().map(turned).collect()
    }

    /// Every tensor of the warm-up's probes, target by target; empty without a warm-up.
    pub(crate) fn warm_up_layout(&self) -> Vec<NamedSpec> {
        (0..self.probes().len()).flat_map(|index| self.target_warm_up_layout(index)).collect()
    }

    /// The tensors of one target's probes.
    pub(crate) fn target_warm_up_layout(&self, index: usize) -> Vec<NamedSpec> {
        self.probes()[index].iter().flat_map(|probe| self.probe_layout(index, probe)).collect()
    }

    /// The tensors of one probe of a target.
    pub(super) fn probe_layout(&self, index: usize, probe: &WarmUp) -> Vec<NamedSpec> {
        let target = &self.targets()[index].name;
        probe.layout.iter().map(|spec| named(index, target, spec.clone())).collect()
    }

    pub(crate) fn head_layout(&self) -> Vec<NamedSpec> {
        let Some(head) = self.head() else { return Vec::new() };
        let part = |name: &str, part: &str, shape: &[usize], start| {
            let mut spec = TensorSpec::trained(part, shape, Travel::Both, start);
            if !head.trained {
                (spec.role, spec.travel) = (Role::Frozen { from: Origin::Seed }, Travel::Never);
            }
            NamedSpec { name: name.to_owned(), target: None, spec }
        };
        let bound = kaiming_bound(head.hidden);
        vec![
            part(HEAD_WEIGHT, "weight", &[head.labels, head.hidden], Start::SeededUniform { bound }),
            part(HEAD_BIAS, "bias", &[head.labels], Start::Zero),
        ]
    }

    /// What a client uploads, in the file's order: names and shapes.
    pub(crate) fn upload_tensors(&self, kind: Kind, instance: Instance<'_>) -> Vec<(String, Vec<usize>)> {
        let layout = match kind {
            Kind::WarmUp => self.warm_up_layout(),
            Kind::Train => self.layout(instance),
        };
        let sent = |named: NamedSpec| {
            let shape = named.spec.sent_shape()?.to_vec();
            Some((named.name, shape))
        };
        layout.into_iter().filter_map(sent).collect()
    }

    /// What a round publishes, in the file's order; `ranks` are those of
    /// the aggregated clients (laws that stack ask).
    pub(crate) fn published_tensors(&self, ranks: &[usize]) -> Vec<(String, Vec<usize>)> {
        self.published_with(|index| self.merged_height(index, ranks))
    }

    /// The same, with the height of each target's merged pair given.
    pub(crate) fn published_with(&self, height: impl Fn(usize) -> usize) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        let published = |named: NamedSpec| named.spec.travel.is_published().then_some((named.name, named.spec.shape));
        for (index, target) in self.targets().iter().enumerate() {
            all.extend(self.target_layout(index, Instance::OF_RUN).into_iter().filter_map(published));
            if let Some((outer, inner)) = self.law().merged() {
                let height = height(index);
                all.push((full_name(&target.name, inner), vec![height, target.inp]));
                all.push((full_name(&target.name, outer), vec![target.out, height]));
            }
        }
        all.extend(self.head_layout().into_iter().filter_map(published));
        all
    }

    /// Sum of the folded ranks of these clients.
    pub(crate) fn stacked(&self, index: usize, ranks: impl Iterator<Item = usize>) -> usize {
        ranks.map(|rank| self.folded_rank(index, rank)).sum()
    }

    /// Height of the pair that a round of these clients merges into a target.
    fn merged_height(&self, index: usize, ranks: &[usize]) -> usize {
        let stacked = self.stacked(index, ranks.iter().copied());
        if self.law().keeps_tensors() {
            let Target { out, inp, .. } = self.targets()[index];
            residual_rank(stacked, self.folded_rank(index, self.rank()), out, inp)
        } else {
            stacked
        }
    }

    /// Rows that a client of this rank adds to a target's stack.
    fn folded_rank(&self, index: usize, rank: usize) -> usize {
        let instance = Instance::OF_RUN.with_rank(rank);
        let layout = self.method().layout(self.config(), self.at(index, instance));
        let shape_of = |part: &str| layout.iter().find(|spec| spec.part == part).map(|spec| spec.shape.clone());
        // Every rank that a client may have was checked against the layout when the job was made.
        self.delta(index, instance).folded_rank(&shape_of).unwrap_or(rank)
    }

    /// What a frozen artefact holds, in the file's order.
    pub(crate) fn frozen_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let shipped = |named: &NamedSpec| named.spec.is_shipped_frozen();
        self.layout(Instance::OF_RUN).into_iter().filter(shipped).map(|named| (named.name, named.spec.shape)).collect()
    }

    /// Number format of a kind of upload.
    pub fn upload_dtype(&self, kind: Kind) -> Dtype {
        match kind {
            Kind::WarmUp => Dtype::F32,
            Kind::Train => self.wire_dtype(),
        }
    }

    /// What validation expects of a client, sorted by name.
    pub fn upload_manifest(&self, kind: Kind, instance: Instance<'_>) -> Vec<TensorEntry> {
        entries(&self.upload_tensors(kind, instance), self.upload_dtype(kind))
    }

    /// What the file of a finished round holds, sorted by name.
    pub fn published_manifest(&self, ranks: &[usize]) -> Vec<TensorEntry> {
        entries(&self.published_tensors(ranks), self.wire_dtype())
    }

    /// What a frozen artefact holds, sorted by name.
    pub fn frozen_manifest(&self) -> Vec<TensorEntry> {
        entries(&self.frozen_tensors(), Dtype::F32)
    }

    /// Bytes of an upload by the layout's formula: numbers
    /// times their width. The file adds its header.
    pub fn upload_bytes(&self, kind: Kind, instance: Instance<'_>) -> u64 {
        bytes(&self.upload_tensors(kind, instance), self.upload_dtype(kind))
    }

    /// Bytes of a published file by the layout's formula;
    /// `ranks` are those of the aggregated clients.
    pub fn published_bytes(&self, ranks: &[usize]) -> u64 {
        bytes(&self.published_tensors(ranks), self.wire_dtype())
    }

    /// Bytes of a frozen artefact by the layout's formula; 0 where the method ships none.
    pub fn frozen_bytes(&self) -> u64 {
        bytes(&self.frozen_tensors(), Dtype::F32)
    }
}

fn named(index: usize, target: &str, spec: TensorSpec) -> NamedSpec {
    NamedSpec { name: full_name(target, &spec.part), target: Some(index), spec }
}

pub(crate) fn entries(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Vec<TensorEntry> {
    let dtype = safetensors_name(dtype);
    let entry = |(name, shape): &(String, Vec<usize>)| TensorEntry {
        name: name.clone(),
        shape: shape.clone(),
        dtype: dtype.to_owned(),
    };
    let mut entries: Vec<TensorEntry> = tensors.iter().map(entry).collect();
    entries.sort();
    entries
}

fn bytes(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> u64 {
    tensors.iter().map(|(_, shape)| (shape.iter().product::<usize>() * dtype.width()) as u64).sum()
}
