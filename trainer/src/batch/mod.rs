//! Batches of texts as tensors, packed without padding.

pub mod padding;

use tch::{Device, Kind, Tensor};

use crate::batch::padding::Padding;
use crate::error::TrainerError;
pub use crate::text::encoded::Encoded;

/// Some texts as tensors. `n` = tokens in all, `b` = texts, `t` = tokens of the longest.
pub struct Batch {
    /// `[n]`
    ids: Tensor,
    /// Position of each token in its text, `[n]`.
    positions: Tensor,
    padding: Padding,
    /// Where texts differ in length: which cells of the padded grid are tokens, `[b, 1, 1, t]`.
    mask: Option<Tensor>,
    /// Number of each token's text in this batch, `[n]`.
    owners: Tensor,
    lengths: Vec<i64>,
    /// Position of each text's first token.
    offsets: Vec<i64>,
}

impl Batch {
    /// The texts with these indices, in this order.
    pub fn new(encoded: &Encoded, texts: &[usize], device: Device) -> Result<Self, TrainerError> {
        Self::following(encoded, texts, &vec![0; texts.len()], device)
    }

    /// The same as continuations: what comes before them, so many tokens of each, is in a language model's cache.
    pub fn following(
        encoded: &Encoded,
        texts: &[usize],
        offsets: &[i64],
        device: Device,
    ) -> Result<Self, TrainerError> {
        if offsets.len() != texts.len() {
            let problem = format!("{} offsets for {} texts", offsets.len(), texts.len());
            return Err(TrainerError::Tensor { name: "batch".into(), problem });
        }
        let lengths: Vec<i64> = texts.iter().map(|&index| encoded.text(index).len() as i64).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let tokens = lengths.iter().sum::<i64>() as usize;
        let (mut ids, mut positions) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        let (mut rows, mut owners) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        for (row, (&index, &offset)) in texts.iter().zip(offsets).enumerate() {
            let text = encoded.text(index);
            ids.extend_from_slice(text);
            positions.extend(offset..offset + text.len() as i64);
            owners.resize(owners.len() + text.len(), row as i64);
            let first = row as i64 * longest;
            rows.extend(first..first + text.len() as i64);
        }
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let (rows, mask) = if lengths.iter().all(|&length| length == longest) {
            (None, None)
        } else {
            let mut is_token = vec![false; texts.len() * longest as usize];
            rows.iter().for_each(|&row| is_token[row as usize] = true);
            let mask = Tensor::f_from_slice(&is_token)?.f_to_device(device)?;
            (Some(tensor(&rows)?), Some(mask.f_view([texts.len() as i64, 1, 1, longest])?))
        };
        let padding = Padding::new(rows, texts.len() as i64, longest);
        let [ids, positions, owners] = [tensor(&ids)?, tensor(&positions)?, tensor(&owners)?];
        Ok(Self { ids, positions, padding, mask, owners, lengths, offsets: offsets.to_vec() })
    }

    /// Token ids, `[n]`.
    pub fn ids(&self) -> &Tensor {
        &self.ids
    }

    /// Position of each token in its text, `[n]`.
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// Number of texts b.
    pub fn texts(&self) -> i64 {
        self.padding.texts()
    }

    /// Tokens of the longest text t.
    pub fn longest(&self) -> i64 {
        self.padding.longest()
    }

    /// How its tokens are laid out in rows of one text each.
    pub fn padding(&self) -> &Padding {
        &self.padding
    }

    /// Tokens of each text.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Position of each text's first token.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// One behind the position of each text's last token.
    pub fn ends(&self) -> impl Iterator<Item = i64> {
        self.offsets.iter().zip(&self.lengths).map(|(offset, length)| offset + length)
    }

    /// The row of each token in a layout `[b * slots]` in which a token stands at its position, `[n]`.
    pub fn cells(&self, slots: i64) -> Result<Tensor, TrainerError> {
        Ok(self.owners.f_mul_scalar(slots)?.f_add(&self.positions)?)
    }

    /// Which keys may be attended to, `[b, 1, 1, t]`; `None` when all texts are equally long.
    pub fn attention_mask(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    /// From `[n, h]` to `[b * t, h]`, zeros where there is no token.
    pub fn pad(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        self.padding.pad(packed)
    }

    /// From `[b * t, h]` back to `[n, h]`.
    pub fn unpad(&self, padded: &Tensor) -> Result<Tensor, TrainerError> {
        self.padding.unpad(padded)
    }

    /// Mean over each text's tokens: `[n, h]` to `[b, h]`.
    pub fn mean(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let tokens = packed.size()[0] as usize;
        let mut shares = vec![0.0_f32; self.lengths.len() * tokens];
        let mut first = 0;
        for (row, &length) in self.lengths.iter().enumerate() {
            let from = row * tokens + first;
            shares[from..from + length as usize].fill(1.0 / length as f32);
            first += length as usize;
        }
        let shares = Tensor::f_from_slice(&shares)?.f_view([self.texts(), tokens as i64])?;
        Ok(shares.f_to_device(packed.device())?.f_to_kind(Kind::Float)?.f_matmul(&packed.f_to_kind(Kind::Float)?)?)
    }

    /// State of each text's first token: `[n, h]` to `[b, h]`.
    pub fn first(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let mut firsts = Vec::with_capacity(self.lengths.len());
        let mut first = 0;
        for &length in &self.lengths {
            firsts.push(first);
            first += length;
        }
        let firsts = Tensor::f_from_slice(&firsts)?.f_to_device(packed.device())?;
        Ok(packed.f_index_select(0, &firsts)?.f_to_kind(Kind::Float)?)
    }
}
