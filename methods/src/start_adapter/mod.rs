//! The adapter that a run starts from: a fixed change of the base's weights, and the classifier
//! head to begin with.
//!
//! The file is a safetensors file of f32 numbers. For each layer that it changes it holds
//! `<layer>.lora_A` `[r, in]` and `<layer>.lora_B` `[out, r]`, whose product is the change: the
//! scale stands in the inner factor, as in a published stack of FLoRA. `head.weight` and
//! `head.bias` may stand beside them. Every method takes it the same way, as an offset of the base
//! in front of whatever the method trains.

mod convert;
pub(crate) mod error;
mod placed;

use std::path::Path;

use rondo_base::architecture;
use rondo_proto::manifest::TensorEntry;
use rondo_proto::{Digest, v1};

pub use convert::convert;
pub use error::StartAdapterError;
pub(crate) use placed::PlacedAdapter;

use crate::delta::Delta;
use crate::file::{FileError, TensorFile};
use crate::head::{HEAD_BIAS, HEAD_WEIGHT};
use crate::law::{STACK_A, STACK_B, pair_delta};
use crate::layout::Target;
use crate::tensor::{Tensor, TensorSet, full_name};

/// Outer and inner factor, as laws name theirs.
const PAIR: (&str, &str) = (STACK_B, STACK_A);

/// An adapter to start from: its checked header, the head, and factors on demand.
#[derive(Debug)]
pub struct StartAdapter {
    file: TensorFile,
    digest: Digest,
    bytes: u64,
    layout_bytes: u64,
    layers: Vec<Target>,
    /// `head.weight` and `head.bias`, or nothing.
    head: TensorSet,
}

impl StartAdapter {
    /// Reads the header and the head, and checks that every tensor has its partner.
    ///
    /// # Errors
    /// The file cannot be read or is damaged, a tensor is not F32 or has no place here, a factor
    /// has no partner that fits, or the head's weight and bias do not fit each other.
    pub fn open(path: &Path) -> Result<Self, StartAdapterError> {
        let file = TensorFile::open(path)?;
        let io = |source| StartAdapterError::File(FileError::Io { path: path.to_owned(), source });
        let digest = Digest::of_file(path).map_err(io)?;
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        let entries = file.entries();
        let mut layers = Vec::new();
        let mut partners = 0;
        for entry in &entries {
            let refuse = |problem: String| StartAdapterError::Form { tensor: entry.name.clone(), problem };
            if entry.dtype != "F32" {
                return Err(refuse(format!("it is {}, not F32", entry.dtype)));
            }
            match entry.name.rsplit_once('.') {
                Some(("head", "weight" | "bias")) => {}
                Some((layer, STACK_A)) => layers.push(layer_of(&file, layer, entry).map_err(refuse)?),
                Some((_, STACK_B)) => partners += 1,
                _ => return Err(refuse("it is neither a factor nor a part of the head".into())),
            }
        }
        // Every A has its B, so with equal counts every B has its A.
        if partners != layers.len() || layers.is_empty() {
            let problem = format!("{} inner and {partners} outer factors came", layers.len());
            return Err(StartAdapterError::Form { tensor: STACK_B.into(), problem });
        }
        let head = read_head(&file)?;
        let layout_bytes = entries.iter().map(|entry| entry.numbers() as u64 * 4).sum();
        Ok(Self { file, digest, bytes, layout_bytes, layers, head })
    }

    /// Checks it against the base that it changes: every layer is there in this size, every number
    /// finite.
    ///
    /// # Errors
    /// The file cannot be read, a layer is not in the base or has another size, the head's rows do
    /// not have the base's hidden size, or a number is not finite.
    pub fn check(&self, base: &v1::BaseModel) -> Result<(), StartAdapterError> {
        for Target { name, out, inp } in &self.layers {
            check_layer(base, name, [*out, *inp])?;
        }
        if let Some(weight) = self.head.get(HEAD_WEIGHT)
            && weight.shape[1] != base.hidden_size as usize
        {
            let problem = format!("its rows have {} numbers, the base's states {}", weight.shape[1], base.hidden_size);
            return Err(StartAdapterError::Head(problem));
        }
        for TensorEntry { name, .. } in self.file.entries() {
            let mut broken = None;
            self.file.for_each_block(&name, |block| {
                broken = broken.or_else(|| block.iter().copied().find(|number| !number.is_finite()));
            })?;
            if let Some(value) = broken {
                return Err(StartAdapterError::NotFinite { tensor: name, value });
            }
        }
        Ok(())
    }

    /// Digest of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The layers that it changes, sorted by name.
    pub fn layers(&self) -> &[Target] {
        &self.layers
    }

    /// What it adds to the weight `[out, in]` of a layer.
    ///
    /// # Errors
    /// The file has no such layer, or it cannot be read.
    pub fn delta(&self, layer: &str) -> Result<(Delta, TensorSet), FileError> {
        let part = |part: &str| Ok::<_, FileError>((part.to_owned(), self.file.read(&full_name(layer, part))?));
        Ok((pair_delta(PAIR), TensorSet::from([part(PAIR.0)?, part(PAIR.1)?])))
    }

    /// A tensor of the head by full name, where it has a head.
    pub fn head(&self, name: &str) -> Option<&Tensor> {
        self.head.get(name)
    }

    /// Labels of its head; 0 without one.
    pub fn head_labels(&self) -> usize {
        self.head.get(HEAD_BIAS).map_or(0, Tensor::len)
    }

    /// As it is announced to those who will fetch it.
    pub fn message(&self) -> v1::InitialAdapter {
        v1::InitialAdapter {
            digest: self.digest.to_string(),
            bytes: self.bytes,
            layout_bytes: self.layout_bytes,
            targets: self.layers.iter().map(|layer| layer.name.clone()).collect(),
            head_labels: u32::try_from(self.head_labels()).unwrap_or(u32::MAX),
        }
    }
}

/// A layer from its two factors, the inner one of which is `entry`.
fn layer_of(file: &TensorFile, layer: &str, entry: &TensorEntry) -> Result<Target, String> {
    match (entry.shape.as_slice(), file.shape(&full_name(layer, STACK_B))) {
        (&[rank, inp], Some(&[out, same])) if rank == same && rank > 0 && out > 0 && inp > 0 => {
            Ok(Target { name: layer.to_owned(), out, inp })
        }
        (inner, Some(outer)) => Err(format!("{outer:?} times {inner:?} is no product of two factors")),
        (_, None) => Err("its outer factor is not there".into()),
    }
}

fn read_head(file: &TensorFile) -> Result<TensorSet, StartAdapterError> {
    match (file.shape(HEAD_WEIGHT), file.shape(HEAD_BIAS)) {
        (None, None) => Ok(TensorSet::new()),
        (Some(&[rows, _]), Some(&[labels])) if rows == labels && labels > 0 => {
            Ok(file.read_all(|name| name == HEAD_WEIGHT || name == HEAD_BIAS)?)
        }
        (weight, bias) => {
            Err(StartAdapterError::Head(format!("weight {weight:?} and bias {bias:?} do not fit each other")))
        }
    }
}

/// The name that the base itself has for a module, which must be one of its linear layers in this
/// size.
fn check_layer<'b>(
    base: &'b v1::BaseModel,
    module: &str,
    [out, inp]: [usize; 2],
) -> Result<&'b str, StartAdapterError> {
    let known = architecture::find(&base.architecture);
    let canonical = |name: &str| known.map_or_else(|| name.to_owned(), |known| known.canonical(name).into_owned());
    let wanted = canonical(module);
    let Some(linear) = base.linears.iter().find(|linear| canonical(&linear.name) == wanted) else {
        return Err(StartAdapterError::NoLayer { layer: module.to_owned(), base: base.name.clone() });
    };
    let expected = [linear.out_features as usize, linear.in_features as usize];
    if expected != [out, inp] {
        return Err(StartAdapterError::Shape {
            layer: module.to_owned(),
            base: base.name.clone(),
            expected,
            got: [out, inp],
        });
    }
    Ok(&linear.name)
}
