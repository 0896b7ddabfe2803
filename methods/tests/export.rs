//! PEFT folders in detail, and aggregation of files without a run.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use std::path::{Path, PathBuf};

use rondo_methods::export::peft;
use rondo_methods::law::shares;
use rondo_methods::{
    AdapterState, Contribution, ExportInfo, Instance, Job, Kind, MethodConfig, MethodError, OfflineInput,
    OfflineOutput, Registry, Role, Tensor, TensorFile, TensorSet, Travel, aggregate_files,
};
use rondo_proto::run_file::Dtype;
use suite::{Federation, base, distance, no_metadata, run_file};

fn config_of(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("adapter_config.json")).unwrap()).unwrap()
}

fn info(recompress: Option<usize>) -> ExportInfo {
    let provenance = [("privacy".to_owned(), "no privacy".to_owned())].into();
    ExportInfo { base_model_name: "models/tiny \"one\"".into(), provenance, recompress, ..ExportInfo::default() }
}

#[test]
fn folder_is_what_peft_expects() {
    let federation = Federation::start(&Registry::builtin(), "fedit", 3, "alpha = 4.5", "");
    let dir = federation.dir.path().join("out");
    federation.job.export_peft(&federation.state("anna", 0), &dir, &info(None)).unwrap();
    let file = TensorFile::open(&dir.join("adapter_model.safetensors")).unwrap();
    let names: Vec<String> = file.entries().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), 6);
    assert_eq!(names[0], "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight");
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.metadata()["rondo.method"], "fedit");
    assert_eq!(file.metadata()["privacy"], "no privacy");
    let config = config_of(&dir);
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(3), Some(4.5)));
    let targets: Vec<&str> = federation.job.targets().iter().map(|target| target.name.as_str()).collect();
    assert_eq!(config["target_modules"], serde_json::json!(targets));
    assert_eq!(config["rank_pattern"], serde_json::json!({}));
    let card = std::fs::read_to_string(dir.join("README.md")).unwrap();
    for text in ["base_model: \"models/tiny \\\"one\\\"\"", "no privacy", "`perhaps`", "PeftModel", "ICASSP 2024"] {
        assert!(card.contains(text), "{text} not in\n{card}");
    }
}

/// Weights saved from a model with a head on top name their layers "bert.encoder..."; the bare
/// model does not.
#[test]
fn architecture_prefix_is_left_out() {
    let mut base = base();
    base.linears.iter_mut().for_each(|linear| linear.name = format!("bert.{}", linear.name));
    let job = Job::new(&Registry::builtin(), &run_file("fedit", 2, "", ""), &base).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let state = job.state(1, "anna", 0, None, &[]).unwrap();
    job.export_peft(&state, dir.path(), &info(None)).unwrap();
    assert_eq!(peft::load(dir.path()).unwrap().targets[0].name, "encoder.layer.0.attention.self.query");
    assert_eq!(config_of(dir.path())["target_modules"][0], "encoder.layer.0.attention.self.query");
}

/// FLoRA's stacks side by side; re-compressed, the narrowest target stops at its own dimensions.
#[test]
fn stacks_accumulate_and_ranks_may_differ() {
    let mut federation = Federation::start(&Registry::builtin(), "flora", 3, "alpha = 6.0", "");
    for _ in 0..2 {
        let updates = federation.three().iter().map(|trained| federation.upload(trained)).collect();
        federation.finish(Kind::Train, updates).unwrap();
    }
    let state = federation.state("anna", 0);
    let dir = federation.dir.path().join("whole");
    let report = federation.job.export_peft(&state, &dir, &info(None)).unwrap();
    // Ranks 3, 2, 3 in each of two rounds.
    assert_eq!(report.rank, 16);
    assert_eq!(config_of(&dir)["lora_alpha"], 16);
    let dir = federation.dir.path().join("full-rank");
    let report = federation.job.export_peft(&state, &dir, &info(Some(6))).unwrap();
    // 6 is all that the first two can have, the third has 5: nothing is lost.
    assert!(report.recompression_error.unwrap() < 1e-7);
    let config = config_of(&dir);
    assert_eq!(config["r"], 6);
    assert_eq!(config["rank_pattern"], serde_json::json!({"encoder.layer.0.output.dense": 5}));
    assert_eq!(config["alpha_pattern"], serde_json::json!({"encoder.layer.0.output.dense": 5}));
    let adapter = peft::load(&dir).unwrap();
    let deltas = federation.deltas(&state);
    for (target, delta) in federation.job.targets().iter().zip(deltas) {
        let read = adapter.targets.iter().find(|read| read.name == target.name).unwrap();
        assert!(distance(&[read.dense()], &[delta]) < 1e-6);
    }
    assert!(matches!(federation.job.export_peft(&state, &dir, &info(Some(0))), Err(MethodError::Export(_))));
    // Before the first round the fresh adapter itself is all there is.
    let fresh = Federation::start(&Registry::builtin(), "flora", 3, "", "");
    let report = fresh.job.export_peft(&fresh.state("anna", 0), &dir, &info(None)).unwrap();
    assert_eq!(report.rank, 3);
}

#[test]
fn folders_of_others_are_read_by_their_own_rules() {
    let dir = tempfile::tempdir().unwrap();
    let write = |config: serde_json::Value| {
        std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
        let tensor = |shape: &[usize]| Tensor { shape: shape.to_vec(), data: vec![1.0; shape.iter().product()] };
        let tensors: TensorSet = [("a.query", 4), ("b.query", 2)]
            .iter()
            .flat_map(|(name, r)| {
                [("lora_A", [*r, 3]), ("lora_B", [5, *r])]
                    .map(|(factor, shape)| (format!("base_model.model.{name}.{factor}.weight"), tensor(&shape)))
            })
            .collect();
        rondo_methods::file::write(
            &dir.path().join("adapter_model.safetensors"),
            &tensors,
            Dtype::Bf16,
            &no_metadata(),
        )
        .unwrap();
        peft::load(dir.path())
    };
    let json = serde_json::json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"b.query": 2}, "alpha_pattern": {"b.query": 6.0},
        "target_modules": ["query"],
    });
    let adapter = write(json.clone()).unwrap();
    assert_eq!(adapter.targets.iter().map(|target| target.scale).collect::<Vec<_>>(), [2.0, 3.0]);
    assert!(adapter.head.is_none());
    let mut rslora = json.clone();
    rslora["use_rslora"] = true.into();
    assert_eq!(write(rslora).unwrap().targets[0].scale, 4.0);
    let mut other = json.clone();
    other["rank_pattern"] = serde_json::json!({});
    assert!(write(other).unwrap_err().to_string().contains("its rank is 4"));
    let mut other = json;
    other["peft_type"] = "VERA".into();
    assert!(write(other).is_err());
    let refused = write(serde_json::json!({ "peft_type": "MISS", "r": 4 })).unwrap_err().to_string();
    assert!(refused.contains("`peft_type` is \"MISS\""), "{refused}");
    assert!(peft::load(&dir.path().join("nowhere")).is_err());
}

/// Both forms of one adapter: as PEFT's MissConfig (0.21) reads it, and as a
/// plain pair B = D^T, A = the tiling, alpha = r.
#[test]
fn miss_in_pefts_own_type_and_as_a_pair() {
    let federation = Federation::start(&Registry::builtin(), "miss", 4, "", "");
    let trained = federation.train("anna", 1.0, 0, "native").tensors;
    let state = AdapterState { tensors: trained, ..federation.state("anna", 0) };
    let [native, pair] = ["native", "pair"].map(|name| federation.dir.path().join(name));
    federation.job.export_native(&state, &native, &info(None)).unwrap();
    federation.job.export_peft(&state, &pair, &info(None)).unwrap();
    let config = config_of(&native);
    assert_eq!(
        (&config["peft_type"], &config["r"], &config["init_weights"]),
        (&"MISS".into(), &4.into(), &true.into())
    );
    assert_eq!(config_of(&pair)["lora_alpha"], 4);
    let file = TensorFile::open(&native.join("adapter_model.safetensors")).unwrap();
    let adapter = peft::load(&pair).unwrap();
    for target in federation.job.targets() {
        let d = file.read(&format!("base_model.model.{}.miss_block", target.name)).unwrap();
        assert_eq!(d, state.tensors[&format!("{}.miss_D", target.name)]);
        let read = adapter.targets.iter().find(|read| read.name == target.name).unwrap();
        assert_eq!(read.b.to_matrix(), d.to_matrix().transposed());
        let ones = |k: usize, j: usize| if j % 4 == k { 1.0 } else { 0.0 };
        let tiling: Vec<f32> = (0..4).flat_map(|k| (0..target.inp).map(move |j| ones(k, j))).collect();
        assert_eq!((&read.a.data, read.scale), (&tiling, 1.0));
    }
}

/// The law on plain files gives what a run's aggregation gives.
#[test]
fn offline_equals_a_run() {
    let registry = Registry::builtin();
    // FedSVD's coordinator goes on from the mean: it derives the factors anew.
    for id in registry.iter().map(|method| method.id()).filter(|id| *id != "fedsvd") {
        let mut federation = Federation::start(&registry, id, 3, "", "");
        let first = federation.three().iter().map(|trained| federation.upload(trained)).collect();
        federation.finish(Kind::Train, first).unwrap();
        let global = federation.published.last().cloned();
        let trained = federation.three();
        let updates: Vec<Contribution> = trained.iter().map(|trained| federation.upload(trained)).collect();
        let run = federation.aggregate(Kind::Train, updates.clone(), "run").unwrap();
        let config =
            MethodConfig::new(&run_file(id, 3, "", "").method, registry.get(id).unwrap().options(), 0.01, 7).unwrap();
        let offline = |updates: &[Contribution], frozen: Option<&PathBuf>, global: Option<&Path>| {
            let out = federation.dir.path().join("offline.safetensors");
            let method = registry.get(id).unwrap();
            let frozen = frozen.map(PathBuf::as_path);
            let input = OfflineInput { method, config: &config, updates, frozen, global, out: &out };
            aggregate_files(&input).map(|output| (output, out))
        };
        let (output, out): (OfflineOutput, _) =
            offline(&updates, federation.frozen.as_ref(), global.as_deref()).unwrap();
        assert_eq!(output.targets.len(), 3);
        let tensors = |path: &Path| TensorFile::open(path).unwrap().read_all(|_| true).unwrap();
        assert_eq!(tensors(&out), tensors(&run.global), "{id}");
        // A frozen part that never travels, as FFA-LoRA's A, is nowhere in
        // these files; then the error cannot be measured.
        let layout = federation.job.layout(Instance::OF_RUN);
        let lacks = layout.iter().any(|named| named.spec.role != Role::Trained && named.spec.travel == Travel::Never);
        assert_eq!(output.error, if lacks { None } else { run.error }, "{id}");
        // Whole adapters, frozen parts included.
        let whole: Vec<Contribution> = trained
            .iter()
            .map(|trained| {
                let path = federation.dir.path().join(format!("whole-{}", trained.client));
                rondo_methods::file::write(&path, &trained.tensors, Dtype::F32, &no_metadata()).unwrap();
                Contribution { path, client: trained.client.clone(), weight: trained.weight, rank: trained.rank }
            })
            .collect();
        let (output, _) = offline(&whole, None, None).unwrap();
        assert_eq!(output.error, run.error, "{id}");
        // Something that is not the method's.
        let renamed = federation.dir.path().join("renamed");
        let tensors = TensorSet::from([("x.query.gate".to_owned(), Tensor::zeros(&[2]))]);
        rondo_methods::file::write(&renamed, &tensors, Dtype::F32, &no_metadata()).unwrap();
        let weight = shares(&[1.0]).unwrap()[0];
        let renamed = [Contribution { path: renamed, client: "renamed".into(), weight, rank: 3 }];
        let error = offline(&renamed, None, None).unwrap_err().to_string();
        assert!(error.contains("`x.query.gate` is no tensor of method"), "{error}");
    }
}
