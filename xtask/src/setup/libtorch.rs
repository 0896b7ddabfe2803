//! libtorch from PyPI's wheels: the CPU part of PyTorch and the two small CUDA libraries it is
//! linked to, instead of an install of some 3 GB.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use super::fetch::Pip;
use super::packages::{CUDART, CUPTI, TORCH};
use super::stamp::Recipe;
use crate::paths::Paths;

const RECIPE: Recipe = Recipe { packages: &[TORCH, CUPTI, CUDART], revision: 1 };

/// How to bring one's own libtorch.
const DEFAULT_HINT: &str = "set LIBTORCH to the folder of a libtorch 2.11.0 (with `include` and `lib`), or LIBTORCH_USE_PYTORCH=1 to take it \
     from the PyTorch 2.11 of the Python at hand";

/// Where cargo finds libtorch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// The one that setup makes.
    Ours(PathBuf),
    /// `LIBTORCH` names another.
    Named(PathBuf),
    /// `LIBTORCH_USE_PYTORCH`: the one inside an installed PyTorch.
    Pytorch,
}

/// Which libtorch this environment asks for. `.cargo/config.toml` sets `LIBTORCH` for every `cargo`
/// call, this one among them, so the default path there counts as unset.
pub(crate) fn chosen(paths: &Paths) -> Chosen {
    let named = std::env::var_os("LIBTORCH").filter(|value| !value.is_empty()).map(PathBuf::from);
    let pytorch = std::env::var_os("LIBTORCH_USE_PYTORCH").is_some();
    choose(named, pytorch, &paths.workspace.join(".rondo").join("libtorch"), paths.libtorch())
}

fn choose(named: Option<PathBuf>, pytorch: bool, default: &Path, ours: PathBuf) -> Chosen {
    match named {
        Some(path) if path != default => Chosen::Named(path),
        _ if pytorch => Chosen::Pytorch,
        _ => Chosen::Ours(ours),
    }
}

/// Makes `.rondo/libtorch` unless it is there or the environment names another.
pub(crate) fn setup(paths: &Paths) -> Result<()> {
    let target = match chosen(paths) {
        Chosen::Named(path) => {
            if !path.join("lib").is_dir() || !path.join("include").is_dir() {
                bail!("LIBTORCH is {}, which has no `lib` and `include`\nfix: {DEFAULT_HINT}", path.display());
            }
            println!("libtorch: {} (LIBTORCH)", path.display());
            return Ok(());
        }
        Chosen::Pytorch => {
            println!("libtorch: that of the installed PyTorch (LIBTORCH_USE_PYTORCH)");
            return Ok(());
        }
        Chosen::Ours(path) => path,
    };
    if !RECIPE.is_done(&target) {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!("setup can fetch libtorch for Linux on x86_64 only\nfix: {DEFAULT_HINT}");
        }
        println!("libtorch: making {}", paths.show(&target));
        let pip = Pip::find()?;
        RECIPE.make(&target, |downloads, new| {
            fs::create_dir_all(new.join("lib"))?;
            let torch = pip.fetch(&TORCH, downloads)?;
            println!("  unpacking the CPU part");
            unpack_torch(&torch, new)?;
            // The disk may be small; what was unpacked is not needed twice.
            fs::remove_file(&torch)?;
            take(&pip.fetch(&CUPTI, downloads)?, "nvidia/cu13/lib/libcupti.so.13", &new.join("lib/libcupti.so.13"))?;
            take(&pip.fetch(&CUDART, downloads)?, "nvidia/cu13/lib/libcudart.so.13", &new.join("lib/libcudart.so.13"))
        })?;
    }
    println!("libtorch: {}", paths.show(&target));
    Ok(())
}

/// Headers and CPU libraries, in the layout that torch-sys looks for.
fn unpack_torch(wheel: &Path, new: &Path) -> Result<()> {
    let mut archive = open(wheel)?;
    let headers: Vec<String> =
        archive.file_names().filter(|name| name.starts_with("torch/include/")).map(str::to_owned).collect();
    for name in headers {
        let entry = archive.by_name(&name)?;
        // `enclosed_name` refuses paths that would leave the folder.
        let path = entry.enclosed_name().with_context(|| format!("{}: bad path {name}", wheel.display()))?;
        if entry.is_file() {
            let relative = path.strip_prefix("torch").context("headers lie under torch/")?;
            write(entry, &new.join(relative))?;
        }
    }
    for library in ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"] {
        copy(&mut archive, wheel, &format!("torch/lib/{library}"), &new.join("lib").join(library))?;
    }
    // The linker is asked for `-ltorch`; in the full package
    // that is a shell around the CPU and CUDA parts.
    #[cfg(unix)]
    std::os::unix::fs::symlink("libtorch_cpu.so", new.join("lib").join("libtorch.so"))?;
    Ok(())
}

fn open(wheel: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    ZipArchive::new(file).with_context(|| format!("{} is not a wheel", wheel.display()))
}

/// One file of a wheel.
pub(crate) fn take(wheel: &Path, name: &str, to: &Path) -> Result<()> {
    copy(&mut open(wheel)?, wheel, name, to)
}

fn copy(archive: &mut ZipArchive<File>, wheel: &Path, name: &str, to: &Path) -> Result<()> {
    let entry = archive.by_name(name).with_context(|| format!("{} holds no {name}", wheel.display()))?;
    write(entry, to)
}

fn write(mut from: impl std::io::Read, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = BufWriter::new(File::create(to).with_context(|| format!("cannot write {}", to.display()))?);
    std::io::copy(&mut from, &mut file).with_context(|| format!("cannot write {}", to.display()))?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_names_wins() {
        let default = Path::new("/w/.rondo/libtorch");
        let ours = PathBuf::from("/w/.rondo/libtorch");
        assert_eq!(choose(None, false, default, ours.clone()), Chosen::Ours(ours.clone()));
        assert_eq!(choose(Some(default.into()), false, default, ours.clone()), Chosen::Ours(ours.clone()));
        assert_eq!(choose(Some(default.into()), true, default, ours.clone()), Chosen::Pytorch);
        assert_eq!(choose(Some("/opt/torch".into()), false, default, ours), Chosen::Named("/opt/torch".into()));
    }
}
