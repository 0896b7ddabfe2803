//! A base model with or without an exported adapter, as the offline commands name them.

use std::path::{Path, PathBuf};

use rondo_methods::export::peft::{self, CONFIG_FILE, PeftAdapter};
use rondo_methods::{Delta, TensorSet};
use rondo_proto::v1::BaseModel;
use rondo_trainer::device::Device;
use rondo_trainer::error::TrainerError;
use rondo_trainer::models::Transformer;
use rondo_trainer::session::Session;

use super::error::OfflineError;

/// Reads an adapter's folder; "none" and nothing are the bare base.
pub(super) fn read_optional(dir: Option<&PathBuf>) -> Result<Option<PeftAdapter>, OfflineError> {
    let Some(dir) = dir.filter(|dir| dir.as_os_str() != "none") else { return Ok(None) };
    Ok(Some(read(dir)?))
}

/// Reads an adapter's folder.
pub(super) fn read(dir: &Path) -> Result<PeftAdapter, OfflineError> {
    if !dir.join(CONFIG_FILE).is_file() {
        return Err(OfflineError::NoAdapter { dir: dir.to_owned() });
    }
    let adapter = peft::load(dir)?;
    adapter.check_finite()?;
    Ok(adapter)
}

/// A language model with the adapter on it, if there is one.
pub(super) fn language<'m>(
    model: &'m dyn Transformer,
    device: Device,
    path: &Path,
    adapter: Option<(&Path, &PeftAdapter)>,
) -> Result<Session<'m>, OfflineError> {
    let mut session = Session::language(model, device)?;
    if let Some((dir, adapter)) = adapter {
        attach(&mut session, path, dir, adapter)?;
    }
    Ok(session)
}

/// Attaches an adapter's targets; `path` is the base model's, `dir` the adapter's.
pub(super) fn attach(
    session: &mut Session<'_>,
    path: &Path,
    dir: &Path,
    adapter: &PeftAdapter,
) -> Result<(), OfflineError> {
    if let Ok(found) = rondo_base::describe(path, "base") {
        warn_of_another_base(path, dir, adapter, &found);
    }
    for target in &adapter.targets {
        let parts = TensorSet::from([("lora_A".to_owned(), target.a.clone()), ("lora_B".to_owned(), target.b.clone())]);
        let delta = Delta::product(&["lora_B", "lora_A"]).scaled(target.scale);
        let attached = session.attach(&target.name, &delta, &parts, &Default::default());
        attached.map_err(|source| another_base(path, dir, adapter, source))?;
    }
    Ok(())
}

/// The error for an adapter that does not fit, with the likeliest cause.
pub(super) fn another_base(path: &Path, dir: &Path, adapter: &PeftAdapter, source: TrainerError) -> OfflineError {
    let dir = dir.to_owned();
    let model = path.to_owned();
    let made_for = adapter.base_model_name.clone();
    OfflineError::AnotherBase { dir, model, made_for, source: Box::new(source) }
}

/// Weights of the same shape can be another model's. Nothing is refused: one base has one digest as
/// a folder and another as a GGUF file.
pub(super) fn warn_of_another_base(path: &Path, dir: &Path, adapter: &PeftAdapter, found: &BaseModel) {
    let Some(meant) = adapter.provenance.get("rondo.base_digest").filter(|digest| !digest.is_empty()) else { return };
    if found.digest != *meant {
        tracing::warn!(
            "adapter {} was trained on {:?} with digest {meant}, the model in {} has digest {}",
            dir.display(),
            adapter.base_model_name,
            path.display(),
            found.digest
        );
    }
}
