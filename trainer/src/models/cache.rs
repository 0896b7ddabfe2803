//! Keys and values of earlier tokens, so that generating a token does not compute them again.

use tch::Tensor;

use crate::batch::Batch;
use crate::error::TrainerError;

/// Slots are added so many at a time at least.
const GROW: i64 = 64;

/// Keys and values that one layer computed for earlier tokens; use it without gradients.
///
/// A token's slot is its position in its text. A slot behind a text's end holds meaningless
/// numbers: no token of the text sees them, and its next token overwrites them.
#[derive(Default)]
pub struct LayerCache {
    /// Keys (rotated where the model rotates them) and values,
    /// `[texts, slots, kv heads, head size]`.
    kept: Option<(Tensor, Tensor)>,
}

impl LayerCache {
    /// Takes in a batch's keys and values, `[n, kv heads, head size]`, each at its token's
    /// position.
    ///
    /// # Errors
    /// Another number of texts than the cache holds, and whatever libtorch refuses.
    pub fn store(&mut self, key: &Tensor, value: &Tensor, batch: &Batch) -> Result<(), TrainerError> {
        let end = batch.ends().max().unwrap_or(0);
        let (mut keys, mut values) = match self.kept.take() {
            Some((keys, values)) if keys.size()[0] == batch.texts() => (grown(keys, end)?, grown(values, end)?),
            Some((keys, _)) => {
                let problem = format!("it holds {} texts, the batch {}", keys.size()[0], batch.texts());
                return Err(TrainerError::Tensor { name: "cache".into(), problem });
            }
            None => (empty(key, batch.texts(), end)?, empty(value, batch.texts(), end)?),
        };
        let rows = batch.cells(keys.size()[1])?;
        for (kept, fresh) in [(&mut keys, key), (&mut values, value)] {
            let [_, _, heads, size] = kept.size()[..] else { continue };
            let _ = kept.f_view([-1, heads, size])?.f_index_copy_(0, &rows, fresh)?;
        }
        self.kept = Some((keys, values));
        Ok(())
    }

    /// The keys and values in the first `slots` slots, `[texts, kv heads, slots, head size]`.
    ///
    /// # Errors
    /// The cache is empty.
    pub fn read(&self, slots: i64) -> Result<(Tensor, Tensor), TrainerError> {
        let Some((keys, values)) = &self.kept else {
            return Err(TrainerError::Tensor { name: "cache".into(), problem: "it is empty".into() });
        };
        let first = |x: &Tensor| x.f_narrow(1, 0, slots)?.f_transpose(1, 2);
        Ok((first(keys)?, first(values)?))
    }

    /// Keeps these texts, in this order; a text may be named more than once.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn select(&mut self, texts: &[i64]) -> Result<(), TrainerError> {
        if let Some((keys, values)) = &mut self.kept {
            let texts = Tensor::f_from_slice(texts)?.f_to_device(keys.device())?;
            (*keys, *values) = (keys.f_index_select(0, &texts)?, values.f_index_select(0, &texts)?);
        }
        Ok(())
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let bytes = |x: &Tensor| x.numel() * x.kind().elt_size_in_bytes();
        self.kept.as_ref().map_or(0, |(keys, values)| bytes(keys) + bytes(values))
    }
}

fn empty(like: &Tensor, texts: i64, slots: i64) -> Result<Tensor, TrainerError> {
    let size = [texts, slots, like.size()[1], like.size()[2]];
    Ok(Tensor::f_zeros(size, (like.kind(), like.device()))?)
}

/// Room for `slots` slots; when it grows, then by a half, so that a long text is not copied for
/// each token.
fn grown(kept: Tensor, slots: i64) -> Result<Tensor, TrainerError> {
    let [texts, there, heads, size] = kept.size()[..] else { return Ok(kept) };
    if slots <= there {
        return Ok(kept);
    }
    let more = (slots - there).max(there / 2).max(GROW);
    let room = Tensor::f_zeros([texts, more, heads, size], (kept.kind(), kept.device()))?;
    Ok(Tensor::f_cat(&[kept, room], 1)?)
}
