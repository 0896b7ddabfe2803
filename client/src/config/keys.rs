//! The keys that client.toml may have, and the nearest one to a key that nobody knows.

use std::path::Path;

use rondo_proto::nearest::nearest;

use super::ConfigError;

/// The keys of each table; a test keeps them equal to the types above.
pub(super) const KEYS: [(&str, &[&str]); 7] = [
    ("", &["model", "dataset", "limits", "policy", "privacy", "poll"]),
    ("model", &["path", "hub", "revision", "file"]),
    (
        "dataset",
        &[
            "name",
            "path",
            "format",
            "rows",
            "text",
            "label",
            "prompt",
            "completion",
            "instruction",
            "input",
            "output",
            "messages",
            "question",
            "choices",
            "choice_labels",
            "options",
            "answer",
            "answer_after",
            "group",
            "columns",
            "quotes",
            "eval_fraction",
            "labels",
            "skip_labels",
            "on_bad_row",
            "max_bad_rows",
            "privacy_domain",
            "public",
        ],
    ),
    (
        "limits",
        &["max_rank", "threads", "device", "max_eval_examples", "memory_mb", "micro_batch", "checkpoint", "data_mb"],
    ),
    (
        "policy",
        &[
            "approve",
            "report_groups",
            "min_group",
            "report_metrics",
            "methods",
            "tasks",
            "datasets",
            "require_privacy",
            "accept_unit_client",
            "max_epsilon",
            "max_delta",
            "max_rounds",
            "max_local_steps",
            "max_batch",
            "max_tokens",
        ],
    ),
    ("privacy", &["domain", "epsilon", "delta"]),
    ("poll", &["interval_ms", "heartbeat_ms", "timeout_ms"]),
];

/// The first key that [`KEYS`] does not list.
pub(super) fn unknown(root: &toml::Table, file: &Path) -> Option<ConfigError> {
    let refuse = |table: String, key: &str, known: &[&'static str]| {
        let nearest = nearest(key, known.iter().copied());
        Some(ConfigError::UnknownKey { file: file.to_owned(), table, key: key.to_owned(), nearest })
    };
    for (name, value) in root {
        let Some((_, known)) = KEYS.iter().find(|(table, _)| table == name && !table.is_empty()) else {
            return refuse("the file's top level".to_owned(), name, KEYS[0].1);
        };
        let tables: Vec<(String, &toml::Table)> = match value {
            toml::Value::Table(table) => vec![(format!("[{name}]"), table)],
            toml::Value::Array(rows) => {
                let place = |n: usize| format!("[[{name}]] number {}", n + 1);
                rows.iter().enumerate().filter_map(|(n, row)| Some((place(n), row.as_table()?))).collect()
            }
            _ => Vec::new(),
        };
        for (table, content) in tables {
            if let Some(key) = content.keys().find(|key| !known.contains(&key.as_str())) {
                return refuse(table, key, known);
            }
        }
    }
    None
}
