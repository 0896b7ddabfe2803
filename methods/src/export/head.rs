//! The classifier head beside a PEFT folder. PEFT knows no mean pooling, so the head has a file of
//! its own.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_base::HEAD_FILE;
use rondo_proto::run_file::{Dtype, Pooling};

use crate::error::MethodError;
use crate::file::{TensorFile, write};
use crate::head::{HEAD_BIAS, HEAD_WEIGHT};
use crate::tensor::{Tensor, TensorSet};

/// A classifier head: logits = pooled . weight^T + bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `[labels, hidden]`.
    pub weight: Tensor,
    /// `[labels]`.
    pub bias: Tensor,
    /// Labels in the order of the rows.
    pub labels: Vec<String>,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Longest input in tokens.
    pub max_tokens: usize,
}

impl Head {
    /// Writes `rondo_head.safetensors` into a folder.
    pub(super) fn save(&self, dir: &Path, provenance: &BTreeMap<String, String>) -> Result<(), MethodError> {
        let path = dir.join(HEAD_FILE);
        let json = |value: Result<String, serde_json::Error>| {
            value.map_err(|error| MethodError::Adapter { path: path.clone(), problem: error.to_string() })
        };
        let mut metadata = provenance.clone();
        metadata.insert("labels".into(), json(serde_json::to_string(&self.labels))?);
        metadata.insert("pooling".into(), pooling_word(self.pooling).into());
        metadata.insert("max_tokens".into(), self.max_tokens.to_string());
        let tensors =
            TensorSet::from([(HEAD_WEIGHT.to_owned(), self.weight.clone()), (HEAD_BIAS.to_owned(), self.bias.clone())]);
        write(&path, &tensors, Dtype::F32, &metadata)?;
        Ok(())
    }

    /// Reads the head of a folder, an adapter's or a merged model's, if it has one.
    ///
    /// # Errors
    /// The file cannot be read or is damaged, its metadata lack an entry or have a wrong one, or
    /// its tensors do not fit the number of labels.
    pub fn load(dir: &Path) -> Result<Option<Self>, MethodError> {
        let path = dir.join(HEAD_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let file = TensorFile::open(&path)?;
        let refuse = |problem: String| MethodError::Adapter { path: path.clone(), problem };
        let entry = |key: &str| {
            file.metadata().get(key).ok_or_else(|| refuse(format!("its metadata has no `{key}`"))).map(String::as_str)
        };
        let labels: Vec<String> =
            serde_json::from_str(entry("labels")?).map_err(|error| refuse(format!("`labels`: {error}")))?;
        let pooling = match entry("pooling")? {
            "mean" => Pooling::Mean,
            "cls" => Pooling::Cls,
            other => return Err(refuse(format!("`pooling` is `{other}`; it takes `mean` or `cls`"))),
        };
        let max_tokens = entry("max_tokens")?.parse().map_err(|error| refuse(format!("`max_tokens`: {error}")))?;
        let (weight, bias) = (file.read(HEAD_WEIGHT)?, file.read(HEAD_BIAS)?);
        if weight.shape.len() != 2 || weight.shape[0] != labels.len() || bias.shape != [labels.len()] {
            let problem =
                format!("{} labels, weight {:?} and bias {:?} do not fit", labels.len(), weight.shape, bias.shape);
            return Err(refuse(problem));
        }
        Ok(Some(Self { weight, bias, labels, pooling, max_tokens }))
    }
}

/// A pooling as the run file spells it.
pub(crate) fn pooling_word(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
    }
}
