//! What cannot work is refused with what is wrong and where.

use std::fs;

use rondo_data::Dataset;
use rondo_methods::{Delta, Tensor, TensorSet};
use rondo_proto::run_file::Pooling;
use rondo_trainer::models::{self, LoadOptions, ModelError};
use rondo_trainer::session::Session;
use rondo_trainer_api::work::{Trainer, WorkError};
use tch::{Device, Kind};

use crate::support::*;

#[test]
fn models_that_are_not_what_their_config_says() {
    let same = |_: &mut TensorSet| {};
    let as_is = |_: &mut serde_json::Value| {};
    assert_eq!(refusal(&tiny(), same, as_is), "");

    let missing = refusal(&tiny(), |tensors| drop(tensors.remove("encoder.layer.1.output.dense.bias")), as_is);
    assert!(missing.contains("\"encoder.layer.1.output.dense.bias\""), "{missing}");
    let shape =
        refusal(&tiny(), |tensors| tensors.get_mut("embeddings.LayerNorm.bias").unwrap().shape = vec![4, 8], as_is);
    assert!(shape.contains("[4, 8]") && shape.contains("[32]"), "{shape}");
    let unknown = refusal(
        &tiny(),
        |tensors| drop(tensors.insert("encoder.layer.0.crossattention.query.weight".into(), Tensor::zeros(&[1]))),
        as_is,
    );
    assert!(unknown.contains("encoder.layer.0.crossattention.query.weight"), "{unknown}");

    let set =
        |key: &'static str, value: serde_json::Value| refusal(&tiny(), same, |config| config[key] = value.clone());
    for (key, value) in [
        ("model_type", "t5".into()),
        ("hidden_act", "silu".into()),
        ("position_embedding_type", "relative_key".into()),
        ("is_decoder", true.into()),
    ] {
        let refused = set(key, value);
        assert!(refused.contains(key) && refused.contains("supported"), "{refused}");
    }
    assert!(set("num_attention_heads", 5.into()).contains("multiple"));
    assert!(set("vocab_size", "many".into()).contains("vocab_size"));
    assert!(set("num_hidden_layers", 3.into()).contains("encoder.layer.2"));
}

#[test]
fn a_prefix_and_other_spellings_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let rename = |tensors: &mut TensorSet| {
        let old = std::mem::take(tensors);
        tensors.extend(old.into_iter().map(|(name, tensor)| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            (format!("bert.{name}"), tensor)
        }));
        tensors.insert("cls.predictions.bias".into(), Tensor::zeros(&[75]));
    };
    altered(&tiny(), dir.path(), rename, |_| {});
    let renamed = encoder(dir.path());
    let original = encoder(&tiny());
    let goldens = golden_tensors("tiny-bert.safetensors");
    let encoded = golden_ids(&goldens, 2.0);
    let [one, two] = [&renamed, &original].map(|encoder| {
        let mut session = Session::new(&**encoder, Device::Cpu, &golden_head(&goldens), Pooling::Cls).unwrap();
        let parts = TensorSet::from([("m".to_owned(), Tensor { shape: vec![32, 32], data: vec![0.01; 1024] })]);
        let target = "bert.encoder.layer.0.attention.self.query";
        session.attach(target, &Delta::mat("m"), &parts, &Default::default()).unwrap();
        session.predict(&encoded, 4, &mut |_| Ok(())).unwrap()
    });
    assert_eq!(one, two);
}

#[test]
fn files_that_are_cut_short_or_no_safetensors() {
    let whole = fs::read(tiny().join("model.safetensors")).unwrap();
    for content in [&whole[..whole.len() - 5], &whole[..100], b"no", &[0xff; 64]] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(tiny().join("config.json"), dir.path().join("config.json")).unwrap();
        fs::write(dir.path().join("model.safetensors"), content).unwrap();
        let error = models::load(dir.path(), LoadOptions::new(Device::Cpu, Kind::Float)).err().unwrap();
        assert!(matches!(error, ModelError::Base(_)), "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::copy(tiny().join("config.json"), dir.path().join("config.json")).unwrap();
    let error = models::load(dir.path(), LoadOptions::new(Device::Cpu, Kind::Float)).err().unwrap();
    assert!(error.to_string().contains("safetensors"), "{error}");
}

#[test]
fn adapters_that_do_not_fit() {
    let encoder = encoder(&tiny());
    let goldens = golden_tensors("tiny-bert.safetensors");
    let mut session = Session::new(&*encoder, Device::Cpu, &golden_head(&goldens), Pooling::Mean).unwrap();
    let parts = TensorSet::from([
        ("lora_A".to_owned(), Tensor::zeros(&[2, 32])),
        ("lora_B".to_owned(), Tensor::zeros(&[32, 2])),
    ]);
    let delta = Delta::product(&["lora_B", "lora_A"]);
    let mut attach = |target: &str, delta: &Delta, parts: &TensorSet| {
        session
            .attach(target, delta, parts, &Default::default())
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let query = "encoder.layer.0.attention.self.query";
    assert_eq!(attach(query, &delta, &parts), "");
    assert!(attach("pooler.dense", &delta, &parts).contains("pooler.dense"));
    let absent = attach(query, &Delta::product(&["lora_B", "lora_R", "lora_A"]), &parts);
    assert!(absent.contains("lora_R") && absent.contains(query), "{absent}");
    let wide = attach("encoder.layer.0.intermediate.dense", &delta, &parts);
    assert!(wide.contains("64"), "{wide}");
    let mut head = golden_head(&goldens);
    head.insert("head.weight".into(), Tensor::zeros(&[2, 31]));
    let error = Session::new(&*encoder, Device::Cpu, &head, Pooling::Mean).err().unwrap().to_string();
    assert!(error.contains("head.weight") && error.contains("32"), "{error}");
}

#[test]
fn work_that_cannot_be_done() {
    let mut trainer = trainer();
    let solo = SingleClient::start(TestRun::new("id = \"fedit\"\nrank = 4"), &mut trainer);
    let mut long = solo.work(1);
    let mut file = (*long.run).clone();
    file.task.max_tokens = 41;
    long.run = file.into();
    let error = trainer.train(&long, &mut go_on).unwrap_err();
    assert!(matches!(&error, WorkError::Model { .. }) && error.to_string().contains("40 positions"), "{error}");

    let mut empty = solo.work(1);
    empty.data = Dataset::of("tiny", &labels(), [("good".to_owned(), 1)], 0.0).into();
    let error = trainer.evaluate(&empty, &mut go_on).unwrap_err();
    assert!(matches!(&error, WorkError::Data(problem) if problem.contains("held-out")), "{error}");

    let mut nowhere = solo.work(1);
    nowhere.model_dir = "/nonexistent/model".into();
    let error = trainer.train(&nowhere, &mut go_on).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/model"), "{error}");
    let error = trainer.warm_up(&solo.work(0), &mut go_on).unwrap_err();
    assert!(error.to_string().contains("fedit"), "{error}");
}
