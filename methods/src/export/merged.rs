//! Full weights with the adapter in them: the base model's own files again, each target's weight
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rondo_base::architecture::{self, Architecture, Orientation};
use rondo_base::{Checkpoint, HEAD_FILE, WeightFiles, is_weights};
use rondo_proto::v1;

use super::card;
use super::copy::{Rounding, WeightsCopy};
use super::head::Head;
use super::peft_load::{CONFIG_FILE, PeftAdapter};
use super::report::{ExportInfo, MergedReport};
use crate::error::MethodError;
use crate::job::{AdapterState, Job};
use crate::linalg::Matrix;

/// Files of a model folder that hold weights in other formats; a merged folder must not carry the
/// unchanged ones along.
const OTHER_WEIGHTS: [&str; 9] = ["bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack", "ot", "ckpt"];

impl Job {
    /// Writes `W0 + dW` for every layer that changes, in the base's own files, names, shards and
    /// number formats, with its tokenizer and configuration beside them. One weight is in memory at
    /// a time. `model_dir` must hold the run's base (the caller has compared the digest).
    ///
    /// # Errors
    /// The method's change cannot be merged, the state lacks a tensor, the change is beyond what a
    /// weight can hold, the base holds no weight for a layer or is a GGUF file, or a file cannot be
    /// read or written.
    pub fn export_merged(
        &self,
        state: &AdapterState,
        model_dir: &Path,
        out_dir: &Path,
        info: &ExportInfo,
    ) -> Result<MergedReport, MethodError> {
        if let Err(why) = self.method().merges(self.config()) {
            return Err(MethodError::Export(why));
        }
        let mut report = Merge {
            architecture: architecture::find(&self.task().architecture),
            targets: self.layers().iter().map(|layer| layer.name.clone()).collect(),
            delta: &|layer| self.dense_delta(state, layer),
            head: self.exported_head(state)?,
            provenance: self.provenance(info),
        }
        .write(model_dir, out_dir)?;
        report.add_card(out_dir, |report| card::merged(self, info, report))?;
        Ok(report)
    }
}

impl PeftAdapter {
    /// Writes `W0 + dW` as [`Job::export_merged`] does, from an adapter's folder alone. `model`
    /// describes `model_dir`; that it is the one the adapter was trained on shows in the module
    /// names and sizes alone.
    ///
    /// # Errors
    /// The adapter holds numbers that are not finite, it does not fit the model, the change is
    /// beyond what a weight can hold, the base is a GGUF file, or a file cannot be read or written.
    pub fn merge(&self, model: &v1::BaseModel, model_dir: &Path, out_dir: &Path) -> Result<MergedReport, MethodError> {
        let known = architecture::find(&model.architecture);
        let canonical = |name: &str| known.map_or_else(|| name.to_owned(), |known| known.canonical(name).into_owned());
        let targets: Vec<String> = self.targets.iter().map(|target| canonical(&target.name)).collect();
        // Before anything is written.
        self.check_finite()?;
        for (name, target) in targets.iter().zip(&self.targets) {
            check_target(&self.base_model_name, model, model_dir, name, [target.b.shape[0], target.a.shape[1]])?;
        }
        let mut report = Merge {
            architecture: known,
            targets,
            delta: &|target| Ok(self.targets[target].dense()),
            head: self.head.clone(),
            provenance: self.provenance.clone(),
        }
        .write(model_dir, out_dir)?;
        report.add_card(out_dir, |report| card::merged_folder(self, &model.name, report))?;
        Ok(report)
    }
}

/// Refuses a module that the model does not have in this size.
fn check_target(
    made_for: &str,
    model: &v1::BaseModel,
    dir: &Path,
    name: &str,
    [out, inp]: [usize; 2],
) -> Result<(), MethodError> {
    let problem = match model.linears.iter().find(|linear| linear.name == name) {
        Some(linear) if (linear.out_features as usize, linear.in_features as usize) == (out, inp) => return Ok(()),
        Some(linear) => {
            format!("{name:?} is [{}, {}] there and [{out}, {inp}] here", linear.out_features, linear.in_features)
        }
        None => format!("it has no linear layer {name:?}"),
    };
    let dir = dir.display();
    Err(MethodError::Export(format!("the adapter, made for {made_for:?}, does not fit the model in {dir}: {problem}")))
}

/// Refuses a file of packed weights.
fn check_folder(model_dir: &Path) -> Result<(), MethodError> {
    if !rondo_base::is_gguf(model_dir) {
        return Ok(());
    }
    Err(MethodError::PackedBase { path: model_dir.to_owned() })
}

/// Weights to be written anew.
struct Merge<'a> {
    architecture: Option<&'static Architecture>,
    /// Canonical module names.
    targets: Vec<String>,
    /// Change of a target's weight, `[out, in]`.
    delta: &'a dyn Fn(usize) -> Result<Matrix, MethodError>,
    head: Option<Head>,
    provenance: BTreeMap<String, String>,
}

impl Merge<'_> {
    fn write(&self, model_dir: &Path, out_dir: &Path) -> Result<MergedReport, MethodError> {
        check_folder(model_dir)?;
        let weights = WeightFiles::find(model_dir).map_err(|error| MethodError::Export(error.to_string()))?;
        let names = file_names(model_dir)?;
        // A folder that is no whole model has no vocabulary matrix to contradict.
        let own_head = Checkpoint::open(model_dir).is_ok_and(|checkpoint| checkpoint.has_own_head);
        std::fs::create_dir_all(out_dir).map_err(|source| MethodError::io(out_dir, source))?;
        let mut left: BTreeSet<usize> = (0..self.targets.len()).collect();
        let mut rounding = Rounding::default();
        let mut files = Vec::new();
        for name in names {
            let from = model_dir.join(&name);
            let to = out_dir.join(&name);
            // Files that are no part of the model would lie unmerged beside those that are.
            if !belongs(&name) || weights.passed_over.contains(&name) {
                continue;
            } else if is_weights(&name) {
                let mut copy = WeightsCopy::create(&from, &to, &self.provenance)?;
                while let Some(located) = copy.next() {
                    match self.target_of(&located.entry.name) {
                        Some((target, transposed)) => {
                            let delta = (self.delta)(target)?;
                            // Finite factors may have a product beyond f32, in which weights are
                            // written at most.
                            if delta.norm() > f64::from(f32::MAX) || delta.norm().is_nan() {
                                let name = &self.targets[target];
                                let problem = "is beyond what a weight can hold; take an earlier round";
                                return Err(MethodError::Export(format!("the adapter's change of {name:?} {problem}")));
                            }
                            let delta = if transposed { delta.transposed() } else { delta };
                            copy.changed(&located, &delta, &mut rounding)?;
                            left.remove(&target);
                        }
                        None => copy.unchanged(&located)?,
                    }
                }
                copy.finish()?;
            } else if own_head && name == rondo_base::CONFIG_FILE {
                copy_untied(&from, &to)?;
            } else {
                std::fs::copy(&from, &to).map_err(|source| MethodError::io(&from, source))?;
            }
            files.push(to);
        }
        if let Some(missed) = left.first() {
            let target = &self.targets[*missed];
            return Err(MethodError::Export(format!("{} has no weight of {target:?}", model_dir.display())));
        }
        if let Some(head) = &self.head {
            head.save(out_dir, &self.provenance)?;
            files.push(out_dir.join(HEAD_FILE));
        }
        Ok(MergedReport { files, merged: self.targets.len(), rounding: rounding.relative() })
    }

    /// The target whose weight a tensor of the base is, and whether the file holds it as
    /// `[in, out]`.
    fn target_of(&self, tensor: &str) -> Option<(usize, bool)> {
        let module = tensor.strip_suffix(".weight")?;
        let canonical = self.architecture.map_or(module.into(), |known| known.canonical(module));
        let target = self.targets.iter().position(|target| target == module || *target == canonical)?;
        Some((target, self.architecture.is_some_and(|known| known.orientation == Orientation::InOut)))
    }
}

impl MergedReport {
    fn add_card(&mut self, out_dir: &Path, card: impl FnOnce(&Self) -> String) -> Result<(), MethodError> {
        let readme = out_dir.join("README.md");
        std::fs::write(&readme, card(self)).map_err(|source| MethodError::io(&readme, source))?;
        self.files.push(readme);
        Ok(())
    }
}

/// Whether a file of the base's folder has a place in the merged one. Weights in other formats,
/// heads and adapters would say what the unchanged base says; the card is written anew; files of a
/// leading dot are some program's own notes on the folder they lie in.
fn belongs(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let other_tensors = OTHER_WEIGHTS.contains(&extension) || extension == "safetensors" && !is_weights(name);
    !(other_tensors || name == "README.md" || name == CONFIG_FILE || name.starts_with('.'))
}

/// Copies a config.json that ties a vocabulary matrix which is the model's own, without the
/// contradiction.
fn copy_untied(from: &Path, to: &Path) -> Result<(), MethodError> {
    let mut config = rondo_base::read_json(from).map_err(|error| MethodError::Export(error.to_string()))?;
    if let Some(config) = config.as_object_mut() {
        config.insert("tie_word_embeddings".to_owned(), false.into());
    }
    std::fs::write(to, format!("{config:#}\n")).map_err(|source| MethodError::io(to, source))
}

/// The plain files of a folder, sorted.
fn file_names(dir: &Path) -> Result<Vec<String>, MethodError> {
    let io = |source| MethodError::io(dir, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Follows links: model folders are often made of links into a cache.
        let is_file = std::fs::metadata(entry.path()).is_ok_and(|about| about.is_file());
        if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
