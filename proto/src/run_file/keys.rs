//! The keys a run file may have, taken from the types themselves, and the nearest one to an unknown
//! key.

use std::collections::BTreeMap;

use serde_ignored::Path;

use super::{
    AnswerRule, BaseRef, Dtype, EvaluationChoice, HeadMode, Keep, LossOn, MethodChoice, OptionScore, Pooling,
    PrivacyChoice, Quantise, Rounds, RunFile, Server, ServerOptimiser, Task, TaskKind, Template, Train, Weighting,
    Wire,
};
use crate::digest::Digest;
use crate::nearest::nearest;

/// Options under this table are the method's own.
const METHOD: &str = "method";

/// A run file in which every optional value is present, so that serialising it names every key.
fn full() -> RunFile {
    RunFile {
        name: String::new(),
        base: BaseRef { model: String::new(), digest: Some(Digest::of(b"")) },
        task: Task {
            kind: TaskKind::Classification,
            dataset: String::new(),
            labels: vec![String::new()],
            max_tokens: 1,
            head: HeadMode::Train,
            pooling: Pooling::Mean,
            loss_on: LossOn::Completion,
            template: Template::Auto,
            option_score: OptionScore::PerToken,
            answer: AnswerRule::Number,
            max_new_tokens: 1,
        },
        method: MethodChoice {
            id: String::new(),
            rank: 1,
            alpha: Some(1.0),
            targets: Vec::new(),
            options: BTreeMap::new(),
        },
        train: Train {
            local_steps: 1,
            batch: 1,
            lr: 1.0,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
            proximal: 0.0,
            dtype: Dtype::F32,
            quantise: Quantise::None,
            seed: 0,
        },
        rounds: Rounds {
            count: 1,
            cohort: 1,
            quorum: 1,
            over_select: 0,
            deadline_s: 1,
            grace_s: 0,
            eval_every: 0,
            weighting: Some(Weighting::Examples),
            max_update_norm: Some(1.0),
            max_attempts: 1,
            keep: Keep::Last,
            rollback: Some(0.1),
        },
        server: Some(Server { optimiser: ServerOptimiser::FedAvgM, lr: 1.0, beta1: 0.9, beta2: 0.99, tau: 1e-3 }),
        evaluation: Some(EvaluationChoice { client: String::new(), dataset: String::new(), public: true }),
        privacy: Some(PrivacyChoice {
            unit: String::new(),
            epsilon: 1.0,
            delta: 0.5,
            clip: 1.0,
            noise_multiplier: Some(1.0),
            sampling_rate: Some(1.0),
            clip_quantile: Some(0.5),
        }),
        wire: Wire { dtype: Dtype::F32 },
    }
}

/// Known keys by table; the top level is the empty name. Every table of a run file is one level
/// deep.
fn known() -> BTreeMap<String, Vec<String>> {
    let mut tables = BTreeMap::new();
    if let Ok(toml::Value::Table(top)) = toml::Value::try_from(full()) {
        for (name, value) in &top {
            if let toml::Value::Table(table) = value {
                tables.insert(name.clone(), table.keys().cloned().collect());
            }
        }
        tables.insert(String::new(), top.keys().cloned().collect());
    }
    tables
}

/// The dotted path of a key that the parser ignored.
pub(super) fn dotted(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Map { parent, key } => join(&dotted(parent), key),
        Path::Seq { parent, index } => join(&dotted(parent), &index.to_string()),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The first unknown key, for a file that does not parse into a run: it may be why.
pub(super) fn first_unknown(text: &str) -> Option<String> {
    let tables = known();
    let top: toml::Table = text.parse().ok()?;
    for (name, value) in &top {
        if !tables.get("").is_some_and(|keys| keys.contains(name)) {
            return Some(name.clone());
        }
        let (Some(keys), toml::Value::Table(table)) = (tables.get(name), value) else { continue };
        if let Some(key) = table.keys().find(|key| name != METHOD && !keys.contains(key)) {
            return Some(join(name, key));
        }
    }
    None
}

/// The known key most like an unknown one: the same word in another table, or one spelt alike in
/// the same table.
pub(super) fn nearest_known(key: &str) -> Option<String> {
    let tables = known();
    let (table, word) = key.split_once('.').unwrap_or(("", key));
    let elsewhere = tables.iter().find(|(name, keys)| name.as_str() != table && keys.iter().any(|known| known == word));
    let siblings = tables.get(table)?;
    if let Some(near) = nearest(word, siblings.iter().map(String::as_str)) {
        // An equal word beats one that is only alike.
        if elsewhere.is_none() || strsim::jaro_winkler(near, word) > 0.9 {
            return Some(join(table, near));
        }
    }
    elsewhere.map(|(name, _)| join(name, word))
}
