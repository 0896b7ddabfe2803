use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;

fn read(config: Json) -> Result<ModelConfig, String> {
    let values = ConfigValues::of(Path::new("m/config.json"), config).map_err(|error| error.to_string())?;
    ModelConfig::read(&values).map_err(|error| error.to_string())
}

fn with(model_type: &str, key: &str, value: Json) -> Result<ModelConfig, String> {
    read(json!({"model_type": model_type, key: value}))
}

/// Keys of whole numbers by family, and which of them may be null.
const COUNTS: [(&str, &[&str]); 8] = [
    ("llama", &["hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "vocab_size"]),
    ("llama", &["intermediate_size", "num_key_value_heads", "head_dim"]),
    ("mistral", &["num_key_value_heads", "sliding_window", "head_dim"]),
    ("qwen2", &["sliding_window", "num_key_value_heads"]),
    ("qwen3", &["head_dim", "vocab_size"]),
    ("gpt2", &["n_embd", "n_layer", "n_head", "n_positions", "n_inner", "vocab_size"]),
    ("bert", &["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "type_vocab_size"]),
    ("distilbert", &["dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "vocab_size"]),
];
const MAY_BE_NULL: [(&str, &str); 7] = [
    ("llama", "num_key_value_heads"),
    ("llama", "head_dim"),
    ("mistral", "sliding_window"),
    ("mistral", "head_dim"),
    ("qwen2", "sliding_window"),
    ("qwen2", "num_key_value_heads"),
    ("gpt2", "n_inner"),
];

#[test]
fn counts_of_a_wrong_kind_or_size_are_refused_by_key_and_file() {
    for (family, keys) in COUNTS {
        for key in keys {
            for wrong in [json!("32"), json!(32.5), json!(32.0), json!(true), json!(0), json!(-4), json!([32])] {
                let error = with(family, key, wrong.clone()).unwrap_err();
                assert!(
                    error.starts_with("m/config.json: ") && error.contains(&format!("`{key}`")),
                    "{wrong}: {error}"
                );
            }
            for large in [json!(u64::MAX), json!(1e300), json!(1u64 << 40)] {
                assert!(with(family, key, large).unwrap_err().contains(&format!("`{key}`")));
            }
            let null = with(family, key, Json::Null);
            assert_eq!(null.is_ok(), MAY_BE_NULL.contains(&(family, key)), "{family} {key}: {null:?}");
        }
    }
}

#[test]
fn numbers_and_flags_of_a_wrong_kind_are_refused_by_key() {
    for (family, key) in [
        ("llama", "rms_norm_eps"),
        ("mistral", "rms_norm_eps"),
        ("qwen2", "rms_norm_eps"),
        ("qwen3", "rms_norm_eps"),
        ("gpt2", "layer_norm_epsilon"),
        ("bert", "layer_norm_eps"),
        ("roberta", "layer_norm_eps"),
        ("llama", "rope_theta"),
        ("qwen3", "rope_theta"),
    ] {
        for wrong in
            [json!("1e-05"), json!(0), json!(0.0), json!(-1e-5), json!(true), json!(1e30), json!({}), Json::Null]
        {
            let error = with(family, key, wrong.clone()).unwrap_err();
            assert!(error.contains(&format!("`{key}` is {wrong}")), "{family} {wrong}: {error}");
        }
    }
    for (family, key) in [
        ("llama", "tie_word_embeddings"),
        ("llama", "attention_bias"),
        ("llama", "mlp_bias"),
        ("qwen2", "use_sliding_window"),
        ("gpt2", "tie_word_embeddings"),
        ("gpt2", "scale_attn_weights"),
        ("bert", "is_decoder"),
    ] {
        for wrong in [json!("true"), json!(1), json!(0), Json::Null] {
            let error = with(family, key, wrong).unwrap_err();
            assert!(error.contains(&format!("`{key}`")) && error.contains("true or false"), "{error}");
        }
    }
    for (family, key) in [("llama", "hidden_act"), ("gpt2", "activation_function"), ("bert", "hidden_act")] {
        for wrong in [json!("tanhshrink"), json!(1), Json::Null] {
            assert!(with(family, key, wrong).unwrap_err().contains(&format!("`{key}`")));
        }
    }
    assert!(with("roberta", "pad_token_id", json!(u64::MAX)).unwrap_err().contains("`pad_token_id`"));
    assert!(read(json!([])).unwrap_err().contains("no JSON object"));
    assert!(read(json!({"model_type": 7})).unwrap_err().contains("`model_type` is 7"));
}

/// The defaults of transformers 5.23 for each configuration class.
#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let llama = |family: &str| match read(json!({"model_type": family})).unwrap() {
        ModelConfig::Llama(config) => {
            let sizes = [config.vocabulary, config.hidden, config.inner, config.layers, config.heads, config.kv_heads];
            (sizes, config.head_size, config.max_positions, config.norm_eps, config.tied, config.rope.base)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(llama("llama"), ([32000, 4096, 11008, 32, 32, 32], 128, 2048, 1e-6, false, 10_000.0));
    assert_eq!(llama("mistral"), ([32000, 4096, 14336, 32, 32, 8], 128, 131_072, 1e-6, false, 10_000.0));
    assert_eq!(llama("qwen2"), ([151_936, 4096, 22016, 32, 32, 32], 128, 32768, 1e-6, false, 10_000.0));
    assert_eq!(llama("qwen3"), ([151_936, 4096, 22016, 32, 32, 32], 128, 32768, 1e-6, false, 10_000.0));
    let Ok(ModelConfig::Gpt2(gpt2)) = read(json!({"model_type": "gpt2"})) else { panic!() };
    assert_eq!((gpt2.vocabulary, gpt2.hidden, gpt2.inner, gpt2.layers), (50257, 768, 3072, 12));
    assert_eq!((gpt2.positions, gpt2.norm_eps, gpt2.tied), (1024, 1e-5, true));
    let encoder = |family: &str| match read(json!({"model_type": family})).unwrap() {
        ModelConfig::Encoder(config) => {
            let sizes = [config.vocabulary, config.hidden, config.inner, config.layers, config.positions];
            (sizes, config.heads.number, config.first_position, config.types, config.norm_eps)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(encoder("bert"), ([30522, 768, 3072, 12, 512], 12, 0, Some(2), 1e-12));
    assert_eq!(encoder("roberta"), ([50265, 768, 3072, 12, 512], 12, 2, Some(2), 1e-12));
    for family in ["xlm-roberta", "camembert"] {
        assert_eq!(encoder(family), ([30522, 768, 3072, 12, 512], 12, 2, Some(2), 1e-12));
    }
    assert_eq!(encoder("distilbert"), ([30522, 768, 3072, 6, 512], 12, 0, None, 1e-12));
}

#[test]
fn windows_follow_the_family() {
    let windows = |config: Json| match read(config) {
        Ok(ModelConfig::Llama(config)) => Ok(config.windows),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let of = |family: &str, key: &str, value: Json| {
        windows(json!({"model_type": family, "num_hidden_layers": 2, "max_window_layers": 1, key: value})).unwrap()
    };
    assert_eq!(of("llama", "sliding_window", json!("of no matter")), [None, None]);
    assert_eq!(of("mistral", "sliding_window", json!(7)), [Some(7), Some(7)]);
    assert_eq!(of("mistral", "sliding_window", Json::Null), [None, None]);
    assert_eq!(of("qwen2", "use_sliding_window", json!(true)), [None, Some(4096)]);
    assert_eq!(of("qwen2", "use_sliding_window", json!(false)), [None, None]);
    let kinds = json!({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]});
    assert!(windows(kinds).unwrap_err().contains("`use_sliding_window`"));
}
