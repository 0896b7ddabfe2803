//! Texts as token ids, and batches of them, packed without padding.

use tch::{Device, Kind, Tensor};

use super::error::TrainerError;

/// Token ids of many texts, end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    ids: Vec<i64>,
    /// Text `i` is `ids[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    /// As long as `ids`, or empty: whether a token counts as something to foretell.
    counts: Vec<bool>,
}

impl Encoded {
    /// No texts.
    pub fn new() -> Self {
        Self { ids: Vec::new(), starts: vec![0], counts: Vec::new() }
    }

    /// Appends a text's ids; at least one.
    pub fn push(&mut self, ids: impl IntoIterator<Item = i64>) {
        self.ids.extend(ids);
        self.starts.push(self.ids.len());
    }

    /// Appends a text of a language model, and for each token whether it counts as something to foretell. Either all texts
    /// are pushed so, or none.
    pub fn push_counted(&mut self, ids: &[i64], counts: &[bool]) {
        self.counts.extend_from_slice(counts);
        self.push(ids.iter().copied());
    }

    /// For each token of a text whether it counts; empty where nothing is foretold.
    pub fn counts(&self, index: usize) -> &[bool] {
        self.counts.get(self.starts[index]..self.starts[index + 1]).unwrap_or_default()
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// True when there are no texts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of one text.
    pub fn text(&self, index: usize) -> &[i64] {
        &self.ids[self.starts[index]..self.starts[index + 1]]
    }

    /// Batches of text indices for a pass without gradients: texts of like length together, at most `max_tokens` tokens
    /// each when laid out to the longest (one text alone may be longer).
    pub fn by_length(&self, count: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..count.min(self.len())).collect();
        order.sort_by_key(|&index| (self.text(index).len(), index));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for index in order {
            let length = self.text(index).len();
            match batches.last_mut() {
                Some(batch) if (batch.len() + 1) * length <= max_tokens => batch.push(index),
                _ => batches.push(vec![index]),
            }
        }
        batches
    }
}

/// Some texts as tensors. `n` = tokens in all, `b` = texts, `t` = tokens of the longest.
pub struct Batch {
    /// `[n]`
    ids: Tensor,
    /// Position of each token in its text, `[n]`.
    positions: Tensor,
    /// Where texts differ in length: the row of each token in the `[b * t]` layout, `[n]`, and which cells of it are
    /// tokens, `[b, 1, 1, t]`.
    layout: Option<(Tensor, Tensor)>,
    /// Number of each token's text in this batch, `[n]`.
    owners: Tensor,
    lengths: Vec<i64>,
    /// Position of each text's first token.
    offsets: Vec<i64>,
    longest: i64,
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
        let layout = if lengths.iter().all(|&length| length == longest) {
            None
        } else {
            let mut is_token = vec![false; texts.len() * longest as usize];
            rows.iter().for_each(|&row| is_token[row as usize] = true);
            let mask = Tensor::f_from_slice(&is_token)?.f_to_device(device)?;
            Some((tensor(&rows)?, mask.f_view([texts.len() as i64, 1, 1, longest])?))
        };
        let [ids, positions, owners] = [tensor(&ids)?, tensor(&positions)?, tensor(&owners)?];
        Ok(Self { ids, positions, layout, owners, lengths, offsets: offsets.to_vec(), longest })
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
        self.lengths.len() as i64
    }

    /// Tokens of the longest text t.
    pub fn longest(&self) -> i64 {
        self.longest
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
        self.layout.as_ref().map(|(_, mask)| mask)
    }

    /// From `[n, h]` to `[b * t, h]`, zeros where there is no token.
    pub fn pad(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let Some((rows, _)) = &self.layout else {
            return Ok(packed.shallow_clone());
        };
        let size = [self.texts() * self.longest, packed.size()[1]];
        Ok(Tensor::f_zeros(size, (packed.kind(), packed.device()))?.f_index_copy(0, rows, packed)?)
    }

    /// From `[b * t, h]` back to `[n, h]`.
    pub fn unpad(&self, padded: &Tensor) -> Result<Tensor, TrainerError> {
        match &self.layout {
            // Not `index_select`: the gradient of `embedding` is 20 times faster on the CPU.
            Some((rows, _)) => Ok(Tensor::f_embedding(padded, rows, -1, false, false)?),
            None => Ok(padded.shallow_clone()),
        }
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
