//! The one table of base model architectures: which of a model's tensors are linear layers that an
//! adapter may target. A new architecture is a new row here and, where no model class fits, a model
//! file in the trainer.

use std::borrow::Cow;

/// One family of models, as `model_type` in config.json names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The `model_type`.
    pub model_type: &'static str,
    /// What computes it.
    pub model_class: ModelClass,
    /// Prefixes that some checkpoints put before every tensor's name; stripped from module names.
    pub prefixes: &'static [&'static str],
    /// What comes before the names in `layers` in a module's name, whether a checkpoint writes it
    /// or not.
    pub root: &'static str,
    /// What comes before the layer's number in a module's name, after `root`.
    pub layers: &'static str,
    /// The linear layers of one layer, by what comes after its number.
    pub linears: &'static [&'static str],
    /// Of the linear layers, the query and value projections by the last part of their names: what
    /// LoRA usually adapts.
    pub usual_targets: &'static [&'static str],
    /// How their weights lie in files.
    pub orientation: Orientation,
    /// Beginnings of names, without a prefix, of heads that a checkpoint may hold beside the model.
    pub heads: &'static [&'static str],
    /// Parts of names of buffers that older versions saved; every model computes them itself.
    pub buffers: &'static [&'static str],
    /// What stands before a module's name in the model with a language model's head; empty for
    /// encoders.
    pub language_prefix: &'static str,
    /// Keys of config.json: hidden size, longest input, number of layers.
    pub config_keys: ConfigKeys,
    /// Rows of the position table before the first position: the longest input is shorter by as
    /// many.
    pub positions_before: u32,
}

/// The program that computes a model; architectures that differ in names or settings alone share
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelClass {
    /// Encoder, learned positions, full attention.
    Bert,
    /// BERT with positions that start behind the padding token's row.
    Roberta,
    /// BERT with other names and no token types.
    DistilBert,
    /// Causal decoder, learned positions, one inner matrix.
    Gpt2,
    /// Causal decoder, rotated positions, two inner matrices of which one gates the other.
    Llama,
}

/// How a linear layer's weight lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// `[out, in]`, as `torch.nn.Linear` keeps it.
    OutIn,
    /// `[in, out]`, as the `Conv1D` of GPT-2 keeps it.
    InOut,
}

/// Where an architecture's config.json keeps its sizes.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigKeys {
    /// Width of a token's state.
    pub hidden_size: &'static str,
    /// Longest input in tokens.
    pub max_positions: &'static str,
    /// Number of layers.
    pub layers: &'static str,
}

const USUAL_KEYS: ConfigKeys =
    ConfigKeys { hidden_size: "hidden_size", max_positions: "max_position_embeddings", layers: "num_hidden_layers" };

/// A row of the BERT family.
const fn bert(
    model_type: &'static str,
    model_class: ModelClass,
    prefixes: &'static [&'static str],
    positions_before: u32,
) -> Architecture {
    Architecture {
        model_type,
        model_class,
        prefixes,
        root: "",
        layers: "encoder.layer.",
        linears: &[
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ],
        usual_targets: &["query", "value"],
        orientation: Orientation::OutIn,
        heads: &["pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs."],
        buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
        language_prefix: "",
        config_keys: USUAL_KEYS,
        positions_before,
    }
}

/// A row of the Llama family. Its modules are known by their names in the causal language model.
const fn llama(model_type: &'static str) -> Architecture {
    Architecture {
        model_type,
        model_class: ModelClass::Llama,
        prefixes: &["model."],
        root: "model.",
        layers: "layers.",
        linears: &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ],
        usual_targets: &["q_proj", "v_proj"],
        orientation: Orientation::OutIn,
        heads: &["score.", "classifier.", "qa_outputs.", "v_head."],
        buffers: &[".rotary_emb.inv_freq"],
        language_prefix: "model.",
        config_keys: USUAL_KEYS,
        positions_before: 0,
    }
}

/// All that are known.
pub const ARCHITECTURES: &[Architecture] = &[
    bert("bert", ModelClass::Bert, &["bert."], 0),
    // Positions are counted from after the padding's row, 1.
    bert("roberta", ModelClass::Roberta, &["roberta."], 2),
    bert("xlm-roberta", ModelClass::Roberta, &["roberta."], 2),
    bert("camembert", ModelClass::Roberta, &["roberta."], 2),
    Architecture {
        model_type: "distilbert",
        model_class: ModelClass::DistilBert,
        prefixes: &["distilbert."],
        root: "",
        layers: "transformer.layer.",
        linears: &[
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "ffn.lin1",
            "ffn.lin2",
        ],
        usual_targets: &["q_lin", "v_lin"],
        orientation: Orientation::OutIn,
        heads: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
        buffers: &["embeddings.position_ids"],
        language_prefix: "",
        config_keys: ConfigKeys { hidden_size: "dim", max_positions: "max_position_embeddings", layers: "n_layers" },
        positions_before: 0,
    },
    Architecture {
        model_type: "gpt2",
        model_class: ModelClass::Gpt2,
        prefixes: &["transformer."],
        root: "",
        layers: "h.",
        linears: &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        // Query, key and value are one layer.
        usual_targets: &["c_attn"],
        orientation: Orientation::InOut,
        heads: &["score.", "classifier.", "multiple_choice_head.", "qa_outputs.", "v_head."],
        // The causal mask.
        buffers: &[".attn.bias", ".attn.masked_bias"],
        language_prefix: "transformer.",
        config_keys: ConfigKeys { hidden_size: "n_embd", max_positions: "n_positions", layers: "n_layer" },
        positions_before: 0,
    },
    llama("llama"),
    llama("mistral"),
    llama("qwen2"),
    llama("qwen3"),
];

/// The architecture of that name.
pub fn find(model_type: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.model_type == model_type)
}

/// The names of all architectures, for messages.
pub fn supported() -> String {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.model_type).collect();
    names.join(", ")
}

impl Architecture {
    /// A tensor's name without the prefix that some checkpoints have.
    pub fn strip<'a>(&self, tensor: &'a str) -> &'a str {
        self.prefixes.iter().find_map(|prefix| tensor.strip_prefix(prefix)).unwrap_or(tensor)
    }

    /// A tensor's name as targets and adapters spell it, whether or not the checkpoint writes the
    /// prefix.
    pub fn canonical<'a>(&self, tensor: &'a str) -> Cow<'a, str> {
        match self.root {
            "" => Cow::Borrowed(self.strip(tensor)),
            root if tensor.starts_with(self.layers) => Cow::Owned(format!("{root}{tensor}")),
            _ => Cow::Borrowed(tensor),
        }
    }

    /// A tensor's name as the model's own checkpoints without a head spell it, or with it in the
    /// Llama family; the TensorFlow spelling of layer norms is put right.
    pub fn tensor<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if !self.root.is_empty() {
            let bare = [self.layers, "embed_tokens.", "norm."].iter().any(|part| name.starts_with(part));
            return if bare { Cow::Owned(format!("{}{name}", self.root)) } else { Cow::Borrowed(name) };
        }
        let name = self.strip(name);
        match name.rsplit_once('.') {
            Some((norm, "gamma")) if norm.ends_with("LayerNorm") => Cow::Owned(format!("{norm}.weight")),
            Some((norm, "beta")) if norm.ends_with("LayerNorm") => Cow::Owned(format!("{norm}.bias")),
            _ => Cow::Borrowed(name),
        }
    }

    /// Whether a tensor, by [`Architecture::tensor`], is of a head beside the model.
    pub fn is_head(&self, tensor: &str) -> bool {
        self.heads.iter().any(|head| tensor.starts_with(head))
    }

    /// Whether a tensor, by [`Architecture::tensor`], is a saved buffer.
    pub fn is_buffer(&self, tensor: &str) -> bool {
        self.buffers.iter().any(|buffer| tensor.ends_with(buffer))
    }

    /// Layer number and place in `linears` if this module, by its canonical name, is a linear layer
    /// that may be adapted.
    pub fn linear(&self, module: &str) -> Option<(u32, usize)> {
        let rest = module.strip_prefix(self.root)?;
        let (number, suffix) = rest.strip_prefix(self.layers)?.split_once('.')?;
        let place = self.linears.iter().position(|linear| *linear == suffix)?;
        // `parse` alone would take "+1" and "01", which no checkpoint writes.
        let layer: u32 = number.parse().ok()?;
        (layer.to_string() == number).then_some((layer, place))
    }

    /// Output and input size of a linear layer from its weight's shape in a file.
    pub fn sizes(&self, shape: [usize; 2]) -> (usize, usize) {
        match self.orientation {
            Orientation::OutIn => (shape[0], shape[1]),
            Orientation::InOut => (shape[1], shape[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_targets_are_linear_layers() {
        for architecture in ARCHITECTURES {
            for target in architecture.usual_targets {
                let is_target = |linear: &&str| linear.rsplit('.').next() == Some(*target);
                assert_eq!(architecture.linears.iter().filter(|linear| is_target(linear)).count(), 1, "{target}");
            }
        }
    }

    #[test]
    fn linears_are_found_with_and_without_a_prefix() {
        let bert = find("bert").unwrap();
        assert_eq!(bert.canonical("bert.encoder.layer.3.output.dense"), "encoder.layer.3.output.dense");
        assert_eq!(bert.linear("encoder.layer.3.output.dense"), Some((3, 5)));
        assert_eq!(bert.linear("encoder.layer.11.attention.self.query"), Some((11, 0)));
        for other in ["pooler.dense", "encoder.layer.x.output.dense", "encoder.layer.01.output.dense", "encoder.layer."]
        {
            assert_eq!(bert.linear(other), None, "{other}");
        }
        let llama = find("llama").unwrap();
        for name in ["layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj"] {
            assert_eq!(llama.canonical(name), "model.layers.3.mlp.up_proj");
        }
        assert_eq!(llama.linear("model.layers.3.mlp.up_proj"), Some((3, 5)));
        assert_eq!(llama.canonical("lm_head.weight"), "lm_head.weight");
        assert_eq!(llama.canonical("model.norm.weight"), "model.norm.weight");
        let gpt2 = find("gpt2").unwrap();
        assert_eq!(gpt2.linear(&gpt2.canonical("transformer.h.1.attn.c_proj")), Some((1, 1)));
        // The other tensors of a language model have no names of layers.
        assert_eq!(gpt2.linear(&gpt2.canonical("lm_head")), None);
    }
}
