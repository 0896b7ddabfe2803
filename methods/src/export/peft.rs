//! Folders that Python's `PeftModel.from_pretrained` loads: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_base::HEAD_FILE;
use rondo_base::architecture::{self, Orientation};
use rondo_proto::run_file::Dtype;
use serde_json::json;

pub use super::peft_load::{CONFIG_FILE, PeftAdapter, PeftTarget, SavedHead, WEIGHTS_FILE, load, load_with_saved_head};

use super::card::card;
use super::head::Head;
use super::peft_load::PREFIX;
use super::report::{ExportInfo, ExportReport};
use crate::answers::Publication;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::factors::PeftFactors;
use crate::file::write;
use crate::head::{HEAD_BIAS, HEAD_WEIGHT};
use crate::job::{AdapterState, Job, TaskFacts};
use crate::linalg::{Matrix, truncated_svd_of_product};
use crate::tensor::{Tensor, TensorSet, parts_of};

impl Job {
    /// Writes an adapter as a PEFT folder: `adapter_config.json`, `adapter_model.safetensors`,
    /// `rondo_head.safetensors` for the classifier head, and a model card. What is merged into the
    /// base is written beside the adapter's own factors: what the run started from, and all stacks
    /// of methods that accumulate.
    ///
    /// # Errors
    /// Re-compression to rank 0 is asked for, the method's change is no plain LoRA, the state lacks
    /// a tensor, a decomposition fails, or a file cannot be written.
    pub fn export_peft(
        &self,
        state: &AdapterState,
        out_dir: &Path,
        info: &ExportInfo,
    ) -> Result<ExportReport, MethodError> {
        if info.recompress == Some(0) {
            return Err(MethodError::Export("re-compression to rank 0 leaves nothing; ask for 1 or more".into()));
        }
        if let Err(why) = self.method().plain_lora(self.config()) {
            return Err(MethodError::Export(why));
        }
        std::fs::create_dir_all(out_dir).map_err(|source| MethodError::io(out_dir, source))?;
        let mut error = AggregationError::default();
        let mut written = PeftWeights { tensors: TensorSet::new(), shapes: Vec::new() };
        for (index, layer) in self.layers().iter().enumerate() {
            let mut factors = self.factors(state, index)?;
            if let Some(rank) = info.recompress {
                let smaller = self.recompressed(&factors, index, rank)?;
                error.add(&smaller.dense(), &factors.dense());
                factors = smaller;
            }
            written.add(self.task().module_name(&layer.name), &factors);
        }
        let provenance = self.provenance(info);
        let config = out_dir.join(CONFIG_FILE);
        let weights = out_dir.join(WEIGHTS_FILE);
        write(&weights, &written.tensors, Dtype::F32, &provenance)?;
        let text = format!("{:#}\n", written.config(&info.base_model_name, self.task()));
        std::fs::write(&config, text).map_err(|source| MethodError::io(&config, source))?;
        let mut files = vec![config, weights];
        if let Some(head) = self.exported_head(state)? {
            head.save(out_dir, &provenance)?;
            files.push(out_dir.join(HEAD_FILE));
        }
        let readme = out_dir.join("README.md");
        files.push(readme.clone());
        let report = ExportReport {
            files,
            rank: written.shapes.iter().map(|(_, rank, _)| *rank).max().unwrap_or(0),
            parameters: written.tensors.values().map(Tensor::len).sum(),
            recompression_error: info.recompress.and_then(|_| error.relative()),
        };
        std::fs::write(&readme, card(self, info, &report)).map_err(|source| MethodError::io(&readme, source))?;
        Ok(report)
    }

    /// A layer's change as one LoRA pair.
    fn factors(&self, state: &AdapterState, index: usize) -> Result<PeftFactors, MethodError> {
        let name = &self.layers()[index].name;
        // Other layers are changed by the adapter alone that the run started from.
        let own = match index < self.targets().len() {
            true => {
                let parts = parts_of(&state.tensors, name);
                Some(self.method().export(self.config(), self.at(index, state.instance()), &parts)?)
            }
            false => None,
        };
        let mut all = Vec::new();
        for (_, delta, parts) in state.merged.iter().filter(|(owner, ..)| *owner == index) {
            let folded = delta.fold(parts).map_err(|source| MethodError::delta(name, source))?;
            all.push(PeftFactors::from_folded(&folded));
        }
        // Alone it keeps its own scale.
        if let (Some(own), true) = (&own, all.is_empty() && self.publication() == Publication::Replace) {
            return Ok(own.clone());
        }
        // After a round the adapter on top is fresh and changes nothing.
        all.extend(own.filter(|own| all.is_empty() || !own.is_zero()));
        let inner: Vec<Matrix> = all.iter().map(PeftFactors::scaled_a).collect();
        let outer: Vec<Matrix> = all.into_iter().map(|factors| factors.b).collect();
        let a = Matrix::below(&inner);
        Ok(PeftFactors { alpha: a.rows() as f64, a, b: Matrix::beside(&outer) })
    }

    /// The best approximation of a lower rank: (U_r diag(S_r), V_r), alpha = r.
    fn recompressed(&self, factors: &PeftFactors, index: usize, rank: usize) -> Result<PeftFactors, MethodError> {
        let target = &self.layers()[index];
        let rank = rank.min(target.out).min(target.inp);
        if factors.rank() <= rank {
            return Ok(factors.clone());
        }
        let svd = truncated_svd_of_product(&factors.b, &factors.scaled_a(), rank)
            .map_err(|source| MethodError::linalg(&target.name, source))?;
        Ok(PeftFactors { b: svd.u.times(&Matrix::diagonal(&svd.s)), a: svd.v, alpha: rank as f64 })
    }

    pub(super) fn exported_head(&self, state: &AdapterState) -> Result<Option<Head>, MethodError> {
        if self.head().is_none() {
            return Ok(None);
        }
        let part = |name: &str| {
            state
                .tensors
                .get(name)
                .cloned()
                .ok_or_else(|| MethodError::Missing { tensor: name.to_owned(), place: "the adapter".into() })
        };
        let task = self.task();
        Ok(Some(Head {
            weight: part(HEAD_WEIGHT)?,
            bias: part(HEAD_BIAS)?,
            labels: task.labels.clone(),
            pooling: task.pooling,
            max_tokens: task.max_tokens,
        }))
    }

    pub(super) fn provenance(&self, info: &ExportInfo) -> BTreeMap<String, String> {
        let mut all = info.provenance.clone();
        all.insert("rondo.method".into(), self.method().id().to_owned());
        all.insert("rondo.run".into(), self.task().run.clone());
        all.insert("rondo.base_digest".into(), self.task().base_digest.clone());
        all
    }
}

impl TaskFacts {
    /// True when Python loads the base with a language model's head (`AutoModelForCausalLM`).
    pub(super) fn is_language(&self) -> bool {
        self.kind.needs_language_model()
    }

    /// PEFT's name of the task.
    pub(super) fn peft_task(&self) -> &'static str {
        if self.is_language() { "CAUSAL_LM" } else { "FEATURE_EXTRACTION" }
    }

    /// The module's name in the model that Python loads: `AutoModel` has it
    /// bare, `AutoModelForCausalLM` below the transformer's own name.
    /// Checkpoints may put that name in front or not.
    pub(super) fn module_name(&self, target: &str) -> String {
        let Some(architecture) = architecture::find(&self.architecture) else { return target.to_owned() };
        let bare = architecture.strip(target);
        let prefix = if self.is_language() { architecture.language_prefix } else { "" };
        format!("{prefix}{bare}")
    }
}

/// The weights file in the making.
struct PeftWeights {
    tensors: TensorSet,
    /// Module, rank, alpha.
    shapes: Vec<(String, usize, f64)>,
}

impl PeftWeights {
    fn add(&mut self, module: String, factors: &PeftFactors) {
        self.tensors.insert(format!("{PREFIX}{module}.lora_A.weight"), Tensor::from_matrix(&factors.a));
        self.tensors.insert(format!("{PREFIX}{module}.lora_B.weight"), Tensor::from_matrix(&factors.b));
        self.shapes.push((module, factors.rank(), factors.alpha));
    }

    /// PEFT's LoraConfig. The first target's rank and alpha are the rule, others stand in the
    /// patterns.
    fn config(&self, base_model_name: &str, task: &TaskFacts) -> serde_json::Value {
        let (rank, alpha) = self.shapes.first().map_or((0, 0.0), |(_, rank, alpha)| (*rank, *alpha));
        let modules: Vec<&String> = self.shapes.iter().map(|(module, ..)| module).collect();
        let ranks: BTreeMap<&String, usize> =
            self.shapes.iter().filter(|shape| shape.1 != rank).map(|shape| (&shape.0, shape.1)).collect();
        let alphas: BTreeMap<&String, serde_json::Value> =
            self.shapes.iter().filter(|shape| shape.2 != alpha).map(|shape| (&shape.0, number(shape.2))).collect();
        json!({
            "peft_type": "LORA",
            "task_type": task.peft_task(),
            "auto_mapping": null,
            "base_model_name_or_path": base_model_name,
            "revision": null,
            "inference_mode": true,
            "r": rank,
            "lora_alpha": number(alpha),
            "lora_dropout": 0.0,
            "target_modules": modules,
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "bias": "none",
            // True where the model keeps its weights as [in, out], as GPT-2's Conv1D does.
            "fan_in_fan_out": architecture::find(&task.architecture).is_some_and(|known| known.orientation == Orientation::InOut),
            "init_lora_weights": true,
            "use_rslora": false,
            "use_dora": false,
            "modules_to_save": null,
            "layers_to_transform": null,
            "layers_pattern": null,
        })
    }
}

/// Whole alphas as whole numbers, as PEFT's own files have them.
fn number(alpha: f64) -> serde_json::Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}
