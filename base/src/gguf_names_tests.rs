use std::path::Path;

use super::*;
use crate::gguf::tests::Builder;

fn config_of(builder: &Builder) -> Result<Json, String> {
    let bytes = builder.bytes();
    let header = crate::gguf::parse(&bytes[..], bytes.len() as u64, Path::new("m.gguf")).map_err(|e| e.to_string())?;
    config(&header).map_err(|error| error.to_string())
}

#[test]
fn names_go_there_and_back() {
    for (gguf_name, name) in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.12.attn_k.bias", "model.layers.12.self_attn.k_proj.bias"),
        ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
        ("blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
        ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
    ] {
        assert_eq!(hugging_face(gguf_name).as_deref(), Some(name));
        assert_eq!(gguf(name).as_deref(), Some(gguf_name));
    }
    for other in
        ["blk.01.attn_q.weight", "blk.0.attn_qkv.weight", "blk.0.attn_q.scale", "rope_freqs.weight", "blk.0", ""]
    {
        assert_eq!(hugging_face(other), None, "{other}");
    }
    assert_eq!(gguf("model.layers.x.self_attn.q_proj.weight"), None);
}

#[test]
fn rows_of_q_and_k_are_found_where_the_converter_put_them() {
    // The converter's rule: [heads, 2, size / 2] becomes [heads, size / 2, 2].
    let heads = 2;
    let size = 6;
    let mut converted = Vec::new();
    for head in 0..heads {
        for pair in 0..size / 2 {
            for half in 0..2 {
                converted.push(head * size + half * size / 2 + pair);
            }
        }
    }
    for row in 0..heads * size {
        assert_eq!(converted[interleaved_row(row, size)], row);
    }
    assert!(is_interleaved("llama", "model.layers.1.self_attn.k_proj.weight"));
    assert!(!is_interleaved("qwen2", "model.layers.1.self_attn.k_proj.weight"));
    assert!(!is_interleaved("llama", "model.layers.1.self_attn.v_proj.weight"));
    assert!(!is_interleaved("llama", "model.layers.1.self_attn.q_norm.weight"));
    assert_eq!(interleaved_row(3, 0), 3);
}

#[test]
fn a_config_is_made_from_metadata() {
    let found = config_of(&Builder::llama()).unwrap();
    let expected = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": null, "max_position_embeddings": 128,
        "vocab_size": 10, "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "sliding_window": null, "bos_token_id": 1,
    });
    assert_eq!(found, expected);
    let untied = Builder::llama()
        .tensor("output.weight", &[64, 10], 0)
        .tensor("blk.0.attn_q.bias", &[64], 0)
        .float("llama.rope.freq_base", 5e5)
        .text("llama.rope.scaling.type", "linear")
        .float("llama.rope.scaling.factor", 2.0);
    let found = config_of(&untied).unwrap();
    assert_eq!(found["tie_word_embeddings"], false);
    assert_eq!(found["attention_bias"], true);
    assert_eq!(found["rope_theta"], 5e5);
    assert_eq!(found["rope_scaling"], json!({"rope_type": "linear", "factor": 2.0}));
    let factors = config_of(&Builder::llama().tensor(ROPE_FACTORS, &[8], 0)).unwrap();
    assert_eq!(factors["rope_scaling"]["rope_type"], "factors");
}

#[test]
fn models_that_are_not_supported_are_refused_by_name() {
    let llama = Builder::llama;
    for (builder, says) in [
        (
            llama().text("general.architecture", "mamba"),
            "architecture \"mamba\" is not supported in GGUF; supported are: llama, qwen2, qwen3",
        ),
        (llama().without("general.architecture"), "no metadata \"general.architecture\""),
        (llama().without("llama.block_count"), "no positive number under metadata \"llama.block_count\""),
        (llama().without("llama.attention.layer_norm_rms_epsilon"), "llama.attention.layer_norm_rms_epsilon"),
        (llama().number("llama.expert_count", 8), "mixture of experts"),
        (llama().number("llama.rope.dimension_count", 8), "llama.rope.dimension_count is 8; only the head size, 16,"),
        (llama().number("llama.attention.head_count_kv", 3), "4 heads and 3 for keys"),
        (llama().number("llama.embedding_length", 65), "65 does not divide into 4 heads"),
        (llama().numbers("llama.feed_forward_length", &[32, 16]), "an array of 2; it must be one size for all layers"),
        (llama().text("llama.context_length", "many"), "it must be one size"),
        (llama().text("llama.rope.scaling.type", "longrope"), "\"longrope\"; supported are none, linear, yarn"),
        (llama().text("llama.rope.scaling.type", "yarn"), "llama.rope.scaling.factor"),
        (llama().number("split.count", 2), "llama-gguf-split --merge"),
        (llama().without("token_embd.weight"), "no tensor token_embd.weight"),
    ] {
        let error = config_of(&builder).unwrap_err();
        assert!(error.contains(says) && error.starts_with("m.gguf: "), "{error:?} should contain {says:?}");
    }
    let per_layer = config_of(&llama().numbers("llama.feed_forward_length", &[32, 32])).unwrap();
    assert_eq!(per_layer["intermediate_size"], 32);
}
