//! Tensor files as operators name them: a safetensors file, or a folder that holds some.

use std::path::{Path, PathBuf};

use rondo_methods::TensorFile;

use crate::error::CliError;

/// The safetensors files of a path: the file itself, or those of the folder, sorted by name.
///
/// # Errors
/// The path cannot be read, the folder holds no `.safetensors` file, or a file is damaged.
pub fn open(path: &Path) -> Result<Vec<TensorFile>, CliError> {
    let metadata = std::fs::metadata(path).map_err(|error| CliError::io(path, &error))?;
    if !metadata.is_dir() {
        return Ok(vec![TensorFile::open(path)?]);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| CliError::io(path, &error))? {
        let file = entry.map_err(|error| CliError::io(path, &error))?.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(CliError::failed(format!("{} holds no .safetensors file", path.display())));
    }
    files.sort();
    files.iter().map(|file| TensorFile::open(file).map_err(CliError::from)).collect()
}

/// A file's name without its folder.
pub fn name(file: &TensorFile) -> String {
    file.path().file_name().map_or_else(|| file.path().display().to_string(), |name| name.display().to_string())
}

/// Bytes on disk.
///
/// # Errors
/// The file's metadata cannot be read.
pub fn bytes(file: &TensorFile) -> Result<u64, CliError> {
    Ok(std::fs::metadata(file.path()).map_err(|error| CliError::io(file.path(), &error))?.len())
}

/// L2 norm over all numbers of a tensor of any shape, read in blocks.
///
/// # Errors
/// The file has no such tensor, its number format is not understood, or the file cannot be read.
pub fn norm(file: &TensorFile, tensor: &str) -> Result<f64, CliError> {
    let mut sum = 0.0;
    file.for_each_block(tensor, |block| sum += block.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>())?;
    Ok(sum.sqrt())
}
