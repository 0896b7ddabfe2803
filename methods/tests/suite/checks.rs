//! What must hold for every method (algorithms: linear laws, stacking, export), stated once.

use std::collections::BTreeMap;

use rondo_methods::export::peft;
use rondo_methods::tensor::parts_of;
use rondo_methods::{
    AdapterState, Contribution, Exactness, ExportInfo, Instance, Job, Kind, Matrix, Registry, Role, TensorFile,
    TensorSet, UpdateRefusal,
};
use rondo_proto::run_file::{Dtype, ServerOptimiser};

use super::{Federation, Trained, bytes_of, data_bytes, distance, no_metadata, noise, run_file, weighted};

/// One method under one set of options.
pub struct Case<'a> {
    pub registry: &'a Registry,
    pub id: &'a str,
    pub options: String,
}

const TIGHT: f64 = 1e-6;

/// True where a client's tensors depend on its name: then no two clients can be equal, nor renamed.
fn names_matter(federation: &Federation) -> bool {
    let layout = |client| federation.job.layout(federation.instance(client, 0));
    if layout("anna") != layout("bert") {
        return true;
    }
    let frozen = |named: &rondo_methods::NamedSpec| named.target.is_some() && named.spec.role != Role::Trained;
    federation.job.fresh_each_round() && federation.job.layout(Instance::OF_RUN).iter().any(frozen)
}

/// The adapter that an update is of.
fn instance_of(round: u32, update: &Contribution) -> Instance<'_> {
    Instance::in_round(round).with_rank(update.rank).of_client(&update.client)
}

impl Case<'_> {
    fn start(&self) -> Federation {
        Federation::start(self.registry, self.id, 3, &self.options, "")
    }

    /// The dense weighted mean of the clients' whole models.
    fn mean(federation: &Federation, trained: &[Trained]) -> Vec<Matrix> {
        let terms: Vec<(f64, Vec<Matrix>)> =
            trained.iter().map(|trained| (trained.weight, federation.models(trained))).collect();
        weighted(&terms)
    }

    pub fn all(&self) {
        self.zero_start();
        self.rounds_follow_the_mean();
        self.mixed_ranks_follow_the_mean();
        self.nothing_decays();
        self.server_optimisers();
        self.order_does_not_matter();
        self.equal_clients_are_one();
        self.halves_are_a_whole();
        self.forward_equals_merge();
        self.export_equals_delta();
        self.bytes_equal_the_layout();
        self.validation_accepts_its_own();
        self.bf16_on_the_wire();
    }

    /// The adapter changes nothing at first, where the method says so; and does, where it does not.
    fn zero_start(&self) {
        let federation = self.start();
        let deltas = federation.deltas(&federation.state("anna", 0));
        let promised = federation.job.starts_at_base();
        assert_eq!(deltas.iter().all(|delta| delta.norm() == 0.0), promised);
        assert_eq!(
            federation.job.layout(Instance::OF_RUN),
            federation.job.layout(Instance::in_round(0).with_rank(federation.job.rank()))
        );
        // All clients begin with the same head, fresh adapters or not.
        let head = |client: &str, round| {
            let mut tensors = federation.job.initial(round, client, 0);
            tensors.retain(|name, _| name.starts_with("head."));
            tensors
        };
        assert_eq!(head("anna", 1), head("bert", 2));
        assert_eq!(head("anna", 1).len(), 2);
    }

    /// Round after round, the published delta is the dense weighted mean, and the reported error is
    /// the measured one.
    fn rounds_follow_the_mean(&self) {
        let mut federation = self.start();
        for _ in 0..3 {
            let trained = federation.three();
            self.follow_the_mean(&mut federation, &trained);
        }
    }

    /// The same with ranks of the clients' own, at will and not always the run's among them.
    fn mixed_ranks_follow_the_mean(&self) {
        let mut federation = self.start();
        if !federation.job.mixed_ranks() {
            assert!(federation.job.client_rank(1).unwrap_err().to_string().contains("rondo method list"));
            return;
        }
        for ranks in [[1, 2, 1], [3, 1, 2], [1, 1, 1], [2, 3, 1]] {
            let trained = federation.three_of(ranks);
            self.follow_the_mean(&mut federation, &trained);
        }
    }

    fn follow_the_mean(&self, federation: &mut Federation, trained: &[Trained]) {
        let before = federation.state("observer", 0);
        let expected = Self::mean(federation, trained);
        let size: Vec<_> = trained.iter().map(|t| (t.weight, federation.own_deltas(t))).collect();
        let size: f64 = weighted(&size).iter().map(|matrix| matrix.norm().powi(2)).sum::<f64>().sqrt();
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        let round = federation.round;
        for update in &updates {
            federation.job.check_update(Kind::Train, instance_of(round, update), &update.path, None).unwrap();
            assert_eq!(data_bytes(&update.path), federation.job.upload_bytes(Kind::Train, instance_of(round, update)));
        }
        let output = federation.finish(Kind::Train, updates).unwrap();
        let after = federation.state("observer", 0);
        let got = federation.deltas(&after);
        let error = output.error.unwrap();
        match federation.job.exactness(round) {
            Exactness::Exact => {
                assert!(error <= TIGHT, "reported {error:e}");
                assert!(distance(&got, &expected) <= TIGHT, "measured {:e}", distance(&got, &expected));
            }
            Exactness::Approximate(_) => {
                // Low ranks may fit side by side into the run's; then an approximation can be
                // exact.
                let crowded = trained.iter().map(|trained| trained.rank).sum::<usize>() > federation.job.rank();
                assert!(error > 1e-3 || !crowded, "an approximation that shows no error: {error:e}");
                let measured = weighted(&[(1.0, got), (-1.0, expected)]);
                let measured = measured.iter().map(|matrix| matrix.norm().powi(2)).sum::<f64>().sqrt() / size;
                assert!((error - measured).abs() <= TIGHT, "reported {error:e}, measured {measured:e}");
            }
        }
        for named in
            federation.job.layout(Instance::in_round(round)).iter().filter(|named| named.spec.role == Role::Trained)
        {
            if named.spec.trained_shape().is_none() && output.frozen.is_none() {
                assert_eq!(after.tensors[&named.name], before.tensors[&named.name], "{} does not rest", named.name);
            }
        }
        self.head_is_averaged(federation, trained);
    }

    /// A round in which clients of low rank change nothing changes nothing, outside of what they
    /// hold too. (A cut to a lower rank, or zeros for what is not there, cannot keep this; they are
    /// no exact methods.)
    fn nothing_decays(&self) {
        let mut federation = self.start();
        if !federation.job.mixed_ranks() || federation.job.exactness_of_run() != Exactness::Exact {
            return;
        }
        let trained = federation.three();
        self.follow_the_mean(&mut federation, &trained);
        let before = federation.deltas(&federation.state("observer", 0));
        for _ in 0..3 {
            let idle = [federation.idle("anna", 0.9, 1), federation.idle("bert", 0.1, 2)];
            let updates = idle.iter().map(|idle| federation.upload(idle)).collect();
            federation.finish(Kind::Train, updates).unwrap();
            let after = federation.deltas(&federation.state("observer", 0));
            assert!(distance(&after, &before) <= TIGHT, "{:e}", distance(&after, &before));
        }
    }

    /// The trained tensors that are published, head included.
    fn published(federation: &Federation) -> TensorSet {
        let mut tensors = federation.state("observer", 0).tensors;
        let trained = federation.job.layout(Instance::OF_RUN);
        tensors.retain(|name, _| trained.iter().any(|named| named.name == *name && named.spec.role == Role::Trained));
        tensors
    }

    /// FedAvgM with beta1 = 0 and lr = 1 is plain averaging; with a momentum it moves as its
    /// recurrence says, the error reported is still that of the mean, and a state of another
    /// optimiser is refused. A method that cannot be stepped says so before any round.
    fn server_optimisers(&self) {
        let word = |optimiser: ServerOptimiser| serde_json::to_string(&optimiser).unwrap();
        let (momentum_word, adam_word) = (word(ServerOptimiser::FedAvgM), word(ServerOptimiser::FedAdam));
        let plain = format!("[server]\noptimiser = {momentum_word}\nlr = 1.0\nbeta1 = 0.0");
        let mut federation = self.start();
        let run = run_file(self.id, 3, &self.options, &plain);
        let job = Job::new(self.registry, &run, &super::base());
        if let Err(why) = federation.job.method().server_steps(federation.job.config()) {
            let text = job.unwrap_err().to_string();
            assert!(text.contains("`server.optimiser`") && text.contains(&why), "{text}");
            return;
        }
        let mut stepped = Federation::start(self.registry, self.id, 3, &self.options, &plain);
        let heavy = plain.replace("beta1 = 0.0", "beta1 = 0.5").replace("lr = 1.0", "lr = 0.25");
        let mut moved = Federation::start(self.registry, self.id, 3, &self.options, &heavy);
        let mut momentum: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for _ in 0..3 {
            let round = |federation: &mut Federation| {
                let trained = federation.three();
                let updates = trained.iter().map(|trained| federation.upload(trained)).collect();
                (trained, federation.finish(Kind::Train, updates).unwrap())
            };
            assert_eq!(round(&mut federation).1.server_state, None);
            assert!(round(&mut stepped).1.server_state.is_some());
            for (name, tensor) in Self::published(&federation) {
                let other = &Self::published(&stepped)[&name];
                assert!(tensor.data.iter().zip(&other.data).all(|(a, b)| (a - b).abs() <= 1e-6), "{name}");
            }
            // What the mean would be is asked of the same round without the optimiser.
            let before = Self::published(&moved);
            let twin = Federation {
                job: federation.job.clone(),
                dir: tempfile::tempdir().unwrap(),
                frozen: moved.frozen.clone(),
                published: moved.published.clone(),
                server_state: None,
                round: moved.round,
            };
            let (trained, output) = round(&mut moved);
            let updates = trained.iter().map(|trained| twin.upload(trained)).collect();
            let alone = twin.aggregate(Kind::Train, updates, "twin").unwrap();
            let difference = output.error.unwrap() - alone.error.unwrap();
            assert!(difference.abs() <= TIGHT, "reported {:?}, of the mean {:?}", output.error, alone.error);
            let mean = TensorFile::open(&alone.global).unwrap();
            for (name, after) in Self::published(&moved) {
                let mean = mean.read(&name).unwrap();
                let m = momentum.entry(name.clone()).or_insert_with(|| vec![0.0; mean.len()]);
                for (index, m) in m.iter_mut().enumerate() {
                    let x = f64::from(before[&name].data[index]);
                    *m = 0.5 * *m + f64::from(mean.data[index]) - x;
                    assert!((f64::from(after.data[index]) - (x + 0.25 * *m)).abs() <= 1e-6, "{name}[{index}]");
                }
            }
        }
        let adam = run_file(self.id, 3, &self.options, &format!("[server]\noptimiser = {adam_word}"));
        moved.job = Job::new(self.registry, &adam, &super::base()).unwrap();
        let updates: Vec<_> = moved.three().iter().map(|trained| moved.upload(trained)).collect();
        let error = moved.aggregate(Kind::Train, updates.clone(), "adam").unwrap_err().to_string();
        let unquoted = |word: &str| word.trim_matches('"').to_owned();
        assert!(error.contains(&unquoted(&momentum_word)) && error.contains(&unquoted(&adam_word)), "{error}");
        moved.server_state = None;
        let output = moved.aggregate(Kind::Train, updates, "adam").unwrap();
        let state = TensorFile::open(&output.server_state.unwrap()).unwrap();
        assert_eq!(state.entries().len(), 2 * Self::published(&moved).len());
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

    /// Neither the order of arrival nor the names that decide the order of summing change the
    /// result.
    fn order_does_not_matter(&self) {
        let federation = self.start();
        let trained = federation.three();
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        let reversed: Vec<_> = updates.iter().rev().cloned().collect();
        let one = federation.aggregate(Kind::Train, updates, "one").unwrap();
        let two = federation.aggregate(Kind::Train, reversed, "two").unwrap();
        assert_eq!(bytes_of(&one.global), bytes_of(&two.global));
        if names_matter(&federation) {
            return;
        }
        let mut renamed = trained.clone();
        renamed.iter_mut().zip(["zoe", "yves", "xaver"]).for_each(|(trained, name)| trained.client = name.into());
        let (one, two) = (federation.outcome(&trained, "three"), federation.outcome(&renamed, "four"));
        assert!(distance(&two, &one) <= TIGHT);
    }

    /// K clients with the same tensors publish what one of them alone would; and that is the
    /// client's own model.
    fn equal_clients_are_one(&self) {
        let federation = self.start();
        if names_matter(&federation) {
            return;
        }
        let rank = federation.job.rank();
        let before = federation.deltas(&federation.state("observer", 0));
        let one = federation.train("anna", 1.0, rank, "same");
        let own = federation.models(&one);
        assert!(distance(&own, &before) > 0.1, "training moves the adapter");
        let many: Vec<Trained> = [("anna", 0.5), ("bert", 0.25), ("carl", 0.25)]
            .iter()
            .map(|&(client, weight)| Trained { client: client.into(), weight, ..one.clone() })
            .collect();
        let (alone, together) = (federation.outcome(&[one], "alone"), federation.outcome(&many, "together"));
        assert!(distance(&alone, &own) <= TIGHT, "{:e}", distance(&alone, &own));
        assert!(distance(&together, &alone) <= TIGHT, "{:e}", distance(&together, &alone));
    }

    /// A client split into two with the same tensors and half the weight each changes nothing.
    fn halves_are_a_whole(&self) {
        let federation = self.start();
        if names_matter(&federation) {
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
        for (index, target) in federation.job.targets().iter().enumerate() {
            let delta = federation.job.delta(index, federation.instance("anna", 0));
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

    /// A PEFT folder read back stands for the same change and the same head; re-compression reports
    /// its error.
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
            assert_eq!(data_bytes(&upload), federation.job.upload_bytes(Kind::WarmUp, Instance::in_round(0)));
            assert_eq!(data_bytes(&federation.published[0]), federation.job.published_bytes(&[]));
            assert_eq!(data_bytes(federation.frozen.as_ref().unwrap()), federation.job.frozen_bytes());
        }
        let trained = federation.three();
        let ranks: Vec<usize> = trained.iter().map(|trained| trained.rank).collect();
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        for update in &updates {
            assert_eq!(
                data_bytes(&update.path),
                federation.job.upload_bytes(Kind::Train, instance_of(federation.round, update))
            );
            let manifest = TensorFile::open(&update.path).unwrap().entries();
            assert_eq!(manifest, federation.job.upload_manifest(Kind::Train, instance_of(federation.round, update)));
        }
        let output = federation.finish(Kind::Train, updates).unwrap();
        assert_eq!(data_bytes(&output.global), federation.job.published_bytes(&ranks));
        assert_eq!(TensorFile::open(&output.global).unwrap().entries(), federation.job.published_manifest(&ranks));
        if let Some(frozen) = &output.frozen {
            assert_eq!(data_bytes(frozen), federation.job.frozen_bytes());
            assert_eq!(TensorFile::open(frozen).unwrap().entries(), federation.job.frozen_manifest());
        }
    }

    /// Validation accepts a sound update, and nothing else.
    fn validation_accepts_its_own(&self) {
        let federation = self.start();
        let job = &federation.job;
        let rank = job.rank();
        let anna = federation.instance("anna", rank);
        let trained = federation.train("anna", 1.0, rank, "door");
        let update = federation.upload(&trained);
        let check = |path: &std::path::Path, limit| job.check_update(Kind::Train, anna, path, limit);
        let sent = job.upload_manifest(Kind::Train, anna);
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
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                *changed.get_mut(&entry.name).unwrap().data.last_mut().unwrap() = broken;
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
        assert!(matches!(
            job.check_update(Kind::Train, anna.with_rank(rank + 1), &update.path, None),
            Err(UpdateRefusal::Rank(_))
        ));
    }

    /// With bf16 on the wire everything still fits, at bf16's precision.
    fn bf16_on_the_wire(&self) {
        let mut federation = Federation::start(self.registry, self.id, 3, &self.options, "[wire]\ndtype = \"bf16\"");
        let trained = federation.three();
        let expected = Self::mean(&federation, &trained);
        let updates: Vec<_> = trained.iter().map(|trained| federation.upload(trained)).collect();
        for update in &updates {
            federation
                .job
                .check_update(Kind::Train, instance_of(federation.round, update), &update.path, None)
                .unwrap();
            assert_eq!(
                data_bytes(&update.path),
                federation.job.upload_bytes(Kind::Train, instance_of(federation.round, update))
            );
        }
        federation.finish(Kind::Train, updates).unwrap();
        if federation.job.exactness_of_run() == Exactness::Exact {
            let got = federation.deltas(&federation.state("observer", 0));
            assert!(distance(&got, &expected) < 2e-2, "{:e}", distance(&got, &expected));
        }
    }
}
