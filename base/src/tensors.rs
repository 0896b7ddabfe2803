//! The tensors that a model of a config has, by name and shape as they lie in files.

use crate::architecture::{ModelClass, Orientation};
use crate::config::{EncoderConfig, Gpt2Config, LlamaConfig, ModelConfig};
use crate::error::BaseError;

/// A decoder's matrix from states to tokens.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Takes a tensor's name and shape, and may stop.
type Visit<'v> = &'v mut dyn FnMut(&str, &[usize]) -> Result<(), BaseError>;

/// The embedding, to which a decoder's vocabulary matrix may be tied.
pub(crate) fn embedding(config: &ModelConfig) -> &'static str {
    match config {
        ModelConfig::Encoder(_) => "embeddings.word_embeddings.weight",
        ModelConfig::Gpt2(_) => "wte.weight",
        ModelConfig::Llama(_) => "model.embed_tokens.weight",
    }
}

/// Calls `visit` for every tensor of the model, one after the other: a config may claim many
/// layers, so no list is made.
pub(crate) fn visit(config: &ModelConfig, visit: Visit<'_>) -> Result<(), BaseError> {
    match config {
        ModelConfig::Encoder(config) => encoder(config, visit),
        ModelConfig::Gpt2(config) => gpt2(config, visit),
        ModelConfig::Llama(config) => llama(config, visit),
    }
}

/// A linear layer with its bias, or a norm with weight and bias.
fn with_bias(name: &str, shape: &[usize], bias: usize, visit: Visit<'_>) -> Result<(), BaseError> {
    visit(&format!("{name}.weight"), shape)?;
    visit(&format!("{name}.bias"), &[bias])
}

fn encoder(config: &EncoderConfig, visit: Visit<'_>) -> Result<(), BaseError> {
    let EncoderConfig { architecture, hidden, inner, .. } = *config;
    visit("embeddings.word_embeddings.weight", &[config.vocabulary, hidden])?;
    visit("embeddings.position_embeddings.weight", &[config.positions, hidden])?;
    if let Some(types) = config.types {
        visit("embeddings.token_type_embeddings.weight", &[types, hidden])?;
    }
    with_bias("embeddings.LayerNorm", &[hidden], hidden, visit)?;
    let norms = match architecture.model_class {
        ModelClass::DistilBert => ["sa_layer_norm", "output_layer_norm"],
        _ => ["attention.output.LayerNorm", "output.LayerNorm"],
    };
    for layer in 0..config.layers {
        let at = |part: &str| format!("{}{layer}.{part}", architecture.layers);
        // Query, key, value and output, then the feed-forward part's two.
        let sizes = [[hidden, hidden]; 4].into_iter().chain([[inner, hidden], [hidden, inner]]);
        for (linear, [out, inp]) in architecture.linears.iter().zip(sizes) {
            with_bias(&at(linear), &[out, inp], out, visit)?;
        }
        for norm in norms {
            with_bias(&at(norm), &[hidden], hidden, visit)?;
        }
    }
    Ok(())
}

fn gpt2(config: &Gpt2Config, visit: Visit<'_>) -> Result<(), BaseError> {
    let Gpt2Config { architecture, hidden, inner, .. } = *config;
    visit("wte.weight", &[config.vocabulary, hidden])?;
    visit("wpe.weight", &[config.positions, hidden])?;
    for layer in 0..config.layers {
        let at = |part: &str| format!("{}{layer}.{part}", architecture.layers);
        let sizes = [[3 * hidden, hidden], [hidden, hidden], [inner, hidden], [hidden, inner]];
        for (linear, [out, inp]) in architecture.linears.iter().zip(sizes) {
            let shape = match architecture.orientation {
                Orientation::OutIn => [out, inp],
                Orientation::InOut => [inp, out],
            };
            with_bias(&at(linear), &shape, out, visit)?;
        }
        for norm in ["ln_1", "ln_2"] {
            with_bias(&at(norm), &[hidden], hidden, visit)?;
        }
    }
    with_bias("ln_f", &[hidden], hidden, visit)?;
    if config.tied { Ok(()) } else { visit(HEAD, &[config.vocabulary, hidden]) }
}

fn llama(config: &LlamaConfig, visit: Visit<'_>) -> Result<(), BaseError> {
    let LlamaConfig { architecture, hidden, inner, head_size, .. } = *config;
    let wide = config.heads * head_size;
    let narrow = config.kv_heads * head_size;
    visit("model.embed_tokens.weight", &[config.vocabulary, hidden])?;
    for layer in 0..config.layers {
        let at = |part: &str| format!("{}{}{layer}.{part}", architecture.root, architecture.layers);
        let (input, output, mlp) = (config.input_bias, config.output_bias, config.mlp_bias);
        let sizes = [
            ([wide, hidden], input),
            ([narrow, hidden], input),
            ([narrow, hidden], input),
            ([hidden, wide], output),
            ([inner, hidden], mlp),
            ([inner, hidden], mlp),
            ([hidden, inner], mlp),
        ];
        for (linear, (shape, bias)) in architecture.linears.iter().zip(sizes) {
            match bias {
                true => with_bias(&at(linear), &shape, shape[0], visit)?,
                false => visit(&at(&format!("{linear}.weight")), &shape)?,
            }
        }
        for norm in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
            visit(&at(norm), &[hidden])?;
        }
        if config.head_norms {
            for norm in ["self_attn.q_norm.weight", "self_attn.k_norm.weight"] {
                visit(&at(norm), &[head_size])?;
            }
        }
    }
    visit("model.norm.weight", &[hidden])?;
    if config.tied { Ok(()) } else { visit(HEAD, &[config.vocabulary, hidden]) }
}
