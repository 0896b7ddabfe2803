//! Building blocks that decoders share.

use rondo_base::config::Heads;
use tch::{Kind, Tensor};

use super::{LayerCache, ModelError, WeightFiles};
use crate::batch::Batch;
use crate::error::TrainerError;

/// Root mean square norm (Zhang & Sennrich 2019): `x / sqrt(mean(x^2) + eps) * w` over the last
/// dimension, the mean in f32 at least.
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Loads `<name>.weight` of `size` numbers.
    ///
    /// # Errors
    /// The tensor is absent or has another shape.
    pub fn load(weights: &mut WeightFiles, name: &str, size: usize, eps: f64) -> Result<Self, ModelError> {
        Ok(Self { weight: weights.take(&format!("{name}.weight"), &[size])?, eps })
    }

    /// `[.., size]` to the same.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(x.f_rms_norm(self.weight.size(), Some(&self.weight), self.eps)?)
    }
}

/// Grouped-query attention (Ainslie et al. 2023) in which a token sees itself and what came before
/// it. With as many key-value heads as heads it is plain multi-head attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub heads: i64,
    /// Key and value heads; `heads` is a multiple.
    pub kv_heads: i64,
    /// Numbers in a head.
    pub head_size: i64,
    /// How many tokens a token sees, itself among them; `None` = all before it.
    pub window: Option<i64>,
}

impl Attention {
    /// Plain multi-head attention.
    pub(super) fn plain(heads: Heads) -> Self {
        let number = heads.number as i64;
        Self { heads: number, kv_heads: number, head_size: heads.size as i64, window: None }
    }

    /// `softmax(Q K^T / sqrt(d)) V` of each text.
    ///
    /// Shapes: `query` `[n, heads, d]`, `key` and `value` `[n, kv heads, d]`, result
    /// `[n, heads * d]`. With a cache, texts also see what it holds of them, and it takes these
    /// keys and values in.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn causal(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        batch: &Batch,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        if let Some(cache) = cache {
            cache.store(key, value, batch)?;
            if batch.offsets().iter().any(|&offset| offset > 0) {
                let slots = batch.ends().max().unwrap_or(0);
                let (keys, values) = cache.read(slots)?;
                let mask = self.cached_mask(batch, slots)?;
                return self.attend(query, &keys, &values, batch, Mask::given(mask.as_ref()));
            }
        }
        let key = self.lay_out(key, self.kv_heads, batch)?;
        let value = self.lay_out(value, self.kv_heads, batch)?;
        // Padding stands behind a text's tokens, where a causal mask hides it from them.
        match self.window.filter(|&window| window < batch.longest()) {
            Some(window) => self.attend(query, &key, &value, batch, Mask::Given(&band(batch, window)?)),
            None => self.attend(query, &key, &value, batch, Mask::Causal),
        }
    }

    /// The same where every token of a text sees all of its tokens.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn bidirectional(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        batch: &Batch,
    ) -> Result<Tensor, TrainerError> {
        let key = self.lay_out(key, self.kv_heads, batch)?;
        let value = self.lay_out(value, self.kv_heads, batch)?;
        self.attend(query, &key, &value, batch, Mask::given(batch.attention_mask()))
    }

    /// From `[n, heads, d]` to `[texts, heads, longest, d]`, padded on the right.
    fn lay_out(&self, x: &Tensor, heads: i64, batch: &Batch) -> Result<Tensor, TrainerError> {
        let padded = batch.pad(&x.f_reshape([-1, heads * self.head_size])?)?;
        Ok(padded.f_view([batch.texts(), batch.longest(), heads, self.head_size])?.f_transpose(1, 2)?)
    }

    /// `query` `[n, heads, d]`; `key`, `value` `[texts, kv heads, slots, d]`; result
    /// `[n, heads * d]`.
    fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        batch: &Batch,
        mask: Mask<'_>,
    ) -> Result<Tensor, TrainerError> {
        let query = self.lay_out(query, self.heads, batch)?;
        let key = self.repeat(key)?;
        let value = self.repeat(value)?;
        let (mask, is_causal) = match mask {
            Mask::All => (None, false),
            Mask::Causal => (None, true),
            Mask::Given(mask) => (Some(mask), false),
        };
        let context = Tensor::f_scaled_dot_product_attention(&query, &key, &value, mask, 0.0, is_causal, None, false)?;
        batch.unpad(
            &context.f_transpose(1, 2)?.f_reshape([batch.texts() * batch.longest(), self.heads * self.head_size])?,
        )
    }

    /// Every key-value head as often as query heads share it, neighbours together.
    fn repeat(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        let share = self.heads / self.kv_heads;
        if share == 1 {
            return Ok(x.shallow_clone());
        }
        let [texts, _, slots, size] = x.size()[..] else {
            return Ok(x.shallow_clone());
        };
        let spread = x.f_unsqueeze(2)?.f_expand([texts, self.kv_heads, share, slots, size], false)?;
        Ok(spread.f_reshape([texts, self.heads, slots, size])?)
    }

    /// Which slots each token sees, `[texts, 1, longest, slots]`; `None` when all tokens see all
    /// slots.
    fn cached_mask(&self, batch: &Batch, slots: i64) -> Result<Option<Tensor>, TrainerError> {
        let all_seen = batch.longest() == 1 && batch.ends().all(|end| end == slots);
        if all_seen && self.window.is_none_or(|window| window >= slots) {
            return Ok(None);
        }
        let size = [batch.texts(), 1, batch.longest(), 1];
        let positions = batch.pad(&batch.positions().f_view([-1, 1])?)?.f_view(size)?;
        let slot = Tensor::f_arange(slots, (Kind::Int64, positions.device()))?;
        let mask = slot.f_le_tensor(&positions)?;
        Ok(Some(match self.window {
            Some(window) => mask.f_logical_and(&slot.f_gt_tensor(&positions.f_sub_scalar(window)?)?)?,
            None => mask,
        }))
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
enum Mask<'t> {
    /// All of them.
    All,
    /// Its own and those before it.
    Causal,
    /// Those where the mask is true; it broadcasts to `[texts, heads, longest, slots]`.
    Given(&'t Tensor),
}

impl<'t> Mask<'t> {
    /// Without a mask all keys are seen.
    fn given(mask: Option<&'t Tensor>) -> Self {
        mask.map_or(Self::All, Self::Given)
    }
}

/// The causal mask `[longest, longest]` in which a token sees `window` tokens.
fn band(batch: &Batch, window: i64) -> Result<Tensor, TrainerError> {
    let options = (Kind::Bool, batch.positions().device());
    Ok(Tensor::f_ones([batch.longest(), batch.longest()], options)?.f_tril(0)?.f_triu(1 - window)?)
}
