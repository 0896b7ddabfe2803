//! Two sites whose models differ in the chat template alone: the weights and their digest are the
//! same, the tokens are not.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rondo_coordinator::config::Config;
use rondo_proto::base_tokens::OTHER_TOKENS;

use crate::client::{Client, model_dir, run_file};
use crate::coordinator::{Coordinator, Shifted};

/// Gives a client a model of its own, with this chat template.
fn with_template(dir: &Path, template: &str) {
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(model_dir().join(file), model.join(file)).unwrap();
    }
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    let config = fs::read_to_string(dir.join("client.toml")).unwrap();
    let config = config.replace(&format!("path = {:?}", model_dir()), "path = \"model\"");
    assert!(config.contains("path = \"model\""));
    fs::write(dir.join("client.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_with_another_chat_template_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new(&dir.path().join("data"), Config::default(), Arc::<Shifted>::default());
    let mut clients = Vec::new();
    for (name, template) in [("books", "{{ messages }}"), ("films", "<think>{{ messages }}")] {
        let folder = Client::enrol(&coordinator, dir.path(), name).await;
        with_template(&folder, template);
        clients.push(Client::start(name, folder));
        coordinator.until_seen(name).await;
    }
    let base = rondo_base::describe(&clients[0].dir.join("model"), "tiny").unwrap();
    let other = rondo_base::describe(&clients[1].dir.join("model"), "tiny").unwrap();
    assert_eq!(base.digest, other.digest);
    assert_ne!(base.token_digest, other.token_digest);
    let tables = "train = { local_steps = 2, batch = 4, lr = 1e-3 }\n\
                  rounds = { count = 1, cohort = 2, quorum = 2, deadline_s = 120 }";
    let run = coordinator.create_run(base.clone(), run_file(&base, "ffa-lora", tables)).await;
    let summary = coordinator.until(&run, "both are decided on", |run| run.willing.len() == 2).await;
    let said = |name: &str| summary.willing.iter().find(|answer| answer.client == name).unwrap();
    assert!(said("books").accepted, "{summary:?}");
    assert!(!said("films").accepted && said("films").reason == OTHER_TOKENS, "{summary:?}");
    assert_eq!(summary.phase, "recruiting");
    let until = Instant::now() + Duration::from_secs(30);
    while !clients[1].log().contains(OTHER_TOKENS) {
        assert!(Instant::now() < until, "its own log says why");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!clients[0].log().contains(OTHER_TOKENS));
    assert!(clients.iter_mut().all(Client::is_running));
}
