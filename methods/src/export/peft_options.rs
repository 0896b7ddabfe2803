//! The options of a PEFT folder: what decides the meaning of its weights is read, what cannot be
//! honoured is refused by name. Options that only say how the adapter was trained, or which
//! modules it was attached to, decide nothing here: the weights themselves name their modules.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use regex::Regex;
use rondo_proto::placeholder::Placeholder;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use crate::error::MethodError;

/// Initialisations that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ, ...) take
/// the first factors out of it, so that the adapter belongs to other weights than the base's.
const HARMLESS_STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];
/// What changes the model beyond low-rank factors of its linear layers.
const BEYOND_FACTORS: [&str; 5] =
    ["lora_bias", "layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens"];
/// Settings of an initialisation that leaves the base as it is.
const HARMLESS_CONFIGS: [&str; 1] = ["eva_config"];

/// Which of PEFT's types a folder holds.
#[derive(Debug, Deserialize)]
struct PeftType {
    peft_type: String,
}

/// What is wrong with a type, unless it is LoRA.
fn another_type(peft_type: &str) -> Option<String> {
    (peft_type != "LORA").then(|| format!("`peft_type` is {peft_type:?}, not \"LORA\""))
}

/// PEFT's LoraConfig, as far as it decides what the weights mean.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    peft_type: String,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    rank_pattern: Patterns<usize>,
    #[serde(default)]
    alpha_pattern: Patterns<f64>,
    #[serde(default)]
    use_rslora: bool,
    /// Modules that were trained as a whole and lie beside the factors.
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Options {
    /// Reads `adapter_config.json`.
    pub(super) fn read(path: &Path) -> Result<Self, MethodError> {
        let refuse = |problem: String| MethodError::Adapter { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|source| MethodError::io(path, source))?;
        if let Some(placeholder) = Placeholder::of(text.as_bytes()) {
            return Err(refuse(placeholder.to_string()));
        }
        // The type comes first: another type's folder lacks keys that LoRA's must have.
        let PeftType { peft_type } = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let unsupported = |problem: String| refuse(format!("{problem}; only plain LoRA can be read"));
        if let Some(problem) = another_type(&peft_type) {
            return Err(unsupported(problem));
        }
        let options: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        match options.unsupported() {
            Some(problem) => Err(unsupported(problem)),
            None => Ok(options),
        }
    }

    /// The first option that cannot be honoured, with why.
    fn unsupported(&self) -> Option<String> {
        if let Some(problem) = another_type(&self.peft_type) {
            return Some(problem);
        }
        if !self.lora_alpha.is_finite() {
            return Some(format!("`lora_alpha` is {}", self.lora_alpha));
        }
        for (name, value) in self.others.iter().filter(|(_, value)| is_on(value)) {
            let config = name.ends_with("_config") && !HARMLESS_CONFIGS.contains(&name.as_str());
            let why = match (name.as_str(), value) {
                ("bias", Value::String(bias)) if bias == "none" => continue,
                ("bias", _) => "biases of the base were trained with it",
                ("init_lora_weights", Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => continue,
                ("init_lora_weights", Value::String(_)) => {
                    "it changes the base itself; save the adapter with PEFT's \
                     `path_initial_model_for_weight_conversion` first"
                }
                (name, _) if BEYOND_FACTORS.contains(&name) => "it changes more than a low-rank pair can express",
                // Every variant of LoRA comes with such a switch.
                (name, Value::Bool(true)) if name.starts_with("use_") => "the factors then mean something else",
                _ if config => "the factors then mean something else",
                _ => continue,
            };
            return Some(format!("`{name}` is {value}: {why}"));
        }
        let keys =
            self.rank_pattern.0.iter().map(|(key, _)| key).chain(self.alpha_pattern.0.iter().map(|(key, _)| key));
        let broken = keys.into_iter().find_map(|key| expression(key).err().map(|error| (key, error)));
        broken.map(|(key, error)| format!("pattern {key:?} cannot be read: {error}"))
    }

    pub(super) fn base_model_name(&self) -> String {
        self.base_model_name_or_path.clone().unwrap_or_default()
    }

    /// Modules that lie beside the factors as a whole.
    pub(super) fn saved_modules(&self) -> &[String] {
        self.modules_to_save.as_deref().unwrap_or_default()
    }

    /// The rank of a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        self.rank_pattern.of(module).unwrap_or(self.r)
    }

    /// What the product of a module's factors is multiplied with: alpha / r, or alpha / sqrt(r) for
    /// rsLoRA.
    pub(super) fn scale(&self, module: &str) -> f64 {
        let rank = self.rank(module) as f64;
        let alpha = self.alpha_pattern.of(module).unwrap_or(self.lora_alpha);
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }
}

/// Whether an option says anything at all.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// What a key of a pattern means to PEFT: an expression for the end of a module's name, from a dot
/// or from its beginning.
fn expression(key: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
}

/// Values by pattern, in the file's order: PEFT takes the first that fits.
#[derive(Debug)]
struct Patterns<T>(Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Patterns<T> {
    fn of(&self, module: &str) -> Option<T> {
        let fits = |key: &str| expression(key).is_ok_and(|expression| expression.is_match(module));
        self.0.iter().find(|(key, _)| fits(key)).map(|(_, value)| *value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of patterns, or null")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Patterns::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Patterns(all))
            }
        }

        deserializer.deserialize_any(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(more: Value) -> Options {
        let mut all = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8});
        let (Value::Object(all_of), Value::Object(more)) = (&mut all, more) else { panic!("no objects") };
        all_of.extend(more);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (more, word) in [
            (json!({"peft_type": "VERA"}), "`peft_type` is \"VERA\""),
            (json!({"use_dora": true}), "`use_dora`"),
            (json!({"use_qalora": true}), "`use_qalora`"),
            (json!({"bias": "lora_only"}), "`bias` is \"lora_only\""),
            (json!({"lora_bias": true}), "`lora_bias`"),
            (json!({"init_lora_weights": "pissa_niter_16"}), "`init_lora_weights` is \"pissa_niter_16\""),
            (json!({"layer_replication": [[0, 4], [2, 5]]}), "`layer_replication`"),
            (json!({"trainable_token_indices": [1]}), "`trainable_token_indices`"),
            (json!({"arrow_config": {"top_k": 3}}), "`arrow_config`"),
            (json!({"alpha_pattern": {"(": 3.0}}), "pattern \"(\""),
        ] {
            let problem = options(more).unsupported().unwrap();
            assert!(problem.contains(word), "{problem}");
        }
        let usual = json!({
            "bias": "none", "init_lora_weights": "gaussian", "use_dora": false, "use_rslora": true, "loftq_config": {},
            "megatron_config": null, "layers_to_transform": [0, 1], "layers_pattern": "layer", "lora_dropout": 0.1,
            "rank_pattern": null, "peft_version": "0.18.0", "qalora_group_size": 16, "eva_config": {"rho": 2.0},
        });
        assert_eq!(options(usual).unsupported(), None);
    }

    #[test]
    fn patterns_are_expressions_and_the_first_that_fits_counts() {
        // From text: what keeps the order.
        let text = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": false,
            "rank_pattern": {"layers\\.[01]\\.q": 2, "q": 16, "^v": 3}, "alpha_pattern": {"1.q": 5.0}}"#;
        let options: Options = serde_json::from_str(text).unwrap();
        let ranks = ["m.layers.1.q", "m.layers.2.q", "m.layers.2.xq", "v", "m.v"].map(|module| options.rank(module));
        assert_eq!(ranks, [2, 16, 4, 3, 4]);
        assert_eq!(["m.layers.1.q", "m.layers.2.q"].map(|module| options.scale(module)), [2.5, 0.5]);
        let rslora = Options { use_rslora: true, ..options };
        assert_eq!(rslora.scale("m.layers.2.q"), 2.0);
    }
}
