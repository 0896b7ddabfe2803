use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::Parser;
use rondo::cli::Cli;
use rondo::commands;
use rondo::context::Context;
use rondo::error::CliError;
use rondo::output::Output;
use rondo_methods::export::peft::load;
use rondo_methods::{AggregateInput, Contribution, Instance, Job, Kind, Registry, Tensor, TensorFile, file};
use rondo_proto::digest::Digest;
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_proto::v1::*;
use serde_json::Value;

use crate::fake::{self, Script};

pub(crate) const RUN: &str = r#"
name = "sentiment"
base = { model = "tiny" }
task = { kind = "classification", dataset = "reviews", labels = ["no", "yes"], max_tokens = 8 }
method = { id = "METHOD", rank = 2, targets = ["query"] }
train = { local_steps = 1, batch = 1, lr = 1e-3 }
rounds = { count = 2, cohort = 2, quorum = 2 }
"#;

/// A writer whose text can be read afterwards.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs one command against a script; answers how it ended and what it printed.
pub(crate) async fn rondo(script: &Script, args: &[&str]) -> (Result<(), CliError>, String) {
    let cli = Cli::try_parse_from(std::iter::once(&"rondo").chain(args)).unwrap();
    let paper = Paper::default();
    let output = Output::to(Box::new(paper.clone()), cli.global.json);
    let mut context = Context::with_channel(fake::start(script.clone()).await, output);
    let end = commands::run(cli.command, &mut context).await;
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    (end, text)
}

pub(crate) fn summary(outcome: &str) -> RunSummary {
    RunSummary {
        run: "sentiment-1".to_owned(),
        name: "sentiment".to_owned(),
        phase: if outcome.is_empty() { "training" } else { "ended" }.to_owned(),
        outcome: outcome.to_owned(),
        rounds: 2,
        method: "fed-sb".to_owned(),
        privacy: "no privacy".to_owned(),
        ..RunSummary::default()
    }
}

fn event(sequence: u64, text: &str) -> RunEvent {
    let client = "movies".to_owned();
    let text = text.to_owned();
    RunEvent { sequence, at_ms: 1_700_000_000_000, client, text, ..RunEvent::default() }
}

#[tokio::test]
async fn watching_survives_a_restart_and_ends_as_the_run_does() {
    let update = |outcome, events| RunUpdate { summary: Some(summary(outcome)), events };
    let first = vec![update("", vec![event(1, "accepted the invitation")])];
    let second = vec![update("", vec![event(1, "accepted the invitation"), event(2, "update accepted (1 of 1)")])];
    let end = |outcome| vec![update(outcome, vec![event(3, "round 1 published")])];
    let script = |outcome| Script {
        summary: summary(""),
        updates: vec![first.clone(), second.clone(), end(outcome)],
        ..Script::default()
    };
    let (end, text) = rondo(&script("completed"), &["run", "watch", "sentiment-1"]).await;
    assert_eq!(end, Ok(()));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("run sentiment-1: fed-sb") && lines[0].contains("no privacy"));
    assert_eq!(
        lines[1..4],
        [
            "22:13:20  movies: accepted the invitation",
            "22:13:20  movies: update accepted (1 of 1)",
            "22:13:20  movies: round 1 published"
        ]
    );
    assert_eq!(lines[4], "run sentiment-1 ended: completed");
    for outcome in ["cancelled", "failed: no quorum"] {
        let (end, text) = rondo(&script(outcome), &["run", "watch", "sentiment-1", "--json"]).await;
        assert!(end.is_err_and(|error| error.message.contains(outcome)));
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["summary"]["outcome"], outcome);
    }
    let (end, _) = rondo(&script(""), &["run", "watch", "nothing"]).await;
    assert!(end.is_err_and(|error| error.hint.as_deref() == Some("look at the list")));
}

#[tokio::test]
async fn why_nobody_is_invited_is_printed_where_it_is_known() {
    let summary = RunSummary { phase: "recruiting".to_owned(), ..summary("") };
    let updates = vec![vec![RunUpdate { summary: Some(summary.clone()), events: vec![] }]];
    let end = vec![RunUpdate { summary: Some(self::summary("failed: no quorum")), events: vec![] }];
    let script = Script { summary, updates: [updates, vec![end]].concat(), ..Script::default() };
    let reason = "no client is connected; `rondo client list` shows";
    let (_, text) = rondo(&script, &["run", "show", "sentiment-1"]).await;
    assert!(text.contains(reason), "{text}");
    let (end, text) = rondo(&script, &["run", "watch", "sentiment-1"]).await;
    assert_eq!(text.matches(reason).count(), 1, "{text}");
    // How it ended is printed once: here, and not in the error too.
    assert_eq!(text.matches("failed: no quorum").count(), 1, "{text}");
    assert!(end.is_err_and(|error| error.message == "run sentiment-1 did not complete" && error.hint.is_some()));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_with_where_it_was_looked_for() {
    let script = Script { summary: summary(""), ..Script::default() };
    let (end, _) = rondo(&script, &["run", "create", "no-such-run.toml"]).await;
    let error = end.unwrap_err();
    assert_eq!(error.message, "no-such-run.toml is not there");
    let here = std::env::current_dir().unwrap();
    assert!(error.hint.is_some_and(|hint| hint.contains(&here.display().to_string())));
}

#[tokio::test]
async fn json_is_the_wire_message_and_text_is_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let script = Script { summary: summary(""), ..Script::default() };
    std::fs::write(&file, RUN.replace("METHOD", "fed-sb")).unwrap();
    let path = file.to_str().unwrap();
    let (end, text) = rondo(&script, &["run", "create", "--json", path]).await;
    assert_eq!(end, Ok(()));
    assert_eq!(serde_json::from_str::<RunSummary>(&text).unwrap(), summary(""));
    assert!(script.asked.lock().unwrap()[0].contains("name = \"sentiment\""));
    std::fs::write(&file, RUN.replace("local_steps", "local_stesp")).unwrap();
    let (end, _) = rondo(&script, &["run", "create", path]).await;
    let error = end.unwrap_err();
    assert!(
        error.message.contains("run.toml") && error.message.contains("did you mean `train.local_steps`?"),
        "{error}"
    );

    let (_, text) = rondo(&script, &["client", "list", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["clients"][0]["client"], "movies");
    for (args, words) in [
        (&["run", "list"][..], "sentiment-1"),
        (&["run", "show", "sentiment-1"], "training"),
        (&["client", "list"], "movies"),
        (&["client", "approve", "tweets"], "approve"),
        (&["client", "drain", "tweets"], "drain"),
        (&["client", "revoke", "tweets"], "revoke"),
        (&["token", "create", "--name", "a", "--ttl", "2h", "--needs-approval"], "rondo-client join"),
        (&["operator", "add", "alice"], "rondo join"),
        (&["token", "revoke", "7"], "7 is revoked"),
        (&["operator", "revoke", "bob"], "bob is revoked"),
        (&["round", "list", "sentiment-1"], "no rounds yet"),
        (&["token", "list"], "no tokens"),
        (&["operator", "list"], "no operators"),
        (&["run", "pause", "sentiment-1"], "sentiment-1"),
        // A run's name, or the beginning of its id, is enough.
        (&["run", "show", "sentiment"], "training"),
        (&["run", "resume", "senti"], "sentiment-1"),
        (&["run", "cancel", "sentiment"], "sentiment-1"),
        (&["round", "list", "sentiment"], "no rounds yet"),
    ] {
        let (end, text) = rondo(&script, args).await;
        assert_eq!(end, Ok(()), "{args:?}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    let asked = script.asked.lock().unwrap();
    assert!(
        asked.contains(&"token a client 7200 true".to_owned())
            && asked.contains(&"token alice operator 0 false".to_owned())
    );
}

fn base() -> BaseModel {
    let linear = |layer: u32| LinearLayer {
        name: format!("encoder.layer.{layer}.attention.self.query"),
        out_features: 6,
        in_features: 5,
    };
    BaseModel {
        name: "tiny".to_owned(),
        digest: Digest::of(b"tiny").to_string(),
        architecture: "bert".to_owned(),
        hidden_size: 6,
        max_positions: 16,
        linears: vec![linear(0), linear(1)],
        ..BaseModel::default()
    }
}

/// Two rounds of a method on made-up updates, as the coordinator would publish them.
fn adapter(method: &str, dir: &Path, base: BaseModel) -> Script {
    let text = RUN.replace("METHOD", method);
    let job = Job::new(&Registry::builtin(), &RunFile::parse(&text).unwrap(), &base).unwrap();
    adapter_of(&job, method, dir, base)
}

fn adapter_of(job: &Job, method: &str, dir: &Path, base: BaseModel) -> Script {
    let text = RUN.replace("METHOD", method);
    let mut script = Script { base: base.clone(), ..Script::default() };
    let mut state = AdapterState { round: 2, ..AdapterState::default() };
    let mut files = Vec::new();
    for round in 1..=2_u32 {
        let out = dir.join(format!("round-{round}"));
        std::fs::create_dir(&out).unwrap();
        let update = |client: &str, value: f32| {
            let mut tensors = job.initial(round, client, 2);
            tensors.values_mut().for_each(|tensor| tensor.data.iter_mut().for_each(|x| *x += value));
            let path = out.join(client);
            job.write_update(Kind::Train, Instance::in_round(round).with_rank(2).of_client(client), &tensors, &path)
                .unwrap();
            Contribution { client: client.to_owned(), weight: 0.5, rank: 2, path }
        };
        let updates = vec![update("a", 0.1 * round as f32), update("b", -0.3)];
        let kind = Kind::Train;
        let frozen = None;
        let published = files.clone();
        let server = None;
        let server_state = None;
        let progress = &|_, _| {};
        let input =
            AggregateInput { kind, round, updates, frozen, published, server, server_state, out_dir: &out, progress };
        let global = job.aggregate(input).unwrap().global;
        let digest = Digest::of_file(&global).unwrap().to_string();
        state.published.push(Published { round, digest: digest.clone(), bytes: 1 });
        script.blobs.insert(digest, global.clone());
        files.push(global);
    }
    script.adapter = GetAdapterReply {
        run: "sentiment-1".to_owned(),
        run_file: text,
        base: Some(base),
        state: Some(state),
        method: method.to_owned(),
        privacy: "no privacy".to_owned(),
        rounds: Vec::new(),
    };
    script
}

#[tokio::test]
async fn a_round_is_judged_by_the_format_on_the_wire() {
    let round = RoundRecord { round: 1, aggregation_error: Some(3e-3), ..RoundRecord::default() };
    let run_file = RUN.replace("METHOD", "flora");
    for (run_file, word) in [
        (run_file.clone(), "(approximate)"),
        (format!("{run_file}wire = {{ dtype = \"bf16\" }}\n"), "(within the rounding of bf16)"),
    ] {
        let script = Script { summary: summary(""), rounds: vec![round.clone()], run_file, ..Script::default() };
        let (end, text) = rondo(&script, &["round", "show", "sentiment", "1"]).await;
        assert!(end == Ok(()) && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn an_adapter_is_fetched_checked_exported_inspected_and_compared() {
    for (method, rank) in [("fedit", 2), ("ffa-lora", 2), ("flora", 8)] {
        let dir = tempfile::tempdir().unwrap();
        let mut script = adapter(method, dir.path(), base());
        let out = dir.path().join("peft");
        let path = out.to_str().unwrap();
        script.summary = summary("");
        let export = ["adapter", "export", "sentiment", "--format", "peft", "--json", "--out", path];
        let (end, text) = rondo(&script, &export).await;
        assert_eq!(end, Ok(()), "{method}");
        let reported: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((reported["rank"].as_u64(), reported["round"].as_u64()), (Some(rank), Some(2)), "{method}");
        let weights = TensorFile::open(&out.join("adapter_model.safetensors")).unwrap();
        assert_eq!(weights.metadata()["rondo.run_id"], "sentiment-1");
        // Nothing is written over.
        let (end, _) = rondo(&script, &export).await;
        assert!(end.is_err_and(|error| error.message.contains("is not empty")));
        let (end, text) = rondo(&script, &["adapter", "inspect", path]).await;
        assert!(
            end == Ok(()) && text.contains("encoder.layer.1.attention.self.query") && text.contains("no, yes"),
            "{text}"
        );
        // The same adapter at full rank of the layer, recompressed: other factors, the same change.
        let again = dir.path().join("again");
        let again = again.to_str().unwrap();
        let more =
            ["adapter", "export", "sentiment-1", "--recompress", "5", "--base-model", "org/tiny", "--out", again];
        assert_eq!(rondo(&script, &more).await.0, Ok(()), "{method}");
        let (end, text) = rondo(&script, &["adapter", "diff", path, again, "--tolerance", "1e-5"]).await;
        assert_eq!(end, Ok(()), "{text}");
        // No method of these has a type of PEFT's own, which is found before anything is fetched.
        let native = dir.path().join("native");
        let native = native.to_str().unwrap();
        let asked = ["adapter", "export", "sentiment-1", "--format", "peft-native", "--out", native];
        let (end, _) = rondo(&script, &asked).await;
        assert!(end.is_err_and(|error| error.message.contains("use --format peft")), "{method}");
        assert!(!Path::new(native).exists());
        // A blob that is not what its name says is refused.
        script.blobs.values_mut().for_each(|path| *path = dir.path().join("round-1/a"));
        let bad = dir.path().join("bad");
        let (end, _) = rondo(&script, &["adapter", "export", "sentiment-1", "--out", bad.to_str().unwrap()]).await;
        assert!(end.is_err_and(|error| error.message.contains("have digest")));
        assert!(!bad.exists());
    }
}

/// Exported by one run, the start of another.
#[tokio::test]
async fn a_run_starts_from_an_exported_adapter_and_its_export_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut script = Script { summary: summary(""), ..adapter("flora", &blobs_dir(dir.path()), base()) };
    let first = path("first");
    assert_eq!(rondo(&script, &["adapter", "export", "sentiment", "--out", &first]).await.0, Ok(()));

    let file = path("run.toml");
    std::fs::write(&file, RUN.replace("METHOD", "ffa-lora")).unwrap();
    let create = ["run", "create", &file, "--from-adapter", &first];
    let (end, text) = rondo(&script, &create).await;
    assert_eq!(end, Ok(()));
    let asked = script.asked.lock().unwrap().clone();
    let at = asked.iter().position(|asked| asked.starts_with("upload for tiny: blake3:")).unwrap();
    let digest = asked[at].strip_prefix("upload for tiny: ").unwrap().to_owned();
    assert!(asked[at + 1].contains("ffa-lora"), "{asked:?}");
    assert!(text.contains("starts from") && text.contains(&digest), "{text}");
    let (_, text) = rondo(&script, &["run", "create", &file, "--from-adapter", &first, "--json"]).await;
    assert_eq!(serde_json::from_str::<RunSummary>(&text).unwrap().initial_digest, digest);

    // The second run, as the coordinator would hold it.
    let run = RunFile::parse(&RUN.replace("METHOD", "ffa-lora")).unwrap();
    let initial = dir.path().join("initial");
    let job = Job::new(&Registry::builtin(), &run, &base()).unwrap();
    let converted = rondo_methods::start_adapter::convert(Path::new(&first), &base(), &run.task, &initial).unwrap();
    assert_eq!(converted.digest().to_string(), digest, "the same folder gives the same bytes");
    let second = adapter_of(&job.starting_from(&initial).unwrap(), "ffa-lora", &blobs_dir(dir.path()), base());
    script = Script { summary: summary(""), ..second };
    script.blobs.insert(digest.clone(), initial);
    script.adapter.state.as_mut().unwrap().initial_digest = digest.clone();
    let out = path("second");
    let (end, text) = rondo(&script, &["adapter", "export", "sentiment", "--json", "--out", &out]).await;
    assert_eq!(end, Ok(()));
    let reported: Value = serde_json::from_str(&text).unwrap();
    // Two rounds of two clients of rank 2 each, and 2 on top.
    assert_eq!((reported["rank"].as_u64(), reported["initial"].as_str()), (Some(8 + 2), Some(digest.as_str())));
    let card = std::fs::read_to_string(Path::new(&out).join("README.md")).unwrap();
    assert!(card.contains(&format!("| rondo.initial_digest | {digest} |")), "{card}");
    // A file that was trained on something else below is not mixed in.
    script.adapter.state.as_mut().unwrap().initial_digest.clear();
    let (end, _) = rondo(&script, &["adapter", "export", "sentiment", "--out", &path("third")]).await;
    assert!(end.is_err_and(|error| error.message.contains("stands on initial adapter")));

    // What does not fit is refused here, before anything is sent.
    let asked = script.asked.lock().unwrap().len();
    std::fs::write(&file, RUN.replace("METHOD", "fedit").replace("\"yes\"", "\"aye\"")).unwrap();
    let error = rondo(&script, &create).await.0.unwrap_err();
    assert!(error.message.contains("its labels are no, yes, those of the run no, aye"), "{error:?}");
    assert!(error.hint.unwrap().contains("rondo_head.safetensors"));
    script.base.linears[1].out_features = 7;
    std::fs::write(&file, RUN.replace("METHOD", "fedit")).unwrap();
    let error = rondo(&script, &create).await.0.unwrap_err();
    assert!(error.message.contains("that weight is [7, 5]") && error.hint.unwrap().contains("base show"));
    let reported = script.asked.lock().unwrap()[asked..].to_vec();
    assert_eq!(reported, ["base", "base"]);
}

/// A BERT of two layers, every matrix of its layers [6, 6] and every number the same.
fn write_model(dir: &Path, number: f32) {
    let config = r#"{"model_type": "bert", "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 6, "max_position_embeddings": 16, "vocab_size": 6, "type_vocab_size": 2}"#;
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        let data = vec![number; shape.iter().product()];
        tensors.insert(format!("bert.{name}"), Tensor { shape: shape.to_vec(), data });
    };
    add("embeddings.word_embeddings.weight", &[6, 6]);
    add("embeddings.position_embeddings.weight", &[16, 6]);
    add("embeddings.token_type_embeddings.weight", &[2, 6]);
    for part in ["weight", "bias"] {
        add(&format!("embeddings.LayerNorm.{part}"), &[6]);
    }
    for layer in 0..2 {
        for linear in rondo_base::architecture::find("bert").unwrap().linears {
            add(&format!("encoder.layer.{layer}.{linear}.weight"), &[6, 6]);
            add(&format!("encoder.layer.{layer}.{linear}.bias"), &[6]);
        }
        for norm in ["attention.output.LayerNorm.weight", "attention.output.LayerNorm.bias"] {
            add(&format!("encoder.layer.{layer}.{norm}"), &[6]);
            add(&format!("encoder.layer.{layer}.{}", norm.trim_start_matches("attention.")), &[6]);
        }
    }
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), config).unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    file::write(&dir.join("model.safetensors"), &tensors, Dtype::F32, &BTreeMap::new()).unwrap();
}

#[tokio::test]
async fn full_weights_are_the_registered_base_and_the_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let model = path("model");
    write_model(Path::new(&model), 0.5);
    let base = rondo_base::describe(Path::new(&model), "tiny").unwrap();
    for method in ["fedit", "flora"] {
        let script = Script { summary: summary(""), ..adapter(method, &blobs_dir(dir.path()), base.clone()) };
        let merged = path(&format!("{method}-merged"));
        let peft = path(&format!("{method}-peft"));
        let export =
            ["adapter", "export", "sentiment", "--format", "merged", "--model", &model, "--json", "--out", &merged];
        let (end, text) = rondo(&script, &export).await;
        assert_eq!(end, Ok(()), "{method}");
        let reported: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((reported["merged"].as_u64(), reported["round"].as_u64()), (Some(2), Some(2)), "{reported}");
        assert!(reported["rounding"].as_f64().unwrap() < 1e-6, "{reported}");
        assert!(rondo(&script, &export).await.0.is_err_and(|error| error.message.contains("is not empty")));
        assert_eq!(rondo(&script, &["adapter", "export", "sentiment", "--out", &peft]).await.0, Ok(()));
        let file = TensorFile::open(&Path::new(&merged).join("model.safetensors")).unwrap();
        assert_eq!(file.metadata()["rondo.run_id"], "sentiment-1");
        for target in load(Path::new(&peft)).unwrap().targets {
            let dense = target.dense();
            let weight = file.read(&format!("bert.{}.weight", target.name)).unwrap();
            let off = weight.data.iter().zip(dense.data()).map(|(new, change)| (f64::from(*new) - 0.5 - change).abs());
            assert!(off.fold(0.0, f64::max) < 1e-6 && dense.norm() > 0.01, "{method}: {}", target.name);
        }
    }

    let script = |base: BaseModel| Script { summary: summary(""), ..adapter("fedit", &blobs_dir(dir.path()), base) };
    write_model(Path::new(&path("other")), 0.25);
    let packed =
        BaseModel { files: vec![BaseFile { name: "tiny.gguf".to_owned(), ..BaseFile::default() }], ..base.clone() };
    std::fs::write(path("tiny.gguf"), "GGUF").unwrap();
    for (base, model, words) in [
        (&base, "other", "model.safetensors has digest"),
        (&base, "nowhere", "nowhere"),
        (&base, "tiny.gguf", "merge into the Hugging Face folder"),
        (&packed, "tiny.gguf", "is the GGUF file tiny.gguf"),
        (&packed, "model", "is the GGUF file tiny.gguf"),
    ] {
        let model = path(model);
        let out = path("refused");
        let export = ["adapter", "export", "sentiment", "--format", "merged", "--model", &model, "--out", &out];
        let error = rondo(&script(base.clone()), &export).await.0.unwrap_err();
        assert!(error.message.contains(words), "{error:?}");
        assert_eq!(error.hint.is_some_and(|hint| hint.contains("rondo-client merge")), *base == packed, "{words}");
        assert!(!Path::new(&out).exists(), "{words}");
    }
}

/// A new folder for the files of a script.
fn blobs_dir(dir: &Path) -> std::path::PathBuf {
    tempfile::tempdir_in(dir).unwrap().keep()
}

#[tokio::test]
async fn nothing_published_yet_is_said_so() {
    let mut script = Script::default();
    script.adapter.run = "sentiment-1".to_owned();
    let (end, _) = rondo(&script, &["adapter", "export", "sentiment-1", "--out", "never-made"]).await;
    let error = end.unwrap_err();
    assert!(error.message.contains("has published no adapter yet") && error.hint.is_some());
}
