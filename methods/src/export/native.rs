//! Adapters in a type of PEFT's own for a method, beside plain LoRA.

use std::path::Path;

use rondo_base::HEAD_FILE;
use rondo_proto::run_file::Dtype;
use serde_json::{Value, json};

use super::card::card;
use super::peft::{CONFIG_FILE, WEIGHTS_FILE};
use super::peft_load::PREFIX;
use super::report::{ExportInfo, ExportReport};
use crate::answers::Publication;
use crate::error::MethodError;
use crate::file::write;
use crate::job::{AdapterState, Job};
use crate::native::{Native, OffsetBy};
use crate::tensor::{Tensor, TensorSet, full_name};

impl Job {
    /// How this run's adapter is written in PEFT's own type for the method.
    ///
    /// # Errors
    /// [`MethodError::Export`] says why it cannot be, and what to use instead: PEFT has no such
    /// type, or the adapter holds more than the type does.
    pub fn native(&self) -> Result<Native, MethodError> {
        let native = self.method().native(self.config()).map_err(MethodError::Export)?;
        let refuse = |what: &str| {
            let problem = format!("an adapter of PEFT type {} cannot hold {what}; use --format peft", native.peft_type);
            Err(MethodError::Export(problem))
        };
        if self.start_adapter().is_some() {
            return refuse("the adapter that the run started from");
        }
        if self.publication() == Publication::Accumulate {
            return refuse("what earlier rounds merged into the base");
        }
        if native.offset == OffsetBy::Nobody && (0..self.targets().len()).any(|target| self.offset(target).is_some()) {
            return refuse("the constant change that the method adds to the base");
        }
        Ok(native)
    }

    /// Writes an adapter as a PEFT folder of the method's own type:
    /// the same files as [`Job::export_peft`] writes.
    ///
    /// # Errors
    /// As [`Job::native`]; re-compression, which is for plain LoRA; files that cannot be written.
    pub fn export_native(
        &self,
        state: &AdapterState,
        out_dir: &Path,
        info: &ExportInfo,
    ) -> Result<ExportReport, MethodError> {
        let native = self.native()?;
        if info.recompress.is_some() {
            return Err(MethodError::Export("re-compression is for plain LoRA; use --format peft".into()));
        }
        let mut tensors = TensorSet::new();
        let mut modules = Vec::new();
        for target in self.targets() {
            let module = self.task().module_name(&target.name);
            for (key, part) in &native.tensors {
                let name = full_name(&target.name, part);
                let missing = || MethodError::Missing { tensor: name.clone(), place: "the adapter".into() };
                let tensor = state.tensors.get(&name).ok_or_else(missing)?;
                tensors.insert(format!("{PREFIX}{module}.{key}"), tensor.clone());
            }
            modules.push(module);
        }
        let mut config = native.settings;
        for (key, value) in [
            ("peft_type", json!(native.peft_type)),
            ("task_type", json!(self.task().peft_task())),
            ("base_model_name_or_path", json!(info.base_model_name)),
            ("inference_mode", json!(true)),
            ("target_modules", json!(modules)),
        ] {
            config.insert(key.to_owned(), value);
        }
        std::fs::create_dir_all(out_dir).map_err(|source| MethodError::io(out_dir, source))?;
        let provenance = self.provenance(info);
        let config_file = out_dir.join(CONFIG_FILE);
        let weights = out_dir.join(WEIGHTS_FILE);
        write(&weights, &tensors, Dtype::F32, &provenance)?;
        let text = format!("{:#}\n", Value::Object(config));
        std::fs::write(&config_file, text).map_err(|source| MethodError::io(&config_file, source))?;
        let mut files = vec![config_file, weights];
        if let Some(head) = self.exported_head(state)? {
            head.save(out_dir, &provenance)?;
            files.push(out_dir.join(HEAD_FILE));
        }
        let readme = out_dir.join("README.md");
        files.push(readme.clone());
        let parameters = tensors.values().map(Tensor::len).sum();
        let report = ExportReport { files, rank: state.rank, parameters, recompression_error: None };
        std::fs::write(&readme, card(self, info, &report)).map_err(|source| MethodError::io(&readme, source))?;
        Ok(report)
    }
}
