//! Full weights with the adapter in them, for every method.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use std::collections::BTreeMap;
use std::path::Path;

use rondo_methods::export::peft::load;
use rondo_methods::{ExportInfo, Job, Kind, Registry, TensorFile};
use rondo_proto::v1;
use safetensors::tensor::{Dtype, TensorView};
use suite::{Federation, base, run_file};

/// Name, number format, shape, bytes.
type Written = (String, Dtype, Vec<usize>, Vec<u8>);

/// A base of two shards: each linear layer's weight in a number format of its own, and tensors that
/// no target is.
fn write_base(dir: &Path, base: &v1::BaseModel, transposed: bool) {
    std::fs::create_dir_all(dir).unwrap();
    let number = |index: usize| ((index * 37 % 101) as f32 - 50.0) / 64.0;
    let mut shards: [Vec<Written>; 2] = Default::default();
    for (place, linear) in base.linears.iter().enumerate() {
        let (out, inp) = (linear.out_features as usize, linear.in_features as usize);
        let shape = if transposed { vec![inp, out] } else { vec![out, inp] };
        let numbers: Vec<f32> = (0..out * inp).map(|index| number(index + place)).collect();
        let (dtype, bytes): (Dtype, Vec<u8>) = match place % 3 {
            0 => (Dtype::F32, numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
            1 => (Dtype::BF16, numbers.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()),
            _ => (Dtype::F16, numbers.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()),
        };
        shards[place % 2].push((format!("{}.weight", linear.name), dtype, shape, bytes));
    }
    shards[0].push(("position_ids".into(), Dtype::I64, vec![3], vec![7; 24]));
    for (number, shard) in shards.iter().enumerate() {
        let views = shard
            .iter()
            .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        let metadata = Some(std::collections::HashMap::from([("kept".to_owned(), "yes".to_owned())]));
        let file = dir.join(format!("model-{}-of-2.safetensors", number + 1));
        safetensors::serialize_to_file(views, metadata, &file).unwrap();
    }
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{\"a\": 1}").unwrap();
    std::fs::write(dir.join("pytorch_model.bin"), "old").unwrap();
}

fn weights(dir: &Path) -> BTreeMap<String, (String, Vec<f32>)> {
    let files = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"].map(|name| TensorFile::open(&dir.join(name)));
    let mut all = BTreeMap::new();
    for file in files {
        let file = file.unwrap();
        for entry in file.entries().into_iter().filter(|entry| entry.dtype != "I64") {
            all.insert(entry.name.clone(), (entry.dtype, file.read(&entry.name).unwrap().data));
        }
    }
    all
}

#[test]
fn every_method_merges_into_the_files_own_formats() {
    let registry = Registry::builtin();
    for method in registry.iter() {
        let id = method.id();
        let mut federation = Federation::start(&registry, id, 3, "", "");
        for _ in 0..2 {
            let updates = federation.three().iter().map(|trained| federation.upload(trained)).collect();
            federation.finish(Kind::Train, updates).unwrap();
        }
        let state = federation.state("observer", 0);
        let (from, to) = (federation.dir.path().join("base"), federation.dir.path().join("merged"));
        write_base(&from, &base(), false);
        let provenance = BTreeMap::from([("rondo.round".to_owned(), "2".to_owned())]);
        let info = ExportInfo { provenance, owners: vec!["a".into(), "b".into()], ..ExportInfo::default() };
        let report = federation.job.export_merged(&state, &from, &to, &info).unwrap();
        assert_eq!(report.merged, federation.job.targets().len());
        let (before, after) = (weights(&from), weights(&to));
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, (dtype, old)) in &before {
            let (kept, new) = &after[name];
            assert_eq!(dtype, kept);
            let module = name.strip_suffix(".weight").unwrap();
            let Some(target) = federation.job.targets().iter().position(|target| target.name == module) else {
                assert_eq!(old, new, "{id}: {name} is no target");
                continue;
            };
            let delta = federation.job.dense_delta(&state, target).unwrap();
            assert!(delta.norm() > 0.0);
            let step = match dtype.as_str() {
                "F32" => 1e-6,
                "F16" => 1e-3,
                _ => 8e-3,
            };
            for ((old, new), change) in old.iter().zip(new).zip(delta.data()) {
                let exact = f64::from(*old) + change;
                assert!((f64::from(*new) - exact).abs() <= step * exact.abs().max(0.1), "{id}: {name}");
            }
        }
        // The same through a PEFT folder, which knows of the base no more than the names.
        let (peft, again) = (federation.dir.path().join("peft"), federation.dir.path().join("again"));
        federation.job.export_peft(&state, &peft, &info).unwrap();
        let through = load(&peft).unwrap().merge(&base(), &from, &again).unwrap();
        assert_eq!((through.merged, through.files.len()), (report.merged, report.files.len()));
        for (name, (dtype, new)) in weights(&again) {
            let step = if dtype == "F32" { 1e-5 } else { 1e-2 };
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= step * b.abs().max(0.1);
            assert!(new.iter().zip(&after[&name].1).all(near), "{id}: {name}");
        }
        let first = TensorFile::open(&to.join("model-1-of-2.safetensors")).unwrap();
        assert_eq!((first.metadata()["kept"].as_str(), first.metadata()["rondo.round"].as_str()), ("yes", "2"));
        assert!(first.contains("position_ids"));
        assert!(to.join("tokenizer.json").exists() && !to.join("pytorch_model.bin").exists());
        let card = std::fs::read_to_string(to.join("README.md")).unwrap();
        assert!(card.contains("| data owners | a, b |") && card.contains("library_name: transformers"), "{card}");
        assert!(report.rounding.unwrap() < 0.2, "{id}: {:?}", report.rounding);
    }
}

/// GPT-2 keeps its weights as [in, out].
#[test]
fn transposed_weights_take_the_transposed_change() {
    let mut gpt2 = base();
    gpt2.architecture = "gpt2".into();
    let job = Job::new(&Registry::builtin(), &run_file("fedit", 2, "", ""), &gpt2).unwrap();
    let mut state = job.state(1, "anna", 0, None, &[]).unwrap();
    state.tensors.values_mut().for_each(|tensor| {
        tensor.data.iter_mut().enumerate().for_each(|(index, x)| *x = (index as f32 + 1.0) / 16.0);
    });
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("base"), dir.path().join("merged"));
    write_base(&from, &gpt2, true);
    job.export_merged(&state, &from, &to, &ExportInfo::default()).unwrap();
    let (before, after) = (weights(&from), weights(&to));
    let wide = &job.targets()[1];
    let delta = job.dense_delta(&state, 1).unwrap();
    let name = format!("{}.weight", wide.name);
    let (row, column) = (2, 4);
    let at = column * wide.out + row;
    let change = f64::from(after[&name].1[at]) - f64::from(before[&name].1[at]);
    assert!((change - delta.at(row, column)).abs() < 0.02 * delta.at(row, column).abs(), "{change}");
}

#[test]
fn a_folder_that_is_another_model_is_refused_by_name() {
    let job = Job::new(&Registry::builtin(), &run_file("fedit", 2, "", ""), &base()).unwrap();
    let state = job.state(1, "anna", 0, None, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let export = |from: &str, to: &str| {
        let (from, to) = (dir.path().join(from), dir.path().join(to));
        job.export_merged(&state, &from, &to, &ExportInfo::default()).unwrap_err().to_string()
    };
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(export("empty", "a").contains("no *.safetensors"));
    let mut narrow = base();
    narrow.linears[1].out_features = 4;
    write_base(&dir.path().join("narrow"), &narrow, false);
    assert!(export("narrow", "b").contains("intermediate.dense.weight"));
    let mut fewer = base();
    fewer.linears.remove(2);
    write_base(&dir.path().join("fewer"), &fewer, false);
    std::fs::write(dir.path().join("tiny.gguf"), "GGUF").unwrap();
    assert!(export("tiny.gguf", "d").contains("merge into the Hugging Face folder"));
    assert!(!dir.path().join("d").exists() && !dir.path().join("a").exists());
    assert!(export("fewer", "c").contains("has no weight of \"encoder.layer.0.output.dense\""));
}

/// tiny-llama with a vocabulary matrix beside the embedding that config.json ties it to, a stray
/// copy in another layout, and an index.
fn write_tied(dir: &Path, own: bool) {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens");
    std::fs::create_dir_all(dir).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(goldens.join("tiny-llama").join(file), dir.join(file)).unwrap();
    }
    let from = TensorFile::open(&goldens.join("tiny-llama/model.safetensors")).unwrap();
    let mut tensors = from.read_all(|_| true).unwrap();
    let mut head = tensors["model.embed_tokens.weight"].clone();
    if own {
        head.data.reverse();
    }
    tensors.insert("lm_head.weight".into(), head);
    let places: serde_json::Map<_, _> =
        tensors.keys().map(|name| (name.clone(), "model-1.safetensors".into())).collect();
    let index = serde_json::json!({ "weight_map": places }).to_string();
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    let f32 = rondo_proto::run_file::Dtype::F32;
    rondo_methods::file::write(&dir.join("model-1.safetensors"), &tensors, f32, &BTreeMap::new()).unwrap();
    std::fs::write(dir.join("consolidated.safetensors"), "in another layout").unwrap();
}

#[test]
fn a_merge_keeps_the_files_own_vocabulary_matrix_and_unties_it() {
    let adapter =
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/tiny-llama-lora")).unwrap();
    for own in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("base"), dir.path().join("merged"));
        write_tied(&from, own);
        adapter.merge(&rondo_base::describe(&from, "tied").unwrap(), &from, &to).unwrap();
        assert!(!to.join("consolidated.safetensors").exists());
        assert!(to.join("model.safetensors.index.json").exists());
        let heads =
            [&from, &to].map(|dir| TensorFile::open(&dir.join("model-1.safetensors")).unwrap().read("lm_head.weight"));
        let [before, after] = heads.map(Result::unwrap);
        assert_eq!(before.data, after.data);
        let [before, after] = [&from, &to].map(|dir| rondo_base::read_json(&dir.join("config.json")).unwrap());
        assert_eq!(
            (before["tie_word_embeddings"].clone(), after["tie_word_embeddings"].clone()),
            (true.into(), (!own).into())
        );
        let again = rondo_base::Checkpoint::open(&to).unwrap();
        assert_eq!((again.remark(), again.has_own_head), (None, false), "the contradiction is gone");
        assert_eq!(again.tensors.iter().any(|tensor| tensor.name == "lm_head.weight"), own);
    }
}
