//! Runs that start from an adapter: the conversion from PEFT, the fixed offset under every method,
//! and what is refused.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rondo_base::HEAD_FILE;
use rondo_methods::export::peft::{self, CONFIG_FILE, WEIGHTS_FILE};
use rondo_methods::start_adapter::convert;
use rondo_methods::{ExportInfo, Job, Kind, Matrix, MethodError, Registry, StartAdapter, Tensor, TensorSet, file};
use rondo_proto::run_file::{Dtype, RunFile};
use serde_json::{Value, json};
use suite::{Federation, base, distance, no_metadata, noise, run_file, weighted};

const QUERY: &str = "encoder.layer.0.attention.self.query";
const KEY: &str = "encoder.layer.0.attention.self.key";
const OUTPUT: &str = "encoder.layer.0.output.dense";

fn run() -> RunFile {
    run_file("fedit", 2, "", "")
}

/// A PEFT folder with these factors (module, out, in, rank) and options beside the usual ones.
fn folder(dir: &Path, modules: &[(&str, usize, usize, usize)], options: Value, more: TensorSet) -> TensorSet {
    let mut tensors = more;
    for (module, out, inp, rank) in modules {
        for (factor, shape) in [("lora_A", [*rank, *inp]), ("lora_B", [*out, *rank])] {
            let name = format!("base_model.model.{module}.{factor}.weight");
            tensors.insert(name.clone(), noise(&name, &shape, 1.0));
        }
    }
    let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"});
    let (Value::Object(all), Value::Object(options)) = (&mut config, options) else { panic!("no objects") };
    all.extend(options);
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(CONFIG_FILE), config.to_string()).unwrap();
    file::write(&dir.join(WEIGHTS_FILE), &tensors, Dtype::F32, &no_metadata()).unwrap();
    tensors
}

fn converted(dir: &Path) -> Result<StartAdapter, MethodError> {
    convert(dir, &base(), &run().task, &dir.join("initial.safetensors"))
}

fn refused(dir: &Path) -> String {
    converted(dir).unwrap_err().to_string()
}

fn dense(initial: &StartAdapter, layer: &str) -> Matrix {
    let (delta, parts) = initial.delta(layer).unwrap();
    delta.dense(&parts).unwrap()
}

proptest! {
    /// (alpha / r) B.A or (alpha / sqrt r) B.A, as written out here, with the ranks and alphas of
    /// patterns.
    #[test]
    fn a_converted_change_is_the_change(
        alpha in 0.1_f64..64.0, other in 0.1_f64..64.0, rank in 1_usize..6, narrow in 1_usize..4, rslora: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = json!({
            "r": rank, "lora_alpha": alpha, "use_rslora": rslora,
            "rank_pattern": {"output\\.dense": narrow}, "alpha_pattern": {".*[0-9]\\.output\\.dense": other},
        });
        // Saved from a model with a head on top, whose modules have its name in front.
        let long = format!("bert.{QUERY}");
        let tensors = folder(dir.path(), &[(&long, 6, 6, rank), (OUTPUT, 5, 9, narrow)], options, TensorSet::new());
        let initial = converted(dir.path()).unwrap();
        for (module, layer, rank, alpha) in [(long.as_str(), QUERY, rank, alpha), (OUTPUT, OUTPUT, narrow, other)] {
            let factor = |name: &str| tensors[&format!("base_model.model.{module}.{name}.weight")].to_matrix();
            let scale = alpha / if rslora { (rank as f64).sqrt() } else { rank as f64 };
            let expected = factor("lora_B").times(&factor("lora_A")).scaled(scale);
            prop_assert!(distance(&[dense(&initial, layer)], &[expected]) < 1e-6);
        }
        prop_assert_eq!(initial.message().targets, [QUERY, OUTPUT]);
    }
}

/// Two rounds of a run as a folder, and its change of every target.
fn exported(id: &str, into: &Path) -> Vec<Matrix> {
    let registry = Registry::builtin();
    let mut federation = Federation::start(&registry, id, 3, "", "");
    for _ in 0..2 {
        let updates = federation.three().iter().map(|trained| federation.upload(trained)).collect();
        federation.finish(Kind::Train, updates).unwrap();
    }
    let state = federation.state("observer", 0);
    federation.job.export_peft(&state, into, &ExportInfo::default()).unwrap();
    federation.deltas(&state)
}

/// What clients make of it does not depend on it in this suite, so a run that starts from an
/// adapter is the same run without it, moved by a constant.
#[test]
fn every_method_stands_on_the_adapter_it_started_from() {
    let registry = Registry::builtin();
    let dir = tempfile::tempdir().unwrap();
    let before = exported("flora", dir.path());
    let initial = converted(dir.path()).unwrap();
    let path = dir.path().join("initial.safetensors");
    assert_eq!(StartAdapter::open(&path).unwrap().message(), initial.message());
    for method in registry.iter() {
        let id = method.id();
        let job = Job::new(&registry, &run_file(id, 3, "", ""), &base()).unwrap();
        let mut plain = Federation::of(job.clone());
        let mut moved = Federation::of(job.starting_from(&path).unwrap());
        for round in 0..3 {
            let rank = if job.mixed_ranks() { 2 } else { 0 };
            let [still, shifted] = [&plain, &moved].map(|run| run.deltas(&run.state("observer", rank)));
            let sum = weighted(&[(1.0, still), (1.0, before.clone())]);
            assert!(distance(&shifted, &sum) < 1e-6, "{id} round {round}");
            for run in [&mut plain, &mut moved] {
                let updates = run.three().iter().map(|trained| run.upload(trained)).collect();
                let output = run.finish(Kind::Train, updates).unwrap();
                assert!(output.error.is_some());
            }
        }
        let [still, shifted] = [&plain, &moved].map(|run| run.deltas(&run.state("observer", 0)));
        let sum = weighted(&[(1.0, still), (1.0, before.clone())]);
        assert!(distance(&shifted, &sum) < 1e-6, "{id}");
        // And so is its export, as one adapter of the summed rank.
        let out = moved.dir.path().join("peft");
        moved.job.export_peft(&moved.state("observer", 0), &out, &ExportInfo::default()).unwrap();
        let adapter = peft::load(&out).unwrap();
        for (target, sum) in moved.job.targets().iter().zip(sum) {
            let read = adapter.targets.iter().find(|read| read.name == target.name).unwrap();
            assert!(distance(&[read.dense()], &[sum]) < 1e-5, "{id}");
        }
        // A client that left the adapter out would not get beyond the first published file.
        let error = job.state(3, "anna", 0, moved.frozen.as_deref(), &moved.published).unwrap_err().to_string();
        assert!(error.contains("stands on initial adapter blake3:") && error.contains("this run's is none"), "{error}");
    }
}

/// Every key is a factor with its partner, or is refused by name; `.default.` is read as PEFT 0.21
/// reads it, another adapter's name is not.
#[test]
fn keys_are_read_as_peft_reads_them_or_refused_by_name() {
    let key = |part: &str| format!("base_model.model.{QUERY}.{part}");
    let read = |change: &dyn Fn(&mut TensorSet)| {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = folder(dir.path(), &[(QUERY, 6, 6, 4), (KEY, 6, 6, 4)], json!({}), TensorSet::new());
        change(&mut tensors);
        file::write(&dir.path().join(WEIGHTS_FILE), &tensors, Dtype::F32, &no_metadata()).unwrap();
        peft::load(dir.path()).map(|adapter| adapter.targets).map_err(|error| error.to_string())
    };
    let plain = read(&|_| ()).unwrap();
    let rename = |tensors: &mut TensorSet, to: &str| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.replace(".weight", &format!(".{to}.weight")), tensor))
            .collect();
    };
    assert_eq!(read(&|tensors| rename(tensors, "default")).unwrap(), plain);
    let error = read(&|tensors| rename(tensors, "mine")).unwrap_err();
    assert!(error.contains(".lora_A.mine.weight") && error.contains("other than `default`"), "{error}");
    for (gone, kept) in [("lora_A", "lora_B"), ("lora_B", "lora_A")] {
        let error = read(&|tensors| drop(tensors.remove(&key(&format!("{gone}.weight"))))).unwrap_err();
        assert!(error.contains(&format!("lacks `{}`", key(&format!("{gone}.weight")))), "without {gone}: {error}");
        let alone = |tensors: &mut TensorSet| tensors.retain(|name, _| name.contains(kept));
        assert!(read(&alone).unwrap_err().contains("lacks `"), "{kept} alone");
    }
    let twice = |tensors: &mut TensorSet| {
        let tensor = tensors[&key("lora_A.weight")].clone();
        tensors.insert(key("lora_A.default.weight"), tensor);
    };
    assert!(read(&twice).unwrap_err().contains("one and the same tensor"));
    for more in ["lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "lora_B.bias", "base_layer.weight"] {
        let error = read(&|tensors| drop(tensors.insert(key(more), Tensor::zeros(&[6])))).unwrap_err();
        assert!(error.contains(&key(more)), "{more}: {error}");
    }
}

#[test]
fn layers_beyond_the_targets_are_changed_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &[(KEY, 6, 6, 4), (QUERY, 6, 6, 4)], json!({}), TensorSet::new());
    let initial = converted(dir.path()).unwrap();
    let job = Job::new(&Registry::builtin(), &run(), &base()).unwrap();
    let job = job.starting_from(&dir.path().join("initial.safetensors")).unwrap();
    assert_eq!(job.layers()[..3], *job.targets());
    assert_eq!(job.layers()[3].name, KEY);
    let state = job.state(1, "anna", 0, None, &[]).unwrap();
    for (index, layer) in [(0, QUERY), (3, KEY)] {
        assert!(distance(&[job.dense_delta(&state, index).unwrap()], &[dense(&initial, layer)]) < 1e-9);
    }
    let out = dir.path().join("peft");
    job.export_peft(&state, &out, &ExportInfo::default()).unwrap();
    let again = peft::load(&out).unwrap();
    let key = again.targets.iter().find(|target| target.name == KEY).unwrap();
    assert!(distance(&[key.dense()], &[dense(&initial, KEY)]) < 1e-6);
    // The probe of a warm-up stands on it as well.
    assert_eq!(job.warm_up_state(2).unwrap().merged, state.merged);
}

#[test]
fn the_head_starts_where_the_adapter_left_it() {
    let dir = tempfile::tempdir().unwrap();
    exported("fedit", dir.path());
    let theirs = peft::load(dir.path()).unwrap().head.unwrap();
    let labels = |words: &str| {
        let text = run_text().replace(r#"["no", "perhaps", "yes"]"#, words);
        RunFile::parse(&text).unwrap()
    };
    let out = dir.path().join("initial.safetensors");
    // The same labels in another order: the rows go with them.
    let turned = labels(r#"["yes", "no", "perhaps"]"#);
    convert(dir.path(), &base(), &turned.task, &out).unwrap();
    let job = Job::new(&Registry::builtin(), &turned, &base()).unwrap().starting_from(&out).unwrap();
    let state = job.state(1, "anna", 0, None, &[]).unwrap();
    assert_eq!(state.tensors["head.bias"].data, [2, 0, 1].map(|row| theirs.bias.data[row]));
    assert_eq!(state.tensors["head.weight"].data[..6], theirs.weight.data[12..]);

    let refuse = |run: &RunFile| convert(dir.path(), &base(), &run.task, &out).unwrap_err();
    let error = refuse(&labels(r#"["bad", "good"]"#));
    assert!(error.to_string().contains("its labels are no, perhaps, yes, those of the run bad, good"), "{error}");
    assert!(error.hint().unwrap().contains(HEAD_FILE));
    let cls = RunFile::parse(&run_text().replace("labels", "pooling = \"cls\"\nlabels")).unwrap();
    assert!(refuse(&cls).to_string().contains("pooling `mean`"));
    let language = run_text().replace("\"classification\"", "\"causal-lm\"").replace("labels = ", "# ");
    assert!(refuse(&RunFile::parse(&language).unwrap()).to_string().contains("the run's task has none"));
    // A head of another run cannot be slipped in under a job either.
    let fewer = Job::new(&Registry::builtin(), &labels(r#"["a", "b"]"#), &base()).unwrap();
    assert!(fewer.starting_from(&out).unwrap_err().to_string().contains("its weight is [3, 6], the run needs [2, 6]"));
    // Without the file the head is fresh.
    std::fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    assert_eq!(convert(dir.path(), &base(), &turned.task, &out).unwrap().head_labels(), 0);
}

fn run_text() -> String {
    r#"
        name = "suite"
        base = { model = "tiny" }
        [task]
        kind = "classification"
        dataset = "none"
        labels = ["no", "perhaps", "yes"]
        [method]
        id = "fedit"
        rank = 2
        targets = ["query"]
        [train]
        local_steps = 1
        batch = 1
        lr = 0.01
        [rounds]
        count = 1
        cohort = 1
        quorum = 1
    "#
    .to_owned()
}

#[test]
fn a_classifier_among_pefts_own_tensors_starts_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |name: &str, shape: &[usize]| (format!("base_model.model.{name}"), noise(name, shape, 1.0));
    let saved = |head: &[(&str, &[usize])]| head.iter().map(|(name, shape)| tensor(name, shape)).collect::<TensorSet>();
    let make = |options: Value, more: TensorSet| folder(dir.path(), &[(QUERY, 6, 6, 4)], options, more);
    let classifier = json!({"modules_to_save": ["classifier", "score"]});
    make(classifier.clone(), saved(&[("classifier.weight", &[3, 6]), ("classifier.bias", &[3])]));
    let initial = converted(dir.path()).unwrap();
    assert_eq!(initial.head_labels(), 3);
    assert_eq!(initial.head("head.weight").unwrap(), &noise("classifier.weight", &[3, 6], 1.0));
    // Commands that ask what its rows stand for are refused: nobody says.
    assert!(
        peft::load(dir.path()).unwrap_err().to_string().contains("`modules_to_save` holds the classifier `classifier`")
    );
    make(classifier.clone(), saved(&[("score.weight", &[3, 6])]));
    assert_eq!(converted(dir.path()).unwrap().head("head.bias").unwrap(), &Tensor::zeros(&[3]));
    make(classifier.clone(), saved(&[("classifier.weight", &[2, 6])]));
    assert!(refused(dir.path()).contains("weight [2, 6] and bias [2] came, the run needs [3, 6]"));
    // The two layers of RoBERTa's classifier, or anything else, cannot be used.
    make(classifier, saved(&[("classifier.dense.weight", &[6, 6]), ("classifier.out_proj.weight", &[3, 6])]));
    assert!(refused(dir.path()).contains("`modules_to_save` holds `classifier.dense`"));
    make(json!({"modules_to_save": ["embeddings"]}), saved(&[("embeddings.weight", &[9, 6])]));
    assert!(refused(dir.path()).contains("`modules_to_save` holds `embeddings`"));
    make(json!({}), saved(&[("classifier.weight", &[3, 6])]));
    assert!(refused(dir.path()).contains("`base_model.model.classifier.weight` is no LoRA factor"));
}

#[test]
fn what_does_not_fit_the_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let make =
        |modules: &[(&str, usize, usize, usize)], options| folder(dir.path(), modules, options, TensorSet::new());
    make(&[("encoder.layer.7.attention.self.query", 6, 6, 4)], json!({}));
    let error = converted(dir.path()).unwrap_err();
    assert!(error.to_string().contains("changes `encoder.layer.7.attention.self.query`, but base model `tiny` has no"));
    assert!(error.hint().unwrap().contains("rondo base show"));
    make(&[(QUERY, 6, 5, 4)], json!({}));
    assert!(refused(dir.path()).contains("as [6, 5], but in base model `tiny` that weight is [6, 6]"));
    make(&[(QUERY, 6, 6, 4), (&format!("bert.{QUERY}"), 6, 6, 4)], json!({}));
    assert!(refused(dir.path()).contains(&format!("changes `{QUERY}` twice")));
    // Finite as it was saved, and no more once it is scaled.
    make(&[(QUERY, 6, 6, 4)], json!({"lora_alpha": 1e300}));
    assert!(refused(dir.path()).contains("inf"));
    make(&[(QUERY, 6, 6, 4)], json!({"use_dora": true}));
    assert!(refused(dir.path()).contains("`use_dora` is true"));
}

#[test]
fn a_file_that_only_looks_like_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let open = |tensors: &[(&str, &[usize])], dtype| {
        let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), Tensor::zeros(shape))).collect();
        file::write(&path, &tensors, dtype, &no_metadata()).unwrap();
        StartAdapter::open(&path).map(|initial| initial.message()).map_err(|error| error.to_string())
    };
    let pair: [(&str, &[usize]); 2] = [("q.lora_A", &[2, 6]), ("q.lora_B", &[6, 2])];
    let message = open(&pair, Dtype::F32).unwrap();
    assert_eq!((message.layout_bytes, message.head_labels), (2 * 12 * 4, 0));
    assert!(open(&pair, Dtype::Bf16).unwrap_err().contains("it is BF16"));
    assert!(open(&pair[..1], Dtype::F32).unwrap_err().contains("its outer factor is not there"));
    assert!(open(&[pair[0], pair[1], ("k.lora_B", &[6, 2])], Dtype::F32).unwrap_err().contains("1 inner and 2 outer"));
    assert!(open(&[pair[0], ("q.lora_B", &[6, 3])], Dtype::F32).unwrap_err().contains("no product of two factors"));
    assert!(open(&[pair[0], pair[1], ("gate", &[2])], Dtype::F32).unwrap_err().contains("`gate`"));
    assert!(open(&[pair[0], pair[1], ("head.bias", &[2])], Dtype::F32).unwrap_err().contains("head"));
    assert!(open(&[("head.weight", &[2, 6]), ("head.bias", &[2])], Dtype::F32).unwrap_err().contains("0 inner"));
    let nowhere: PathBuf = dir.path().join("nowhere");
    assert!(matches!(StartAdapter::open(&nowhere), Err(rondo_methods::StartAdapterError::File(_))));
}
