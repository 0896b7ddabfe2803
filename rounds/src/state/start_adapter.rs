//! The adapter that a run starts from. The engine knows its digest, its sizes and what it changes,
//! never its numbers.

use rondo_methods::Job;
use rondo_proto::{Digest, v1};
use serde::{Deserialize, Serialize};

use crate::rejection::Rejection;

/// What a run starts from instead of the base alone: everybody merges it into the base before
/// anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAdapter {
    /// Its blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub bytes: u64,
    /// Bytes of its tensors, without the file's header.
    pub layout_bytes: u64,
    /// The linear layers of the base that it changes.
    pub targets: Vec<String>,
    /// Labels of its classifier head; 0 without one.
    pub head_labels: u32,
}

impl StartAdapter {
    /// Takes the description of a checked file and checks that it fits the run.
    pub(crate) fn of(message: v1::InitialAdapter, base: &v1::BaseModel, job: &Job) -> Result<Self, Rejection> {
        let v1::InitialAdapter { digest, bytes, layout_bytes, targets, head_labels } = message;
        let refuse = |problem: String| Err(Rejection::StartAdapter { problem });
        let Ok(digest) = digest.parse() else { return refuse(format!("{digest:?} is no digest")) };
        if let Some(unknown) = targets.iter().find(|target| !base.linears.iter().any(|linear| linear.name == **target))
        {
            return refuse(format!("it changes `{unknown}`, but base model `{}` has no such linear layer", base.name));
        }
        match job.head() {
            _ if head_labels == 0 => {}
            None => return refuse("it has a classifier head, the run's task has none".to_owned()),
            Some(head) if head.labels != head_labels as usize => {
                return refuse(format!("its head has {head_labels} labels, the run's task {}", head.labels));
            }
            Some(_) => {}
        }
        Ok(Self { digest, bytes, layout_bytes, targets, head_labels })
    }

    /// As clients hear of it.
    pub(crate) fn message(&self) -> v1::InitialAdapter {
        v1::InitialAdapter {
            digest: self.digest.to_string(),
            bytes: self.bytes,
            layout_bytes: self.layout_bytes,
            targets: self.targets.clone(),
            head_labels: self.head_labels,
        }
    }
}
