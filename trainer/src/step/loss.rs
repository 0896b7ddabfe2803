//! Cross entropy over a vocabulary, a few tokens at a time.
//!
//! A language model's logits are the largest thing it computes: 512 tokens over 49,152 words are
//! 100 MB in f32, and a tape would hold them twice. Here only the tokens that count are multiplied
//! with the vocabulary matrix, in chunks; each chunk's softmax becomes the gradient in place, and
//! is gone before the next. So the memory is one chunk's, whatever the batch. With z = h W^T the
//! gradient of `-log softmax(z)[t]` is `(softmax(z) - onehot(t)) W` (no tape is needed).

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::batch::Encoded;
use crate::error::TrainerError;
use crate::models::Weight;

/// Logits held at once: 32 MiB in f32.
const CHUNK_NUMBERS: i64 = 8 << 20;

/// Fewer tokens than this at once would unpack or read the vocabulary matrix too often.
const FEWEST_TOKENS: i64 = 16;

/// Rows of a packed vocabulary matrix that are unpacked at once.
pub const UNPACKED_ROWS: i64 = 4096;

/// Tokens of one chunk over a vocabulary of this size.
pub fn chunk_tokens(vocabulary: i64) -> i64 {
    (CHUNK_NUMBERS / vocabulary.max(1)).max(FEWEST_TOKENS)
}

/// What a batch's texts ask a language model to predict.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PredictedTokens {
    /// Row of the packed batch whose state predicts the token: the one before it.
    pub rows: Vec<i64>,
    /// The token.
    pub tokens: Vec<i64>,
}

impl PredictedTokens {
    /// The counting tokens of these texts, in order. Nothing predicts a text's first token.
    pub fn new(encoded: &Encoded, texts: &[usize]) -> Self {
        Self::in_rows(encoded, texts, texts.iter().map(|&text| encoded.text(text).len() as i64))
    }

    /// The same where each text has so many rows in the packed batch, as of [`Batch::extents`].
    ///
    /// [`Batch::extents`]: super::batch::Batch::extents
    pub fn in_rows(encoded: &Encoded, texts: &[usize], extents: impl IntoIterator<Item = i64>) -> Self {
        let mut found = Self::default();
        let mut first = 0;
        for (&text, extent) in texts.iter().zip(extents) {
            let ids = encoded.text(text);
            for (place, _) in encoded.counts(text).iter().enumerate().skip(1).filter(|(_, counts)| **counts) {
                found.rows.push(first + place as i64 - 1);
                found.tokens.push(ids[place]);
            }
            first += extent;
        }
        found
    }

    /// How many tokens count.
    pub fn count(encoded: &Encoded, text: usize) -> u64 {
        encoded.counts(text).iter().skip(1).filter(|counts| **counts).count() as u64
    }
}

/// One token's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLoss {
    /// -log p(token), nats.
    pub loss: f64,
    /// True when no other token is likelier; of equally likely ones the first is the model's word.
    pub hit: bool,
}

/// Loss of each token without gradients. `states` `[n, hidden]` (finished), `tokens` of length n;
/// `chunk` tokens at once, 0 = by the vocabulary's size.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn token_losses(
    vocabulary: &Weight,
    states: &Tensor,
    tokens: &[i64],
    chunk: usize,
) -> Result<Vec<TokenLoss>, TrainerError> {
    let _no_grad = tch::no_grad_guard();
    let mut losses = Vec::with_capacity(tokens.len());
    for range in chunks(vocabulary, tokens.len(), chunk)? {
        let states = states.f_narrow(0, range.start as i64, range.len() as i64)?;
        let tokens = Tensor::f_from_slice(&tokens[range])?.f_to_device(states.device())?.f_unsqueeze(1)?;
        let logits = vocabulary_logits(vocabulary, &states)?;
        let hits = Vec::<bool>::try_from(&logits.f_argmax(1, true)?.f_eq_tensor(&tokens)?.f_view(-1)?)?;
        let each = Exponentials::take(logits, &tokens)?.losses;
        losses.extend(each.into_iter().zip(hits).map(|(loss, hit)| TokenLoss { loss, hit }));
    }
    Ok(losses)
}

/// Sum of the tokens' losses, each times its share (one per token), and the gradient of that sum
/// with respect to `states`, of their shape and kind. Arguments as of [`token_losses`].
///
/// # Errors
/// Whatever libtorch refuses.
pub fn loss_and_gradient(
    vocabulary: &Weight,
    states: &Tensor,
    tokens: &[i64],
    shares: &[f32],
    chunk: usize,
) -> Result<(f64, Tensor), TrainerError> {
    let _no_grad = tch::no_grad_guard();
    let mut sum = 0.0;
    let mut gradients = Vec::new();
    for range in chunks(vocabulary, tokens.len(), chunk)? {
        let states = states.f_narrow(0, range.start as i64, range.len() as i64)?;
        let shares = &shares[range.clone()];
        let tokens = Tensor::f_from_slice(&tokens[range])?.f_to_device(states.device())?.f_unsqueeze(1)?;
        let Exponentials { losses, mut each, total } =
            Exponentials::take(vocabulary_logits(vocabulary, &states)?, &tokens)?;
        sum += losses.iter().zip(shares).map(|(loss, &share)| loss * f64::from(share)).sum::<f64>();
        // share * (softmax - onehot), in place.
        let mut d_logits = each.f_div_(&total)?;
        let minus_one = Tensor::f_full(tokens.size(), -1.0, (Kind::Float, tokens.device()))?;
        let shares = Tensor::f_from_slice(shares)?.f_to_device(tokens.device())?.f_unsqueeze(1)?;
        let d_logits = d_logits.f_scatter_add_(1, &tokens, &minus_one)?.f_mul_(&shares)?;
        gradients.push(back_to_states(vocabulary, &d_logits, states.kind())?);
    }
    let gradient = match gradients.len() {
        1 => gradients.remove(0),
        0 => states.f_zeros_like()?,
        _ => Tensor::f_cat(&gradients, 0)?,
    };
    Ok((sum, gradient))
}

/// `h W^T` in f32, `[n, vocabulary]`; the product itself is of the kind that the model computes in.
///
/// # Errors
/// Whatever libtorch refuses.
pub fn vocabulary_logits(vocabulary: &Weight, states: &Tensor) -> Result<Tensor, TrainerError> {
    let Weight::Packed { packed, kind, device } = vocabulary else {
        return Ok(states.f_matmul(&vocabulary.dense()?.f_tr()?)?.f_to_kind(Kind::Float)?);
    };
    let (rows, _) = packed.size();
    let logits = Tensor::f_empty([states.size()[0], rows], (Kind::Float, *device))?;
    for block in row_blocks(rows) {
        let words = packed.rows(&block, *kind, *device)?;
        logits.f_narrow(1, block[0], block.len() as i64)?.f_copy_(&states.f_matmul(&words.f_tr()?)?)?;
    }
    Ok(logits)
}

/// From the gradient of logits `[n, vocabulary]` to that of states: `d_logits W`, `[n, hidden]`, of
/// the given kind.
fn back_to_states(vocabulary: &Weight, d_logits: &Tensor, kind: Kind) -> Result<Tensor, TrainerError> {
    let Weight::Packed { packed, kind: unpacked, device } = vocabulary else {
        return Ok(d_logits.f_to_kind(kind)?.f_matmul(&vocabulary.dense()?)?);
    };
    let (rows, hidden) = packed.size();
    let mut gradient = Tensor::f_zeros([d_logits.size()[0], hidden], (Kind::Float, *device))?;
    for block in row_blocks(rows) {
        let words = packed.rows(&block, *unpacked, *device)?;
        let own = d_logits.f_narrow(1, block[0], block.len() as i64)?.f_to_kind(*unpacked)?;
        let _ = gradient.f_add_(&own.f_matmul(&words)?.f_to_kind(Kind::Float)?)?;
    }
    Ok(gradient.f_to_kind(kind)?)
}

fn row_blocks(rows: i64) -> impl Iterator<Item = Vec<i64>> {
    (0..rows).step_by(UNPACKED_ROWS as usize).map(move |first| (first..rows.min(first + UNPACKED_ROWS)).collect())
}

/// An unfinished softmax, in the memory of its logits.
struct Exponentials {
    /// -log p of each row's token.
    losses: Vec<f64>,
    /// exp(logit - the row's largest), `[n, vocabulary]`.
    each: Tensor,
    /// Their sum by row, `[n, 1]`.
    total: Tensor,
}

impl Exponentials {
    /// Of logits `[n, vocabulary]` in f32, which it takes over, and tokens `[n, 1]`.
    fn take(mut logits: Tensor, tokens: &Tensor) -> Result<Self, TrainerError> {
        let picked = logits.f_gather(1, tokens, false)?;
        let largest = logits.f_amax([1_i64].as_slice(), true)?;
        let each = logits.f_sub_(&largest)?.f_exp_()?;
        let total = each.f_sum_dim_intlist([1_i64].as_slice(), true, None::<Kind>)?;
        let losses = total.f_log()?.f_add_(&largest)?.f_sub_(&picked)?.f_view(-1)?;
        let losses = Vec::<f32>::try_from(&losses)?.into_iter().map(f64::from).collect();
        Ok(Self { losses, each, total })
    }
}

fn chunks(
    vocabulary: &Weight,
    tokens: usize,
    chunk: usize,
) -> Result<impl Iterator<Item = Range<usize>>, TrainerError> {
    let chunk = if chunk == 0 { chunk_tokens(vocabulary.size()?.0) as usize } else { chunk };
    Ok((0..tokens).step_by(chunk).map(move |first| first..tokens.min(first + chunk)))
}
