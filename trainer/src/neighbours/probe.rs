//! A small model of fixed weights that has every kind of layer: what a trial of the processor runs.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_methods::tensor::full_name;
use rondo_methods::{Delta, TensorSet};
use rondo_proto::run_file::Pooling;
use tch::{Device, Tensor};

use crate::batch::Batch;
use crate::error::TrainerError;
use crate::models::{Attention, LayerCache, LinearHook, Linears, Transformer, Weight};
use crate::session::{Session, to_torch};

const HIDDEN: usize = 256;
const INNER: usize = 768;
const HEADS: i64 = 4;
const VOCABULARY: usize = 1536;
const POSITIONS: usize = 64;
const RANK: usize = 4;
const LABELS: usize = 2;

/// Linear layers by name, as a session sorts them: names, outputs, inputs.
const LAYERS: [(&str, usize, usize); 5] = [
    ("gate", INNER, HIDDEN),
    ("inner", INNER, HIDDEN),
    ("outer", HIDDEN, INNER),
    ("query", HIDDEN, HIDDEN),
    ("value", HIDDEN, HIDDEN),
];

/// Two layers: an encoder's (full attention, layer norm, GELU) and a decoder's (causal attention,
/// root mean square norm, SwiGLU), over the same linear layers.
pub(super) struct Probe {
    /// `[vocabulary, hidden]`, of the embedding and of the product after the layers.
    words: Weight,
    /// `[positions, hidden]`
    positions: Tensor,
    linears: Linears,
    device: Device,
}

impl Probe {
    /// The model on a device.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(device: Device) -> Result<Self, TrainerError> {
        let mut linears = Linears::default();
        for (seed, (name, out, inp)) in (1..).zip(LAYERS) {
            let weight = to_torch(&numbers(&[out, inp], 0.08, seed), device)?;
            let bias = to_torch(&numbers(&[out], 0.1, seed + 20), device)?;
            linears.push(name, Weight::Dense(weight), Some(bias));
        }
        Ok(Self {
            words: Weight::Dense(to_torch(&numbers(&[VOCABULARY, HIDDEN], 0.1, 41), device)?),
            positions: to_torch(&numbers(&[POSITIONS, HIDDEN], 0.1, 42), device)?,
            linears,
            device,
        })
    }

    /// A session that trains adapters by the tokens.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn language(&self) -> Result<Session<'_>, TrainerError> {
        self.adapted(Session::language(self, self.device)?)
    }

    /// A session that trains adapters by labels.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn classifier(&self) -> Result<Session<'_>, TrainerError> {
        let head = TensorSet::from([
            (HEAD_WEIGHT.to_owned(), numbers(&[LABELS, HIDDEN], 0.2, 51)),
            (HEAD_BIAS.to_owned(), numbers(&[LABELS], 0.2, 52)),
        ]);
        self.adapted(Session::new(self, self.device, &head, Pooling::Mean)?)
    }

    /// Both factors trained, and neither of them zero.
    fn adapted<'m>(&'m self, mut session: Session<'m>) -> Result<Session<'m>, TrainerError> {
        let delta = Delta::product(&["lora_B", "lora_A"]).scaled(2.0);
        for (seed, (target, out, inp)) in (61..).step_by(2).zip(LAYERS) {
            let parts: TensorSet = BTreeMap::from([
                ("lora_A".to_owned(), numbers(&[RANK, inp], 0.1, seed)),
                ("lora_B".to_owned(), numbers(&[out, RANK], 0.1, seed + 1)),
            ]);
            let trained: BTreeSet<String> = parts.keys().map(|part| full_name(target, part)).collect();
            session.attach(target, &delta, &parts, &trained)?;
        }
        Ok(session)
    }
}

impl Transformer for Probe {
    fn hidden_size(&self) -> usize {
        HIDDEN
    }

    fn max_positions(&self) -> usize {
        POSITIONS
    }

    fn linears(&self) -> &Linears {
        &self.linears
    }

    fn layers(&self) -> usize {
        2
    }

    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError> {
        let positions = self.positions.f_index_select(0, batch.positions())?;
        Ok(self.words.rows(batch.ids())?.f_add(&positions)?)
    }

    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        _cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        let run = |name: &str, x: &Tensor| {
            let number = self.linears.find(name).unwrap_or_default();
            self.linears.forward(number, x, hook)
        };
        let head_size = HIDDEN as i64 / HEADS;
        let attention = Attention { heads: HEADS, kv_heads: HEADS, head_size, window: None };
        let heads = |x: &Tensor| x.f_view([-1, HEADS, head_size]);
        let query = run("query", x)?;
        let value = run("value", x)?;
        if number == 0 {
            let context = attention.bidirectional(&query, x, &value, batch)?;
            let x = context.f_add(x)?.f_layer_norm([HIDDEN as i64], None::<&Tensor>, None::<&Tensor>, 1e-5, false)?;
            let inner = run("inner", &x)?.f_gelu("none")?;
            return Ok(run("outer", &inner)?.f_add(&x)?);
        }
        let context = attention.causal(&heads(&query)?, &heads(x)?, &heads(&value)?, batch, None)?;
        let x = context.f_add(x)?.f_rms_norm([HIDDEN as i64], None::<&Tensor>, 1e-5)?;
        let inner = run("gate", &x)?.f_silu()?.f_mul(&run("inner", &x)?)?;
        Ok(run("outer", &inner)?.f_add(&x)?)
    }

    fn vocabulary(&self) -> Option<&Weight> {
        Some(&self.words)
    }
}

/// Fixed numbers in (-scale, scale).
fn numbers(shape: &[usize], scale: f32, seed: u32) -> rondo_methods::Tensor {
    let mix = |index: u32| (index ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 8;
    let count = shape.iter().product::<usize>() as u32;
    let data = (0..count).map(|index| (mix(mix(index)) as f32 / 8_388_608.0 - 1.0) * scale).collect();
    rondo_methods::Tensor { shape: shape.to_vec(), data }
}
