//! Batches of texts as tensors, packed without padding.

pub mod padding;

use tch::{Device, Kind, Tensor};

use crate::batch::padding::Padding;
use crate::error::TrainerError;

pub use crate::text::encoded::Encoded;

/// Some texts as tensors. `n` = rows: the tokens in all, and in a batch of [`Batch::separate`] what
/// fills them up; `b` = texts, `t` = cells of a text in the grid, without padding the tokens of the
/// longest.
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
    /// Rows of each text: its tokens, then what fills them up.
    extents: Vec<i64>,
    /// Position of each text's first token.
    offsets: Vec<i64>,
    /// The mean over a text's tokens reads that text's row of the grid alone.
    separate: bool,
}

/// The grid of [`Batch::separate`] has a multiple of so many cells per text, and its texts a
/// multiple of so many rows. Vectors of 8 and of 16 numbers divide it, so that no kernel treats the
/// end of a row in another way than its beginning. Nor do products treat the last rows in another
/// way: MKL has kernels of their own for one to three rows, and in some modes for what is left
/// behind a multiple of four.
pub const CELLS: usize = 16;

impl Batch {
    /// The texts with these indices, in this order.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn new(encoded: &Encoded, texts: &[usize], device: Device) -> Result<Self, TrainerError> {
        Self::following(encoded, texts, &vec![0; texts.len()], device)
    }

    /// The same for texts whose numbers must not depend on each other: what is computed for a text
    /// goes by its own length and tokens alone, as far as the kernels give a row of a product the
    /// same bits in any company. Each text's row of the grid is as wide as [`Batch::width`] has it.
    /// Behind some texts there are rows of token 0 that nothing reads, so that all rows together
    /// are a multiple of [`CELLS`].
    ///
    /// # Errors
    /// Texts of several widths.
    pub fn separate(encoded: &Encoded, texts: &[usize], device: Device) -> Result<Self, TrainerError> {
        let mut widths = texts.iter().map(|&text| Self::width(encoded.text(text).len()));
        let width = widths.next().unwrap_or(CELLS);
        if let Some(other) = widths.find(|other| *other != width) {
            let problem = format!("texts of {width} and {other} cells cannot be kept apart in one grid");
            return Err(TrainerError::Tensor { name: "batch".into(), problem });
        }
        let lengths: Vec<usize> = texts.iter().map(|&text| encoded.text(text).len()).collect();
        let tokens: usize = lengths.iter().sum();
        let mut filler = tokens.next_multiple_of(CELLS) - tokens;
        let mut extents = Vec::with_capacity(texts.len());
        for length in lengths {
            let more = filler.min(width - length);
            filler -= more;
            extents.push((length + more) as i64);
        }
        let batch = Self::laid_out(encoded, texts, &vec![0; texts.len()], extents, width as i64, device)?;
        Ok(Self { separate: true, ..batch })
    }

    /// Cells of a text of so many tokens in the grid of [`Batch::separate`].
    pub fn width(tokens: usize) -> usize {
        tokens.max(1).next_multiple_of(CELLS)
    }

    /// The same as continuations: what comes before them, so many tokens of each, is in a language
    /// model's cache.
    ///
    /// # Errors
    /// Not one offset per text, and whatever libtorch refuses.
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
        Self::laid_out(encoded, texts, offsets, lengths, longest, device)
    }

    /// The texts in a grid with `longest` cells for each, of which the first `extents` have a row
    /// each.
    fn laid_out(
        encoded: &Encoded,
        texts: &[usize],
        offsets: &[i64],
        extents: Vec<i64>,
        longest: i64,
        device: Device,
    ) -> Result<Self, TrainerError> {
        let lengths: Vec<i64> = texts.iter().map(|&index| encoded.text(index).len() as i64).collect();
        let count = extents.iter().sum::<i64>() as usize;
        let mut ids = Vec::with_capacity(count);
        let mut positions = Vec::with_capacity(count);
        let mut rows = Vec::with_capacity(count);
        let mut owners = Vec::with_capacity(count);
        let mut is_token = vec![false; texts.len() * longest as usize];
        for (row, (&index, &offset)) in texts.iter().zip(offsets).enumerate() {
            let text = encoded.text(index);
            let filled = ids.len() + extents[row] as usize;
            ids.extend_from_slice(text);
            ids.resize(filled, 0);
            positions.extend(offset..offset + text.len() as i64);
            positions.resize(filled, 0);
            owners.resize(filled, row as i64);
            let first = row as i64 * longest;
            rows.extend(first..first + extents[row]);
            is_token[first as usize..first as usize + text.len()].fill(true);
        }
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let rows = match extents.iter().all(|&extent| extent == longest) {
            true => None,
            false => Some(tensor(&rows)?),
        };
        let mask = match lengths.iter().all(|&length| length == longest) {
            true => None,
            false => {
                let mask = Tensor::f_from_slice(&is_token)?.f_to_device(device)?;
                Some(mask.f_view([texts.len() as i64, 1, 1, longest])?)
            }
        };
        let padding = Padding::new(rows, texts.len() as i64, longest);
        let [ids, positions, owners] = [tensor(&ids)?, tensor(&positions)?, tensor(&owners)?];
        let offsets = offsets.to_vec();
        Ok(Self { ids, positions, padding, mask, owners, lengths, extents, offsets, separate: false })
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

    /// Cells of each text in the grid t: the tokens of the longest text, at least.
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

    /// Rows of each text: as many as tokens, and more where [`Batch::separate`] filled them up.
    pub fn extents(&self) -> &[i64] {
        &self.extents
    }

    /// Position of each text's first token.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// One behind the position of each text's last token.
    pub fn ends(&self) -> impl Iterator<Item = i64> {
        self.offsets.iter().zip(&self.lengths).map(|(offset, length)| offset + length)
    }

    /// The row of each token in a layout `[b * slots]` in which a token stands at its position,
    /// `[n]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn cells(&self, slots: i64) -> Result<Tensor, TrainerError> {
        Ok(self.owners.f_mul_scalar(slots)?.f_add(&self.positions)?)
    }

    /// Which keys may be attended to, `[b, 1, 1, t]`; `None` when all texts are equally long.
    pub fn attention_mask(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    /// From `[n, h]` to `[b * t, h]`, zeros where there is no token.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn pad(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        self.padding.pad(packed)
    }

    /// From `[b * t, h]` back to `[n, h]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn unpad(&self, padded: &Tensor) -> Result<Tensor, TrainerError> {
        self.padding.unpad(padded)
    }

    /// Mean over each text's tokens: `[n, h]` to `[b, h]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn mean(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        if self.separate {
            return self.separate_mean(packed);
        }
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

    /// The same by a product for each text, `[1, t]` with `[t, h]`: no other text's numbers, not
    /// even an infinite one, come near its sum.
    fn separate_mean(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let texts = self.texts();
        let longest = self.longest();
        let mut shares = vec![0.0_f32; (texts * longest) as usize];
        for (row, &length) in shares.chunks_mut(longest.max(1) as usize).zip(&self.lengths) {
            row[..length as usize].fill(1.0 / length as f32);
        }
        let shares = Tensor::f_from_slice(&shares)?.f_view([texts, 1, longest])?.f_to_device(packed.device())?;
        let grid = self.pad(&packed.f_to_kind(Kind::Float)?)?.f_view([texts, longest, packed.size()[1]])?;
        Ok(shares.f_bmm(&grid)?.f_squeeze_dim(1)?)
    }

    /// State of each text's first token: `[n, h]` to `[b, h]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn first(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let mut firsts = Vec::with_capacity(self.extents.len());
        let mut first = 0;
        for &extent in &self.extents {
            firsts.push(first);
            first += extent;
        }
        let firsts = Tensor::f_from_slice(&firsts)?.f_to_device(packed.device())?;
        Ok(packed.f_index_select(0, &firsts)?.f_to_kind(Kind::Float)?)
    }
}
