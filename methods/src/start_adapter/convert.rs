//! From a PEFT folder to the file that a run starts from. Exact but for one rounding of the scaled
//! inner factor to f32.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_proto::run_file::{Dtype, Task, TaskKind};
use rondo_proto::v1;

use super::{StartAdapter, StartAdapterError, check_layer};
use crate::error::MethodError;
use crate::export::head::{Head, pooling_word};
use crate::export::peft_load::{PeftTarget, SavedHead, load_with_saved_head};
use crate::file::write;
use crate::head::{HEAD_BIAS, HEAD_WEIGHT};
use crate::law::{STACK_A, STACK_B};
use crate::tensor::{Tensor, TensorSet, full_name};

/// Reads the PEFT folder `dir` and writes to `out` what a run of `task` on `base` can start from.
///
/// Everything is checked that a coordinator would check: layers and their sizes, finite numbers,
/// the head's labels.
///
/// # Errors
/// The folder cannot be read, `out` cannot be written, a layer is changed twice or is not in the
/// base in this size, the head does not fit the task, or a number is not finite.
pub fn convert(dir: &Path, base: &v1::BaseModel, task: &Task, out: &Path) -> Result<StartAdapter, MethodError> {
    let (adapter, saved) = load_with_saved_head(dir)?;
    let mut tensors = TensorSet::new();
    for PeftTarget { name, a, b, scale } in adapter.targets {
        let layer = check_layer(base, &name, [b.shape[0], a.shape[1]])?;
        let data = a.data.iter().map(|number| (f64::from(*number) * scale) as f32).collect();
        if tensors.insert(full_name(layer, STACK_A), Tensor { data, ..a }).is_some() {
            return Err(StartAdapterError::Twice(layer.to_owned()).into());
        }
        tensors.insert(full_name(layer, STACK_B), b);
    }
    tensors.extend(head(adapter.head, saved, base, task)?);
    write(out, &tensors, Dtype::F32, &BTreeMap::new())?;
    let adapter = StartAdapter::open(out)?;
    adapter.check(base)?;
    Ok(adapter)
}

/// The head's tensors with its rows in the order of the run's labels.
fn head(
    own: Option<Head>,
    saved: Option<SavedHead>,
    base: &v1::BaseModel,
    task: &Task,
) -> Result<TensorSet, StartAdapterError> {
    let refuse = |problem: String| Err(StartAdapterError::Head(problem));
    let (weight, bias) = match (own, saved) {
        (None, None) => return Ok(TensorSet::new()),
        (Some(_), Some(saved)) => {
            return refuse(format!("the folder holds two, rondo_head.safetensors and `{}`", saved.module));
        }
        _ if task.kind != TaskKind::Classification => return refuse("the run's task has none".into()),
        (Some(Head { pooling, .. }), None) if pooling != task.pooling => {
            let [theirs, ours] = [pooling, task.pooling].map(pooling_word);
            return refuse(format!("it was trained with pooling `{theirs}`, the run says `{ours}`"));
        }
        (Some(head), None) => in_order(head, &task.labels)?,
        // PEFT does not say what the rows stand for: they are taken in the run's order.
        (None, Some(SavedHead { weight, bias, .. })) => {
            let bias = bias.unwrap_or_else(|| Tensor::zeros(&weight.shape[..1]));
            (weight, bias)
        }
    };
    let expected = [task.labels.len(), base.hidden_size as usize];
    if weight.shape != expected || bias.shape != expected[..1] {
        let (weight, bias) = (&weight.shape, &bias.shape);
        return refuse(format!("weight {weight:?} and bias {bias:?} came, the run needs {expected:?} and a bias"));
    }
    Ok(TensorSet::from([(HEAD_WEIGHT.to_owned(), weight), (HEAD_BIAS.to_owned(), bias)]))
}

fn in_order(head: Head, labels: &[String]) -> Result<(Tensor, Tensor), StartAdapterError> {
    let Head { weight, bias, labels: theirs, .. } = head;
    let rows: Option<Vec<usize>> = labels.iter().map(|label| theirs.iter().position(|known| known == label)).collect();
    let Some(rows) = rows.filter(|rows| rows.len() == theirs.len()) else {
        let (theirs, ours) = (theirs.join(", "), labels.join(", "));
        return Err(StartAdapterError::Head(format!("its labels are {theirs}, those of the run {ours}")));
    };
    let width = weight.shape[1];
    let data = rows.iter().flat_map(|row| &weight.data[row * width..(row + 1) * width]).copied().collect();
    let biases = rows.iter().map(|row| bias.data[*row]).collect();
    Ok((Tensor { data, ..weight }, Tensor { data: biases, ..bias }))
}
