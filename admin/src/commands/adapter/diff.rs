//! `rondo adapter diff`: how far two adapters are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_methods::TensorFile;
use rondo_methods::export::peft::{self, PeftTarget};
use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_proto::manifest::TensorEntry;
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::table;
use crate::tensor_files::{name, open};

/// What to compare.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rondo adapter diff adapter-a adapter-b --tolerance 1e-6")]
pub struct DiffArgs {
    /// A folder or a safetensors file
    a: PathBuf,
    /// What it is compared with
    b: PathBuf,
    /// Exit with 1 when a tensor differs by more, or is on one side only
    #[arg(long, value_name = "RELATIVE")]
    tolerance: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Compared {
    /// Tensors.
    tensors: Vec<Difference>,
    /// Changes of weights, of two PEFT folders.
    changes: Vec<Difference>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Difference {
    name: String,
    /// ||A - B|| / ||B||; none where they cannot be compared. Two zero tensors differ by 0.
    relative: Option<f64>,
    /// Largest |a - b|.
    largest: Option<f64>,
    /// Why there is no number.
    problem: String,
    /// True for a tensor of the classifier head.
    #[serde(skip)]
    head: bool,
}

/// Compares and shows.
pub(super) fn run(args: DiffArgs, context: &mut Context) -> Result<(), CliError> {
    if args.tolerance.is_some_and(|tolerance| !tolerance.is_finite() || tolerance < 0.0) {
        return Err(CliError::usage("--tolerance must be a finite number, 0 or more"));
    }
    let compared = Compared { tensors: tensors(&args.a, &args.b)?, changes: changes(&args.a, &args.b)? };
    context.output.show(&compared, words)?;
    let Some(tolerance) = args.tolerance else { return Ok(()) };
    // Where the changes can be compared they decide, and
    // the head: factors may differ and mean the same.
    let decides = |difference: &&Difference| compared.changes.is_empty() || difference.head;
    let deciding: Vec<&Difference> = compared.tensors.iter().filter(decides).chain(&compared.changes).collect();
    let beyond = |relative: f64| relative.is_nan() || relative > tolerance;
    match deciding.iter().filter(|difference| difference.relative.is_none_or(beyond)).count() {
        0 => Ok(()),
        count => Err(CliError::failed(format!("{count} of {} differ by more than {tolerance:e}", deciding.len()))),
    }
}

/// Where the tensors of a path are: by shown name the file and the tensor's own name.
type Places<'a> = BTreeMap<String, (&'a TensorFile, TensorEntry)>;

/// Two files of a folder may hold tensors of one name, so the
/// file's name is put before where there are several.
fn places(files: &[TensorFile], prefixed: bool) -> Places<'_> {
    let mut places = Places::new();
    for file in files {
        for entry in file.entries() {
            let shown = if prefixed { format!("{}: {}", name(file), entry.name) } else { entry.name.clone() };
            places.insert(shown, (file, entry));
        }
    }
    places
}

/// Compares tensor by tensor, with one of each side in memory.
fn tensors(a: &Path, b: &Path) -> Result<Vec<Difference>, CliError> {
    let a = open(a)?;
    let b = open(b)?;
    let prefixed = a.len() > 1 || b.len() > 1;
    let a = places(&a, prefixed);
    let b = places(&b, prefixed);
    let shown: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let compare = |shown: &String| {
        let (difference, name) = match (a.get(shown), b.get(shown)) {
            (Some((one, entry)), Some((two, other))) if entry.shape == other.shape => {
                let one = one.read(&entry.name)?;
                let two = two.read(&entry.name)?;
                (measured(shown, &one.data, &two.data, |x| f64::from(*x)), &entry.name)
            }
            (Some((_, entry)), Some((_, other))) => {
                (apart(shown, format!("shapes {:?} and {:?}", entry.shape, other.shape)), &entry.name)
            }
            (Some((_, entry)), None) => (apart(shown, "only in A".to_owned()), &entry.name),
            (None, Some((_, entry))) => (apart(shown, "only in B".to_owned()), &entry.name),
            (None, None) => return Ok(apart(shown, "in neither".to_owned())),
        };
        Ok(Difference { head: [HEAD_WEIGHT, HEAD_BIAS].contains(&name.as_str()), ..difference })
    };
    shown.into_iter().map(compare).collect()
}

fn changes(a: &Path, b: &Path) -> Result<Vec<Difference>, CliError> {
    let is_peft = |path: &Path| path.join("adapter_config.json").exists();
    if !is_peft(a) || !is_peft(b) {
        return Ok(Vec::new());
    }
    let load = |path: &Path| -> Result<BTreeMap<String, PeftTarget>, CliError> {
        Ok(peft::load(path)?.targets.into_iter().map(|target| (target.name.clone(), target)).collect())
    };
    let shape = |target: &PeftTarget| (target.b.shape[0], target.a.shape[1]);
    let a = load(a)?;
    let b = load(b)?;
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let compare = |name: &String| match (a.get(name), b.get(name)) {
        // Only the factors are held of all targets, the change itself of one.
        (Some(a), Some(b)) if shape(a) == shape(b) => measured(name, a.dense().data(), b.dense().data(), |x| *x),
        (Some(_), Some(_)) => apart(name, "of another shape".to_owned()),
        (Some(_), None) => apart(name, "only in A".to_owned()),
        _ => apart(name, "only in B".to_owned()),
    };
    Ok(names.into_iter().map(compare).collect())
}

fn measured<T>(name: &str, a: &[T], b: &[T], number: impl Fn(&T) -> f64) -> Difference {
    let mut square = 0.0;
    let mut size = 0.0;
    let mut largest = 0.0_f64;
    for (a, b) in a.iter().zip(b).map(|(a, b)| (number(a), number(b))) {
        square += (a - b) * (a - b);
        size += b * b;
        largest = if (a - b).is_nan() { f64::NAN } else { largest.max((a - b).abs()) };
    }
    let relative = if square == 0.0 { 0.0 } else { (square / size).sqrt() };
    Difference {
        name: name.to_owned(),
        relative: Some(relative),
        largest: Some(largest),
        problem: String::new(),
        head: false,
    }
}

fn apart(name: &str, problem: String) -> Difference {
    Difference { name: name.to_owned(), relative: None, largest: None, problem, head: false }
}

fn words(compared: &Compared) -> String {
    let row = |difference: &Difference| {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3e}"));
        let relative = number(difference.relative);
        let largest = number(difference.largest);
        vec![difference.name.clone(), relative, largest, difference.problem.clone()]
    };
    let rows = |differences: &[Difference]| differences.iter().map(row).collect();
    let mut text = table(&["TENSOR", "||A-B||/||B||", "LARGEST", ""], rows(&compared.tensors), "no tensors");
    if !compared.changes.is_empty() {
        let titles = ["CHANGE OF", "||A-B||/||B||", "LARGEST", ""];
        text += &format!("\n{}", table(&titles, rows(&compared.changes), ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_nan_is_reported() {
        let same = |x: &f64| *x;
        assert_eq!(measured("x", &[3.0, 4.0], &[3.0, 4.0], same).relative, Some(0.0));
        assert_eq!(measured("x", &[0.0], &[0.0], same).relative, Some(0.0));
        let apart = measured("x", &[3.0, 5.0], &[3.0, 4.0], same);
        assert_eq!((apart.relative, apart.largest), (Some(0.2), Some(1.0)));
        assert!(measured("x", &[f64::NAN], &[1.0], same).relative.is_some_and(f64::is_nan));
    }
}
