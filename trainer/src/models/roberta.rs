//! RoBERTa (Liu et al. 2019): BERT's layers, with positions that start behind the padding token's
//! row.
//!
//! XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020) are the same model under
//! other vocabularies.

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind};

use super::ModelError;
use super::bert;
use super::encoder::{Encoder, Names};
use super::settings::Settings;

const NAMES: Names = Names {
    architecture: "roberta",
    prefix: "roberta.",
    ignored: &["pooler.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids"],
    ..bert::NAMES
};

/// Row of the padding token where config.json does not say it.
const PADDING: usize = 1;

/// Reads the encoder in `dir`; `config` is its parsed config.json.
pub(super) fn load(dir: &Path, config: &Value, device: Device, kind: Kind) -> Result<Encoder, ModelError> {
    let settings = Settings::new(dir, config);
    let mut encoder = bert::read_config(&settings)?;
    encoder.first_position = settings.whole_or("pad_token_id", PADDING)? + 1;
    if encoder.first_position >= encoder.positions {
        let first = encoder.first_position;
        let rows = encoder.positions;
        return Err(settings.malformed(format!(
            "positions start at `pad_token_id` + 1 = {first}, `max_position_embeddings` is only {rows}"
        )));
    }
    Encoder::load(dir, &NAMES, encoder, device, kind)
}
