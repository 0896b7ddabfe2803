//! How encoders name their parts, behind the prefix that some checkpoints have.
//!
//! RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020)
//! have BERT's names. DistilBERT's positions are read from the checkpoint whether they were learned
//! or (`sinusoidal_pos_embds`) computed: both are saved.

/// One architecture's names.
pub(super) struct Names {
    /// Before a layer's number.
    pub(super) layers: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    /// The feed-forward block: to its width, and back to the hidden size.
    pub(super) inner: &'static str,
    pub(super) outer: &'static str,
    pub(super) output_norm: &'static str,
}

/// BERT (Devlin et al. 2019), as Hugging Face's `BertModel` without its pooler.
pub(super) const BERT: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    output_norm: "output.LayerNorm",
};

/// DistilBERT (Sanh et al. 2019): BERT's layers, half as many, without token types.
pub(super) const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    output_norm: "output_layer_norm",
};
