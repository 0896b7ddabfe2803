//! What one target gives to the files of a round.

use std::path::Path;

use crate::at::Instance;
use crate::error::MethodError;
use crate::file::TensorFile;
use crate::job::Job;
use crate::layout::NamedSpec;
use crate::tensor::{Tensor, TensorSet, full_name};

/// The tensors of one target for the files of a round, by full name.
pub(super) struct TargetFiles {
    /// In the published file's order.
    pub(super) published: Vec<(String, Tensor)>,
    pub(super) frozen: TensorSet,
}

/// Sorts a target's tensors (by part name) into the published file and the frozen artefact.
/// What `due` asks for must be there; other published tensors keep their start.
pub(super) fn assemble(
    job: &Job,
    index: usize,
    mut made: TensorSet,
    due: impl Fn(&NamedSpec) -> bool,
) -> Result<TargetFiles, MethodError> {
    let mut out = TargetFiles { published: Vec::new(), frozen: TensorSet::new() };
    for named in job.target_layout(index, Instance::OF_RUN) {
        let shipped = named.spec.is_shipped_frozen();
        let published = named.spec.travel.is_published();
        if !(published || shipped && due(&named)) {
            continue;
        }
        let place = || "what the method made of the aggregate".to_owned();
        let tensor = match made.remove(&named.spec.part) {
            Some(tensor) => Some(tensor),
            None if due(&named) => None,
            None => job.start(&named, None).map(|(_, tensor)| tensor),
        };
        let mut tensor = tensor.ok_or_else(|| MethodError::Missing { tensor: named.name.clone(), place: place() })?;
        if tensor.shape != named.spec.shape {
            let (expected, got) = (named.spec.shape, tensor.shape);
            return Err(MethodError::Shape { tensor: named.name, place: place(), expected, got });
        }
        if published {
            tensor.round_to(job.wire_dtype());
            out.published.push((named.name, tensor));
        } else {
            out.frozen.insert(named.name, tensor);
        }
    }
    Ok(out)
}

/// Parts of one target out of a file, by part name.
pub(super) fn read_parts(path: &Path, target: &str, parts: &[String]) -> Result<TensorSet, MethodError> {
    let file = TensorFile::open(path)?;
    parts.iter().map(|part| Ok((part.clone(), file.read(&full_name(target, part))?))).collect()
}
