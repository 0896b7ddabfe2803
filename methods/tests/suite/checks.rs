//! What must hold for every method (algorithms: linear laws, stacking, export), stated once.

use rondo_methods::export::peft;
use rondo_methods::tensor::parts_of;
use rondo_methods::{
    AdapterState, Exactness, ExportInfo, Kind, Matrix, Publication, Registry, Role, TensorFile, UpdateRefusal,
};
use rondo_proto::run_file::Dtype;

use super::{Federation, Trained, bytes_of, data_bytes, distance, no_metadata, noise, weighted};

/// One method under one set of options.
pub struct Case<'a> {
    pub registry: &'a Registry,
    pub id: &'a str,
    pub options: String,
}

const TIGHT: f64 = 1e-6;

/// True where a client's frozen tensors depend on its name: then no two clients can be equal, nor renamed.
fn names_are_seeds(federation: &Federation) -> bool {
    let frozen = |named: &rondo_methods::NamedSpec| named.target.is_some() && named.spec.role != Role::Trained;
    federation.job.method().fresh_each_round() && federation.job.layout(0).iter().any(frozen)
}

impl Case<'_> {
    fn start(&self) -> Federation {
        Federation::start(self.registry, self.id, 3, &self.options, "")
    }

    fn mean(federation: &Federation, trained: &[Trained]) -> Vec<Matrix> {
        let terms: Vec<(f64, Vec<Matrix>)> =
            trained.iter().map(|trained| (trained.weight, federation.own_deltas(trained))).collect();
        weighted(&terms)
    }

    pub fn all(&self) {
        self.zero_start();
        self.rounds_follow_the_mean();
        self.order_does_not_matter();
        self.equal_clients_are_one();
        self.halves_are_a_whole();
        self.forward_equals_merge();
        self.export_equals_delta();
        self.bytes_equal_the_layout();
        self.door_knows_its_own();
        self.bf16_on_the_wire();
    }

    /// The adapter changes nothing at first, where the method promises it; and does, where it does not.
    fn zero_start(&self) {
        let federation = self.start();
        let deltas = federation.deltas(&federation.state("anna", 0));
        let promised = federation.job.method().starts_at_base(federation.job.config());
        assert_eq!(deltas.iter().all(|delta| delta.norm() == 0.0), promised);
        assert_eq!(federation.job.layout(0), federation.job.layout(federation.job.rank()));
        // All clients begin with the same head, fresh adapters or not.
        let head = |client: &str, round| {
            let mut tensors = federation.job.initial(round, client, 0);
            tensors.retain(|name, _| name.starts_with("head."));
            tensors
        };
        assert_eq!(head("anna", 1), head("bert", 2));
        assert_eq!(head("anna", 1).len(), 2);
    }

    /// Round after round, the published delta is the dense weighted mean, and the reported error is the measured one.
    fn rounds_follow_the_mean(&self) {
        let mut federation = self.start();
        for _ in 0..3 {
            let before = federation.deltas(&federation.state("observer", 0));
            let trained = federation.three();
            let mut expected = Self::mean(&federation, &trained);
            let size: f64 = expected.iter().map(|matrix| matrix.norm().powi(2)).sum::<f64>().sqrt();
            let merges = federation.job.publication() == Publication::Accumulate;
            if merges {
                expected = weighted(&[(1.0, expected), (1.0, before)]);
            }
            let updates = trained.iter().map(|trained| federation.upload(trained)).collect();
            let output = federation.finish(Kind::Train, updates).unwrap();
            let got = federation.deltas(&federation.state("observer", 0));
            let error = output.error.unwrap();
            match federation.job.exactness() {
                Exactness::Exact => {
                    assert!(error <= TIGHT, "reported {error:e}");
                    assert!(distance(&got, &expected) <= TIGHT, "measured {:e}", distance(&got, &expected));
                }
                Exactness::Approximate(_) => {
                    assert!(error > 1e-3, "an approximation that shows no error: {error:e}");
                    let measured = weighted(&[(1.0, got), (-1.0, expected)]);
                    let measured = measured.iter().map(|matrix| matrix.norm().powi(2)).sum::<f64>().sqrt() / size;
                    assert!((error - measured).abs() <= TIGHT, "reported {error:e}, measured {measured:e}");
                }
            }
            self.head_is_averaged(&federation, &trained);
        }
    }

    fn head_is_averaged(&self, federation: &Federation, trained: &[Trained]) {
        let state = federation.state("observer", 0);
        for (name, tensor) in state.tensors.iter().filter(|(name, _)| name.starts_with("head.")) {
            for (index, &x) in tensor.data.iter().enumerate() {
                let mean: f64 = trained.iter().map(|t| t.weight * f64::from(t.tensors[name].data[index])).sum();
                assert!((f64::from(x) - mean).abs() < 1e-6, "{name}[{index}]");
            }
        }
    }

    /// Neither the order of arrival nor the names that decide the order of summing change the result.
    fn order_does_not_matter(&self) {
        let federation = self.start();
        let trained = federation.three();
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        let reversed: Vec<_> = updates.iter().rev().cloned().collect();
        let one = federation.aggregate(Kind::Train, updates, "one").unwrap();
        let two = federation.aggregate(Kind::Train, reversed, "two").unwrap();
        assert_eq!(bytes_of(&one.global), bytes_of(&two.global));
        if names_are_seeds(&federation) {
            return;
        }
        let mut renamed = trained.clone();
        renamed.iter_mut().zip(["zoe", "yves", "xaver"]).for_each(|(trained, name)| trained.client = name.into());
        let (one, two) = (federation.outcome(&trained, "three"), federation.outcome(&renamed, "four"));
        assert!(distance(&two, &one) <= TIGHT);
    }

    /// K clients with the same tensors publish what one of them alone would; and that is the client's own model.
    fn equal_clients_are_one(&self) {
        let federation = self.start();
        if names_are_seeds(&federation) {
            return;
        }
        let rank = federation.job.rank();
        let before = federation.deltas(&federation.state("observer", 0));
        let one = federation.train("anna", 1.0, rank, "same");
        assert!(distance(&federation.own_deltas(&one), &before) > 0.1, "training moves the adapter");
        let many: Vec<Trained> = [("anna", 0.5), ("bert", 0.25), ("carl", 0.25)]
            .iter()
            .map(|&(client, weight)| Trained { client: client.into(), weight, ..one.clone() })
            .collect();
        let mut own = federation.own_deltas(&one);
        if federation.job.publication() == Publication::Accumulate {
            own = weighted(&[(1.0, own), (1.0, before)]);
        }
        let (alone, together) = (federation.outcome(&[one], "alone"), federation.outcome(&many, "together"));
        assert!(distance(&alone, &own) <= TIGHT, "{:e}", distance(&alone, &own));
        assert!(distance(&together, &alone) <= TIGHT, "{:e}", distance(&together, &alone));
    }

    /// A client split into two with the same tensors and half the weight each changes nothing.
    fn halves_are_a_whole(&self) {
        let federation = self.start();
        if names_are_seeds(&federation) {
            return;
        }
        let whole = federation.three();
        let mut split = whole.clone();
        split[1].weight /= 2.0;
        split.push(Trained { client: "bert-2".into(), ..split[1].clone() });
        let (whole, split) = (federation.outcome(&whole, "whole"), federation.outcome(&split, "split"));
        assert!(distance(&split, &whole) <= TIGHT);
    }

    /// x (W0 + dW)^T = x W0^T + (dW applied to x factor by factor), and unmerging gives W0 back.
    fn forward_equals_merge(&self) {
        let federation = self.start();
        let trained = federation.train("anna", 1.0, 0, "forward");
        let delta = federation.job.delta(federation.job.rank());
        for target in federation.job.targets() {
            let parts = parts_of(&trained.tensors, &target.name);
            let dense = delta.dense(&parts).unwrap();
            let weight = noise("weight", &[target.out, target.inp], 1.0).to_matrix();
            let x = noise("x", &[4, target.inp], 1.0).to_matrix();
            let mut merged = weight.clone();
            merged.add_scaled(1.0, &dense);
            let mut forward = x.times(&weight.transposed());
            forward.add_scaled(1.0, &delta.apply(&x, &parts).unwrap());
            assert!(distance(&[forward], &[x.times(&merged.transposed())]) <= 1e-12);
            assert!(distance(&[delta.fold(&parts).unwrap().dense()], std::slice::from_ref(&dense)) <= 1e-12);
            merged.add_scaled(-1.0, &dense);
            assert!(distance(&[merged], &[weight]) <= 1e-12);
        }
    }

    /// A PEFT folder read back stands for the same change and the same head; re-compression reports its error.
    fn export_equals_delta(&self) {
        let mut federation = self.start();
        for _ in 0..2 {
            let updates = federation.three().iter().map(|trained| federation.upload(trained)).collect();
            federation.finish(Kind::Train, updates).unwrap();
        }
        let state = federation.state("observer", 0);
        let deltas = federation.deltas(&state);
        let read = |folder: &str, recompress: Option<usize>| {
            let dir = federation.dir.path().join(folder);
            let info = ExportInfo {
                base_model_name: "tiny".into(),
                provenance: [("round".to_owned(), "2".to_owned())].into(),
                recompress,
                ..ExportInfo::default()
            };
            let report = federation.job.export_peft(&state, &dir, &info).unwrap();
            assert!(report.files.iter().all(|file| file.exists()));
            let adapter = peft::load(&dir).unwrap();
            let mut dense = Vec::new();
            for target in federation.job.targets() {
                dense.push(adapter.targets.iter().find(|read| read.name == target.name).unwrap().dense());
            }
            assert_eq!(adapter.targets.len(), federation.job.targets().len());
            let head = adapter.head.unwrap();
            assert_eq!(head.weight, state.tensors["head.weight"]);
            assert_eq!(head.bias, state.tensors["head.bias"]);
            assert_eq!(head.labels, ["no", "perhaps", "yes"]);
            (report, dense)
        };
        let (report, dense) = read("export", None);
        assert!(distance(&dense, &deltas) <= TIGHT, "{:e}", distance(&dense, &deltas));
        assert_eq!(report.recompression_error, None);
        // An adapter that was trained on and never aggregated is exported too.
        let trained = federation.train("anna", 1.0, 0, "alone");
        let alone = AdapterState { tensors: trained.tensors, ..state.clone() };
        let dir = federation.dir.path().join("trained");
        federation.job.export_peft(&alone, &dir, &ExportInfo::default()).unwrap();
        let adapter = peft::load(&dir).unwrap();
        for (target, delta) in federation.job.targets().iter().zip(federation.deltas(&alone)) {
            let dense = adapter.targets.iter().find(|read| read.name == target.name).unwrap().dense();
            assert!(distance(&[dense], &[delta]) <= TIGHT);
        }
        let (report, dense) = read("smaller", Some(1));
        assert_eq!(report.rank, 1);
        let measured = distance(&dense, &deltas);
        assert!((report.recompression_error.unwrap() - measured).abs() <= TIGHT, "{measured:e} {report:?}");
    }

    /// Files hold exactly the numbers that the layout's formula counts.
    fn bytes_equal_the_layout(&self) {
        let mut federation = self.start();
        if federation.job.needs_warm_up() {
            let upload = federation.dir.path().join("warm-up-a.safetensors");
            assert_eq!(data_bytes(&upload), federation.job.upload_bytes(Kind::WarmUp, federation.job.rank()));
            assert_eq!(data_bytes(&federation.published[0]), federation.job.published_bytes(&[]));
            assert_eq!(data_bytes(federation.frozen.as_ref().unwrap()), federation.job.frozen_bytes());
        }
        let trained = federation.three();
        let ranks: Vec<usize> = trained.iter().map(|trained| trained.rank).collect();
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        for update in &updates {
            assert_eq!(data_bytes(&update.path), federation.job.upload_bytes(Kind::Train, update.rank));
            let manifest = TensorFile::open(&update.path).unwrap().entries();
            assert_eq!(manifest, federation.job.upload_manifest(Kind::Train, update.rank));
        }
        let output = federation.finish(Kind::Train, updates).unwrap();
        assert_eq!(data_bytes(&output.global), federation.job.published_bytes(&ranks));
        assert_eq!(TensorFile::open(&output.global).unwrap().entries(), federation.job.published_manifest(&ranks));
        if let Some(frozen) = &output.frozen {
            assert_eq!(data_bytes(frozen), federation.job.frozen_bytes());
            assert_eq!(TensorFile::open(frozen).unwrap().entries(), federation.job.frozen_manifest());
        }
    }

    /// The door lets a sound update in, and nothing else.
    fn door_knows_its_own(&self) {
        let federation = self.start();
        let job = &federation.job;
        let rank = job.rank();
        let trained = federation.train("anna", 1.0, rank, "door");
        let update = federation.upload(&trained);
        let check = |path: &std::path::Path, limit| job.check_update(Kind::Train, rank, path, limit);
        let sent = job.upload_manifest(Kind::Train, rank);
        let squares = sent.iter().flat_map(|entry| &trained.tensors[&entry.name].data).map(|&x| f64::from(x).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let facts = check(&update.path, None).unwrap();
        assert!((facts.norm - norm).abs() < 1e-9 * norm);
        assert!(check(&update.path, Some(norm * 1.01)).is_ok());
        assert!(matches!(check(&update.path, Some(norm * 0.99)), Err(UpdateRefusal::Norm { .. })));

        let other = federation.dir.path().join("other.safetensors");
        let write = |tensors: &rondo_methods::TensorSet, dtype| {
            rondo_methods::file::write(&other, tensors, dtype, &no_metadata()).unwrap();
            check(&other, None)
        };
        let whole: rondo_methods::TensorSet =
            sent.iter().map(|entry| (entry.name.clone(), trained.tensors[&entry.name].clone())).collect();
        assert!(write(&whole, Dtype::F32).is_ok());
        assert!(matches!(write(&whole, Dtype::Bf16), Err(UpdateRefusal::Manifest { .. })));
        for entry in &sent {
            let mut changed = whole.clone();
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                *changed.get_mut(&entry.name).unwrap().data.last_mut().unwrap() = odd;
                assert!(matches!(write(&changed, Dtype::F32), Err(UpdateRefusal::NotFinite { .. })));
            }
            let mut changed = whole.clone();
            changed.get_mut(&entry.name).unwrap().shape.push(1);
            assert!(matches!(write(&changed, Dtype::F32), Err(UpdateRefusal::Manifest { .. })));
            let mut changed = whole.clone();
            changed.remove(&entry.name);
            assert!(matches!(write(&changed, Dtype::F32), Err(UpdateRefusal::Manifest { .. })));
        }
        let bytes = bytes_of(&update.path);
        std::fs::write(&other, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(check(&other, None), Err(UpdateRefusal::Unreadable(_))));
        assert!(matches!(job.check_update(Kind::Train, rank + 1, &update.path, None), Err(UpdateRefusal::Rank(_))));
    }

    /// With bf16 on the wire everything still fits, at bf16's precision.
    fn bf16_on_the_wire(&self) {
        let mut federation = Federation::start(self.registry, self.id, 3, &self.options, "[wire]\ndtype = \"bf16\"");
        let trained = federation.three();
        let expected = Self::mean(&federation, &trained);
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        for update in &updates {
            federation.job.check_update(Kind::Train, update.rank, &update.path, None).unwrap();
            assert_eq!(data_bytes(&update.path), federation.job.upload_bytes(Kind::Train, update.rank));
        }
        federation.finish(Kind::Train, updates).unwrap();
        if federation.job.exactness() == Exactness::Exact {
            let got = federation.deltas(&federation.state("observer", 0));
            assert!(distance(&got, &expected) < 2e-2, "{:e}", distance(&got, &expected));
        }
    }
}
