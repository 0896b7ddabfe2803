//! `rondo adapter diff`: how far two adapters are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_methods::export::peft;
use rondo_methods::{Matrix, Tensor};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::table;
use crate::tensor_files::open;

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
}

/// Compares and shows.
pub(super) fn run(args: DiffArgs, context: &mut Context) -> Result<(), CliError> {
    if args.tolerance.is_some_and(|tolerance| !tolerance.is_finite() || tolerance < 0.0) {
        return Err(CliError::usage("--tolerance must be a finite number, 0 or more"));
    }
    let compared = Compared { tensors: tensors(&args.a, &args.b)?, changes: changes(&args.a, &args.b)? };
    context.output.show(&compared, words)?;
    let Some(tolerance) = args.tolerance else { return Ok(()) };
    // Where the changes can be compared they decide, and the head: factors may differ and mean the same.
    let decides = |difference: &&Difference| compared.changes.is_empty() || difference.name.starts_with("head.");
    let deciding: Vec<&Difference> = compared.tensors.iter().filter(decides).chain(&compared.changes).collect();
    let beyond = |relative: f64| relative.is_nan() || relative > tolerance;
    match deciding.iter().filter(|difference| difference.relative.is_none_or(beyond)).count() {
        0 => Ok(()),
        count => Err(CliError::failed(format!("{count} of {} differ by more than {tolerance:e}", deciding.len()))),
    }
}

/// All tensors of a path, by name; a file's name is part of it where there are several.
fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, CliError> {
    let mut all = BTreeMap::new();
    for file in open(path)? {
        all.extend(file.read_all(|_| true)?);
    }
    Ok(all)
}

fn tensors(a: &Path, b: &Path) -> Result<Vec<Difference>, CliError> {
    let (a, b) = (read(a)?, read(b)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let compare = |name: &String| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) if a.shape == b.shape => measured(name, &a.data, &b.data, |x| f64::from(*x)),
        (Some(a), Some(b)) => apart(name, format!("shapes {:?} and {:?}", a.shape, b.shape)),
        (Some(_), None) => apart(name, "only in A".to_owned()),
        _ => apart(name, "only in B".to_owned()),
    };
    Ok(names.into_iter().map(compare).collect())
}

fn changes(a: &Path, b: &Path) -> Result<Vec<Difference>, CliError> {
    let is_peft = |path: &Path| path.join("adapter_config.json").exists();
    if !is_peft(a) || !is_peft(b) {
        return Ok(Vec::new());
    }
    let dense = |path: &Path| -> Result<BTreeMap<String, Matrix>, CliError> {
        Ok(peft::load(path)?.targets.into_iter().map(|target| (target.name.clone(), target.dense())).collect())
    };
    let (a, b) = (dense(a)?, dense(b)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let compare = |name: &String| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) if (a.rows(), a.cols()) == (b.rows(), b.cols()) => {
            measured(name, a.data(), b.data(), |x| *x)
        }
        (Some(_), Some(_)) => apart(name, "of another shape".to_owned()),
        (Some(_), None) => apart(name, "only in A".to_owned()),
        _ => apart(name, "only in B".to_owned()),
    };
    Ok(names.into_iter().map(compare).collect())
}

fn measured<T>(name: &str, a: &[T], b: &[T], number: impl Fn(&T) -> f64) -> Difference {
    let (mut square, mut size, mut largest) = (0.0, 0.0, 0.0_f64);
    for (a, b) in a.iter().zip(b).map(|(a, b)| (number(a), number(b))) {
        square += (a - b) * (a - b);
        size += b * b;
        largest = if (a - b).is_nan() { f64::NAN } else { largest.max((a - b).abs()) };
    }
    let relative = if square == 0.0 { 0.0 } else { (square / size).sqrt() };
    Difference { name: name.to_owned(), relative: Some(relative), largest: Some(largest), problem: String::new() }
}

fn apart(name: &str, problem: String) -> Difference {
    Difference { name: name.to_owned(), relative: None, largest: None, problem }
}

fn words(compared: &Compared) -> String {
    let row = |difference: &Difference| {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3e}"));
        let (relative, largest) = (number(difference.relative), number(difference.largest));
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
    fn differences_are_relative_and_nan_is_told() {
        let same = |x: &f64| *x;
        assert_eq!(measured("x", &[3.0, 4.0], &[3.0, 4.0], same).relative, Some(0.0));
        assert_eq!(measured("x", &[0.0], &[0.0], same).relative, Some(0.0));
        let apart = measured("x", &[3.0, 5.0], &[3.0, 4.0], same);
        assert_eq!((apart.relative, apart.largest), (Some(0.2), Some(1.0)));
        assert!(measured("x", &[f64::NAN], &[1.0], same).relative.is_some_and(f64::is_nan));
    }
}
