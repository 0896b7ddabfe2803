//! Examples as token ids: many at once, and what becomes of rows that cannot be used.

use std::path::Path;
use std::sync::Arc;

use rondo_data::{Content, DataError, Example, OnBadRow, Split};
use rondo_proto::run_file::TaskKind;

use crate::error::TrainerError;
use crate::text::encoded::Encoded;
use crate::text::layout::{Codec, Layout, Refusal};

/// Texts encoded together; more at once gain no speed.
const TEXTS_AT_ONCE: usize = 1024;

/// The tokens of a part of a data set.
#[derive(Debug, Clone)]
pub(super) struct EncodedDataset {
    pub(super) encoded: Arc<Encoded>,
    /// Per example, which text is its; `None` for one that could not be used and was left out.
    pub(super) texts: Arc<Vec<Option<u32>>>,
}

/// What becomes of rows that cannot be used; without a data set they end everything.
pub(super) fn policy(part: Option<Split<'_>>) -> OnBadRow {
    part.map_or(OnBadRow::Stop, |part| part.dataset().on_bad_row())
}

/// Encodes examples one after the other. A row that cannot be used is left out where its data set
/// says so, and ends everything otherwise.
pub(super) fn encode_all(
    codec: &Codec,
    layout: Layout,
    examples: &[Example],
    part: Option<Split<'_>>,
) -> Result<EncodedDataset, TrainerError> {
    let policy = policy(part);
    let mut encoded = Encoded::new();
    let mut texts = Vec::with_capacity(examples.len());
    if layout.kind == TaskKind::Classification {
        let usable = |example: &&Example| example.content != Content::Unusable;
        let whole = examples.iter().filter(usable).map(Example::text);
        let mut found = encode_whole(codec, whole, policy, &mut encoded)?.into_iter();
        texts.extend(examples.iter().map(|example| if usable(&example) { found.next().flatten() } else { None }));
    } else {
        for example in examples {
            let text = encoded.len() as u32;
            texts.push(match codec.push(layout, example, &mut encoded) {
                Ok(()) => Some(text),
                Err(Refusal::Row(_)) if policy != OnBadRow::Stop => None,
                Err(refusal) => return Err(codec.refusal_error(refusal, example, part)),
            });
        }
    }
    Ok(EncodedDataset { encoded: Arc::new(encoded), texts: Arc::new(texts) })
}

/// Whole texts, as encoders read them; which of `encoded` each became. One without a token, or with one
/// that the model does not know, is left out where `policy` says so, and ends everything otherwise.
pub(super) fn encode_whole<'t>(
    codec: &Codec,
    texts: impl IntoIterator<Item = &'t str>,
    policy: OnBadRow,
    encoded: &mut Encoded,
) -> Result<Vec<Option<u32>>, TrainerError> {
    let mut texts = texts.into_iter().peekable();
    let mut found = Vec::new();
    while texts.peek().is_some() {
        let some: Vec<&str> = texts.by_ref().take(TEXTS_AT_ONCE).collect();
        let encodings =
            codec.tokenizer.encode_batch_fast(some, true).map_err(|error| codec.error(error.to_string()))?;
        for encoding in encodings {
            if encoding.get_ids().is_empty() {
                if policy == OnBadRow::Stop {
                    return Err(codec.error("an empty text has no tokens; leave such rows out".to_owned()));
                }
                found.push(None);
                continue;
            }
            let ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
            match codec.check_ids(&ids) {
                Ok(()) => {}
                Err(Refusal::Row(problem)) if policy == OnBadRow::Stop => return Err(codec.error(problem)),
                Err(Refusal::Row(_)) => {
                    found.push(None);
                    continue;
                }
                Err(Refusal::All(error)) => return Err(error),
            }
            found.push(Some(encoded.len() as u32));
            encoded.push(ids);
        }
    }
    Ok(found)
}

impl Codec {
    /// A refusal as an error that names the data set's file and the row; `part` is where the
    /// example is from.
    pub(super) fn refusal_error(&self, refusal: Refusal, example: &Example, part: Option<Split<'_>>) -> TrainerError {
        match refusal {
            Refusal::All(error) => error,
            Refusal::Row(problem) => {
                let name = part.map_or("the data set", |part| part.dataset().name()).to_owned();
                let file = part.and_then(|part| part.dataset().file()).map_or_else(|| name.into(), Path::to_owned);
                TrainerError::Data(DataError::Row { file, at: example.place(), problem })
            }
        }
    }
}
