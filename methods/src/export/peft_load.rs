//! Reading a PEFT folder by PEFT's own rules, ours and those that other programs wrote.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_base::ADAPTER_FILE;

use super::head::Head;
use super::peft_options::Options;
use crate::error::MethodError;
use crate::file::TensorFile;
use crate::linalg::Matrix;
use crate::tensor::Tensor;

/// Name of the configuration in a PEFT folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights in a PEFT folder.
pub const WEIGHTS_FILE: &str = ADAPTER_FILE;
/// What PEFT puts before a module's name.
pub(super) const PREFIX: &str = "base_model.model.";

/// The inner factor, `[r, in]`, by its name in keys.
const INNER: &str = "lora_A";
/// The outer factor, `[out, r]`.
const OUTER: &str = "lora_B";

/// Names that a classifier's last layer has among `modules_to_save`.
const HEAD_MODULES: [&str; 2] = ["classifier", "score"];

/// A LoRA adapter from a PEFT folder.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftAdapter {
    /// Name or path of the base model, as the folder gives it.
    pub base_model_name: String,
    /// The adapted modules, sorted by name.
    pub targets: Vec<PeftTarget>,
    /// The classifier head, when the folder holds one.
    pub head: Option<Head>,
    /// The weights file's metadata.
    pub provenance: BTreeMap<String, String>,
}

/// One adapted module, dW = scale * b.a.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftTarget {
    /// Module name in the bare base model, for example `encoder.layer.0.attention.self.query`.
    pub name: String,
    /// Inner factor, `[r, in]`.
    pub a: Tensor,
    /// Outer factor, `[out, r]`.
    pub b: Tensor,
    /// alpha / r, or alpha / sqrt(r) where the folder says rsLoRA.
    pub scale: f64,
}

impl PeftTarget {
    /// The change of the weight, `[out, in]`.
    pub fn dense(&self) -> Matrix {
        self.b.to_matrix().times(&self.a.to_matrix()).scaled(self.scale)
    }
}

impl PeftAdapter {
    /// Refuses an adapter whose change of some weight holds a number that is not finite: trained
    /// into the ground, or damaged.
    ///
    /// # Errors
    /// [`MethodError::Export`] with the module's name.
    pub fn check_finite(&self) -> Result<(), MethodError> {
        let is_finite = |tensor: &Tensor| tensor.data.iter().all(|number| number.is_finite());
        let whole = |target: &PeftTarget| is_finite(&target.a) && is_finite(&target.b) && target.scale.is_finite();
        match self.targets.iter().find(|target| !whole(target)) {
            None => Ok(()),
            Some(target) => Err(MethodError::Export(format!(
                "the adapter's tensors of {:?} hold numbers that are not finite; take an earlier round, or train with a lower \
                 learning rate",
                target.name
            ))),
        }
    }
}

/// A classifier's last layer that PEFT trained as a whole and saved beside the factors. Its rows
/// have no labels.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedHead {
    /// Its module.
    pub module: String,
    /// `[labels, hidden]`.
    pub weight: Tensor,
    /// `[labels]`, where the layer has one.
    pub bias: Option<Tensor>,
}

/// Reads a PEFT folder and the head beside it. One whose classifier lies among PEFT's own tensors
/// is refused: they do not say what its rows stand for.
///
/// # Errors
/// The folder is refused as in [`load_with_saved_head`], or `modules_to_save` holds a classifier.
pub fn load(dir: &Path) -> Result<PeftAdapter, MethodError> {
    match load_with_saved_head(dir)? {
        (adapter, None) => Ok(adapter),
        (_, Some(head)) => Err(MethodError::Adapter {
            path: dir.join(CONFIG_FILE),
            problem: format!(
                "`modules_to_save` holds the classifier `{}`, which only a run that starts from the adapter can take up",
                head.module
            ),
        }),
    }
}

/// Reads a PEFT folder, the head beside it, and a classifier among `modules_to_save`.
///
/// # Errors
/// A file cannot be read or is damaged, a setting is not supported, a tensor is neither a LoRA
/// factor nor a usable classifier, factors do not fit their rank, or there are none.
pub fn load_with_saved_head(dir: &Path) -> Result<(PeftAdapter, Option<SavedHead>), MethodError> {
    let options = Options::read(&dir.join(CONFIG_FILE))?;
    let path = dir.join(WEIGHTS_FILE);
    let refuse = |problem: String| MethodError::Adapter { path: path.clone(), problem };
    let file = TensorFile::open(&path)?;
    let mut factors = Factors::new();
    let mut saved = None;
    for entry in file.entries() {
        if let Some((module, part)) = factor_of(&entry.name) {
            // Two keys of one parameter: PEFT takes the one that comes last, whichever that is.
            if let Some(first) = factors.entry(module.to_owned()).or_default().insert(part, entry.name.clone()) {
                return Err(refuse(format!("`{first}` and `{}` are one and the same tensor", entry.name)));
            }
            continue;
        }
        let module = |end: &str| entry.name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(end));
        let owner = module(".weight").or_else(|| module(".bias"));
        let owner = owner.filter(|module| is_saved(&options, module)).ok_or_else(|| refuse(no_factor(&entry.name)))?;
        let head = saved_head(&file, owner).map_err(|error| error.unwrap_or_else(|| refuse(unusable(owner))))?;
        if saved.get_or_insert_with(|| head.clone()) != &head {
            return Err(refuse(unusable(owner)));
        }
    }
    let mut targets = Vec::new();
    for (name, parts) in factors {
        let key = |part: &str| {
            let lacks = || refuse(format!("it lacks `{PREFIX}{name}.{part}.weight`, the other factor is there"));
            parts.get(part).ok_or_else(lacks)
        };
        let (a, b) = (file.read(key(INNER)?)?, file.read(key(OUTER)?)?);
        let rank = options.rank(&name);
        if a.shape.len() != 2 || b.shape.len() != 2 || a.shape[0] != rank || b.shape[1] != rank || rank == 0 {
            return Err(refuse(format!("`{name}` has factors {:?} and {:?}, its rank is {rank}", b.shape, a.shape)));
        }
        let scale = options.scale(&name);
        targets.push(PeftTarget { name, a, b, scale });
    }
    if targets.is_empty() {
        return Err(refuse("it holds no LoRA factors".into()));
    }
    let adapter = PeftAdapter {
        base_model_name: options.base_model_name(),
        targets,
        head: Head::load(dir)?,
        provenance: file.metadata().clone(),
    };
    Ok((adapter, saved))
}

/// The keys of each module's factors, by part.
type Factors = BTreeMap<String, BTreeMap<&'static str, String>>;

/// The module and the part of a LoRA factor's key. PEFT saves keys without the adapter's name, and
/// loads those of its usual name, `default`, too.
fn factor_of(key: &str) -> Option<(&str, &'static str)> {
    let name = key.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    [INNER, OUTER].into_iter().find_map(|part| Some((name.strip_suffix(part)?.strip_suffix('.')?, part)))
}

/// Why a key that is no factor's cannot be read.
fn no_factor(key: &str) -> String {
    let why = if !key.starts_with(PREFIX) {
        format!(": it does not begin with `{PREFIX}`, so PEFT would pass it over")
    } else if key.contains(".lora_A.") || key.contains(".lora_B.") {
        ": PEFT would pass it over, since it names an adapter other than `default`, or is no weight; save the adapter \
         again with PEFT's `save_pretrained`"
            .to_owned()
    } else {
        String::new()
    };
    format!("tensor `{key}` is no LoRA factor of a linear layer{why}")
}

fn unusable(module: &str) -> String {
    format!(
        "`modules_to_save` holds `{module}`: of modules trained as a whole only a classifier's last layer ({}) can be used",
        HEAD_MODULES.join(", ")
    )
}

/// Whether a module is, or lies inside of, one that was trained as a whole.
fn is_saved(options: &Options, module: &str) -> bool {
    let names = options.saved_modules();
    names.iter().any(|name| module == name || format!(".{module}.").contains(&format!(".{name}.")))
}

/// The classifier's last layer; `Err(None)` when the module is something else.
fn saved_head(file: &TensorFile, module: &str) -> Result<SavedHead, Option<MethodError>> {
    let last = module.rsplit('.').next().unwrap_or_default();
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{PREFIX}{module}.{part}"));
    if !HEAD_MODULES.contains(&last) || file.shape(&weight).is_none_or(|shape| shape.len() != 2) {
        return Err(None);
    }
    let read = |name: &str| file.read(name).map_err(|error| Some(error.into()));
    let bias = if file.contains(&bias) { Some(read(&bias)?) } else { None };
    Ok(SavedHead { module: module.to_owned(), weight: read(&weight)?, bias })
}
