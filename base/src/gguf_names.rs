//! What GGUF and Hugging Face call the same things, for the Llama family: tensors, and the sizes in
//! config.json.
//!
//! Targets, adapters and exports are named as Hugging Face names them, whichever file the weights
//! come from.

use serde_json::{Map, Value as Json, json};

use crate::gguf::{GgufError, Header};

/// Tensors outside of the layers: name in GGUF, name of Hugging Face.
const OUTER: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Modules of a layer: after "blk.N." in GGUF, after "model.layers.N." at Hugging Face.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Divisors of the rotary frequencies, `[head size / 2]` in f32: how GGUF stores the rope scaling
/// of Llama 3.1. There is no such tensor at Hugging Face.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The value of `general.architecture` in files that are read. "llama" stands for Llama, Mistral
/// and SmolLM2.
pub const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// The Hugging Face name of a GGUF tensor, for example "model.layers.0.self_attn.q_proj.weight".
pub fn hugging_face(name: &str) -> Option<String> {
    if let Some((_, outer)) = OUTER.iter().find(|(gguf, _)| *gguf == name) {
        return Some((*outer).to_owned());
    }
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, part) = rest.rsplit_once('.')?;
    let (_, module) = LAYER.iter().find(|(gguf, _)| *gguf == module)?;
    (is_number(number) && is_part(part)).then(|| format!("model.layers.{number}.{module}.{part}"))
}

/// The GGUF name of a Hugging Face tensor, for example "blk.0.attn_q.weight".
pub fn gguf(name: &str) -> Option<String> {
    if let Some((outer, _)) = OUTER.iter().find(|(_, hugging_face)| *hugging_face == name) {
        return Some((*outer).to_owned());
    }
    let (number, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, part) = rest.rsplit_once('.')?;
    let (module, _) = LAYER.iter().find(|(_, hugging_face)| *hugging_face == module)?;
    (is_number(number) && is_part(part)).then(|| format!("blk.{number}.{module}.{part}"))
}

fn is_part(part: &str) -> bool {
    part == "weight" || part == "bias"
}

/// A layer's number, as it is written: "0" and "12", not "012" or "+1".
fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

/// Whether the rows of this tensor lie in GGUF in another order than at Hugging Face: the converter
/// interleaves the halves of each head of q and k for the architecture "llama", and for it alone.
pub fn is_interleaved(architecture: &str, hugging_face: &str) -> bool {
    let module = hugging_face.rsplit_once('.').map_or("", |(module, _)| module);
    architecture == "llama" && (module.ends_with("self_attn.q_proj") || module.ends_with("self_attn.k_proj"))
}

/// Where row `row` of an interleaved tensor ([`is_interleaved`]) lies in the GGUF file. Within each
/// head of `head_size` rows, Hugging Face's row `half * head_size / 2 + pair` is GGUF's row
/// `2 * pair + half`. An odd head size, which no rotary model has, leaves the last row where it is.
pub fn interleaved_row(row: usize, head_size: usize) -> usize {
    let pairs = head_size / 2;
    let head = row / head_size.max(1);
    let within = row % head_size.max(1);
    if pairs == 0 || within >= 2 * pairs {
        return row;
    }
    head * head_size + 2 * (within % pairs) + within / pairs
}

/// The config.json that a Hugging Face folder of this model would have, as far as the trainer asks
/// for it: `model_type`, `hidden_size`, `intermediate_size`, `num_hidden_layers`,
/// `num_attention_heads`, `num_key_value_heads`, `head_dim`, `rms_norm_eps`, `rope_theta`,
/// `rope_scaling`, `max_position_embeddings`, `vocab_size`, `hidden_act`, `tie_word_embeddings`
/// (true when there is no output.weight), `attention_bias`, `mlp_bias`, `sliding_window`, and
/// `bos_token_id`, `eos_token_id`, `pad_token_id` where they are known. Numbers stand as Hugging
/// Face writes them.
///
/// `rope_scaling` is null,
/// `{"rope_type": "linear" | "yarn", "factor", "original_max_position_embeddings"}`, or
/// `{"rope_type": "factors"}` when the file brings the tensor [`ROPE_FACTORS`].
///
/// # Errors
/// An architecture that is not read, a size that is missing or makes no sense, experts, partial
/// rotation.
pub fn config(header: &Header) -> Result<Json, GgufError> {
    let architecture = architecture(header)?;
    if let Some(parts) = header.unsigned("split.count")?.filter(|parts| *parts > 1) {
        return Err(header.invalid(format!(
            "it is one of {parts} parts of a split model; join them first: llama-gguf-split --merge FIRST OUT.gguf"
        )));
    }
    let sizes = Sizes { header, architecture };
    if sizes.find("expert_count")?.is_some_and(|experts| experts > 0) {
        return Err(header.invalid("it is a mixture of experts, which is not supported; take a dense model"));
    }
    let hidden = sizes.need("embedding_length")?;
    let heads = sizes.need("attention.head_count")?;
    let kv_heads = sizes.find("attention.head_count_kv")?.filter(|heads| *heads > 0).unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(header.invalid(format!("it has {heads} heads and {kv_heads} for keys, which do not divide them")));
    }
    let head = match sizes.find("attention.key_length")? {
        Some(head) => head,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(header.invalid(format!("a hidden size of {hidden} does not divide into {heads} heads"))),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = sizes.find(key)?.filter(|other| *other != head) {
            return Err(header.invalid(format!("{architecture}.{key} is {other}; only the head size, {head}, works")));
        }
    }
    let epsilon = sizes.float("attention.layer_norm_rms_epsilon")?.filter(|epsilon| *epsilon > 0.0);
    let epsilon = epsilon.ok_or_else(|| sizes.missing("attention.layer_norm_rms_epsilon"))?;
    let embedding = header.tensor("token_embd.weight").and_then(|tensor| match tensor.shape[..] {
        [rows, columns] if columns == hidden => Some(rows),
        _ => None,
    });
    let Some(vocabulary) = embedding else {
        return Err(header.invalid(format!("it has no tensor token_embd.weight with rows of {hidden} numbers")));
    };
    let has = |name: &str| header.tensor(name).is_some();
    let mut config = json!({
        "model_type": architecture,
        "hidden_size": hidden,
        "intermediate_size": sizes.need("feed_forward_length")?,
        "num_hidden_layers": sizes.need("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "hidden_act": "silu",
        "rms_norm_eps": epsilon,
        "rope_theta": sizes.float("rope.freq_base")?.unwrap_or(10_000.0),
        "rope_scaling": rope_scaling(&sizes)?,
        "max_position_embeddings": sizes.need("context_length")?,
        "vocab_size": vocabulary,
        "tie_word_embeddings": !has("output.weight"),
        "attention_bias": has("blk.0.attn_q.bias"),
        "mlp_bias": has("blk.0.ffn_gate.bias"),
        "sliding_window": sizes.find("attention.sliding_window")?.filter(|window| *window > 0),
    });
    if let Some(config) = config.as_object_mut() {
        token_ids(header, config)?;
    }
    Ok(config)
}

/// The value of `general.architecture`, if it is one that is read.
///
/// # Errors
/// It is missing, or another.
pub fn architecture(header: &Header) -> Result<&'static str, GgufError> {
    let Some(found) = header.text("general.architecture")? else {
        return Err(header.invalid("it has no metadata \"general.architecture\", so it does not say what model it is"));
    };
    let known = ARCHITECTURES.into_iter().find(|known| *known == found);
    known.ok_or_else(|| {
        let supported = ARCHITECTURES.join(", ");
        header.invalid(format!("architecture {found:?} is not supported in GGUF; supported are: {supported}"))
    })
}

fn rope_scaling(sizes: &Sizes<'_>) -> Result<Json, GgufError> {
    if sizes.header.tensor(ROPE_FACTORS).is_some() {
        return Ok(json!({"rope_type": "factors"}));
    }
    let key = format!("{}.rope.scaling.type", sizes.architecture);
    // Files of 2023 have the factor alone.
    let old = sizes.float("rope.scale_linear")?;
    let kind = sizes.header.text(&key)?.unwrap_or(if old.is_some() { "linear" } else { "none" });
    let factor = sizes.float("rope.scaling.factor")?.or(old);
    match kind {
        "none" => Ok(Json::Null),
        "linear" | "yarn" => {
            let factor = factor.filter(|factor| *factor > 0.0).ok_or_else(|| sizes.missing("rope.scaling.factor"))?;
            let mut scaling = json!({"rope_type": kind, "factor": factor});
            if let Some(length) = sizes.find("rope.scaling.original_context_length")? {
                scaling["original_max_position_embeddings"] = json!(length);
            }
            Ok(scaling)
        }
        other => Err(sizes.header.invalid(format!("{key} is {other:?}; supported are none, linear, yarn"))),
    }
}

fn token_ids(header: &Header, config: &mut Map<String, Json>) -> Result<(), GgufError> {
    for name in ["bos", "eos", "padding"] {
        if let Some(id) = header.unsigned(&format!("tokenizer.ggml.{name}_token_id"))? {
            let short = if name == "padding" { "pad" } else { name };
            config.insert(format!("{short}_token_id"), json!(id));
        }
    }
    Ok(())
}

/// Sizes under "<architecture>.".
struct Sizes<'a> {
    header: &'a Header,
    architecture: &'static str,
}

impl Sizes<'_> {
    fn find(&self, key: &str) -> Result<Option<u64>, GgufError> {
        let key = format!("{}.{key}", self.architecture);
        let Some(value) = self.header.get(&key) else { return Ok(None) };
        // Some sizes may be given for each layer; layers of different sizes are another family of
        // models.
        let sizes = value.unsigned_many().filter(|sizes| !sizes.is_empty());
        let sizes = sizes.filter(|sizes| sizes.iter().all(|size| *size == sizes[0] && *size <= u64::from(u32::MAX)));
        match sizes {
            Some(sizes) => Ok(Some(sizes[0])),
            None => {
                Err(self.header.invalid(format!("metadata {key:?} is {value}; it must be one size for all layers")))
            }
        }
    }

    fn need(&self, key: &str) -> Result<u64, GgufError> {
        self.find(key)?.filter(|size| *size > 0).ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.header.float(&format!("{}.{key}", self.architecture))
    }

    fn missing(&self, key: &str) -> GgufError {
        self.header
            .invalid(format!("it has no positive number under metadata {:?}", format!("{}.{key}", self.architecture)))
    }
}

#[cfg(test)]
#[path = "gguf_names_tests.rs"]
mod tests;
