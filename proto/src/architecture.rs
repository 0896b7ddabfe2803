//! The one table of base model architectures: which of a model's tensors are linear layers that an adapter may target.
//! A new architecture is a new row here, and a model file in the client's trainer.

/// One family of models, as `model_type` in config.json names it.
#[derive(Debug)]
pub struct Architecture {
    /// The `model_type`.
    pub model_type: &'static str,
    /// Prefixes that some checkpoints put before every tensor's name; stripped from module names.
    pub prefixes: &'static [&'static str],
    /// What comes before the layer's number in a module's name.
    pub layers: &'static str,
    /// The linear layers of one layer, by what comes after its number.
    pub linears: &'static [&'static str],
    /// Keys of config.json: hidden size, longest input, number of layers.
    pub config_keys: ConfigKeys,
    /// What stands before a module's name in the model with a language model's head; empty for encoders.
    pub language_prefix: &'static str,
    /// Weights of linear layers stand as `[in, out]` in its files, where others have `[out, in]`.
    pub transposed: bool,
    /// The position of a text's first token is `pad_token_id` + 1, and so many positions are no use.
    pub positions_follow_padding: bool,
}

/// Where an architecture's config.json keeps its sizes.
#[derive(Debug)]
pub struct ConfigKeys {
    /// Width of a token's state.
    pub hidden_size: &'static str,
    /// Longest input in tokens.
    pub max_positions: &'static str,
    /// Number of layers.
    pub layers: &'static str,
}

const BERT: Architecture = Architecture {
    model_type: "bert",
    prefixes: &["bert."],
    layers: "encoder.layer.",
    linears: &[
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    config_keys: ConfigKeys {
        hidden_size: "hidden_size",
        max_positions: "max_position_embeddings",
        layers: "num_hidden_layers",
    },
    language_prefix: "",
    transposed: false,
    positions_follow_padding: false,
};

const ROBERTA: Architecture =
    Architecture { model_type: "roberta", prefixes: &["roberta."], positions_follow_padding: true, ..BERT };

/// All that are known.
pub const ARCHITECTURES: &[Architecture] = &[
    BERT,
    ROBERTA,
    Architecture { model_type: "xlm-roberta", ..ROBERTA },
    Architecture { model_type: "camembert", ..ROBERTA },
    Architecture {
        model_type: "distilbert",
        prefixes: &["distilbert."],
        layers: "transformer.layer.",
        linears: &[
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "ffn.lin1",
            "ffn.lin2",
        ],
        config_keys: ConfigKeys { hidden_size: "dim", max_positions: "max_position_embeddings", layers: "n_layers" },
        ..BERT
    },
    Architecture {
        model_type: "gpt2",
        prefixes: &["transformer."],
        layers: "h.",
        linears: &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        config_keys: ConfigKeys { hidden_size: "n_embd", max_positions: "n_positions", layers: "n_layer" },
        language_prefix: "transformer.",
        transposed: true,
        positions_follow_padding: false,
    },
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

    /// Layer number and place in `linears` if this module is a linear layer that may be adapted.
    pub fn linear(&self, module: &str) -> Option<(u32, usize)> {
        let (number, suffix) = module.strip_prefix(self.layers)?.split_once('.')?;
        let place = self.linears.iter().position(|linear| *linear == suffix)?;
        // `parse` alone would take "+1" and "01", which no checkpoint writes.
        let layer: u32 = number.parse().ok()?;
        (layer.to_string() == number).then_some((layer, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linears_are_found_with_and_without_a_prefix() {
        let bert = find("bert").unwrap();
        assert_eq!(bert.strip("bert.encoder.layer.3.output.dense"), "encoder.layer.3.output.dense");
        assert_eq!(bert.linear("encoder.layer.3.output.dense"), Some((3, 5)));
        assert_eq!(bert.linear("encoder.layer.11.attention.self.query"), Some((11, 0)));
        for other in ["pooler.dense", "encoder.layer.x.output.dense", "encoder.layer.01.output.dense", "encoder.layer."]
        {
            assert_eq!(bert.linear(other), None, "{other}");
        }
    }
}
