//! A language model's logits in a file, for comparisons with other programs.

use std::collections::HashMap;
use std::path::Path;

use rondo_data::Split;
use rondo_methods::Tensor;
use rondo_proto::run_file::Task;
use rondo_trainer::logits::of_texts;
use rondo_trainer::session::Session;
use rondo_trainer::text::tokens::Tokens;
use safetensors::tensor::{Dtype, TensorView};

use super::error::OfflineError;

/// Largest file written: logits are a vocabulary's numbers per token.
const MOST_BYTES: usize = 1 << 30;
/// The option's name, for errors.
const OPTION: &str = "--logits";

/// Writes the logits of the first `limit` rows: `texts.N.tokens` (i64, `[tokens]`) and
/// `texts.N.logits` (f32, `[tokens, vocabulary]`), N from 0 in the order of the data set.
pub(super) fn write(
    path: &Path,
    session: &Session<'_>,
    tokens: &mut Tokens,
    task: &Task,
    part: Split<'_>,
    limit: Option<usize>,
) -> Result<(), OfflineError> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    for taken in tokens.rows(part, task)?.chunks(limit.unwrap_or(usize::MAX)) {
        let encoded = taken?.encoded;
        let words = session.words()?;
        let chunk: usize = (0..encoded.len()).map(|text| encoded.text(text).len() * words * size_of::<f32>()).sum();
        bytes += chunk;
        if bytes > MOST_BYTES {
            let problem = format!("would hold more than {} MB of numbers; lower --limit", MOST_BYTES >> 20);
            return Err(OfflineError::Value { option: OPTION, problem });
        }
        for (text, Tensor { shape, data }) in of_texts(session, &encoded)?.into_iter().enumerate() {
            let ids = encoded.text(text);
            let number = tensors.len() / 2;
            let tokens = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            tensors.push((format!("texts.{number}.tokens"), Dtype::I64, vec![ids.len()], tokens));
            let logits = data.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            tensors.push((format!("texts.{number}.logits"), Dtype::F32, shape, logits));
        }
    }
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect();
    let metadata = HashMap::from([("texts".to_owned(), (tensors.len() / 2).to_string())]);
    views.and_then(|views| safetensors::serialize_to_file(views, Some(metadata), path)).map_err(
        |error: safetensors::SafeTensorError| OfflineError::Value {
            option: OPTION,
            problem: format!("{}: {error}", path.display()),
        },
    )
}
