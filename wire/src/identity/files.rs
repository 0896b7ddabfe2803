//! The identity folder on disk.

use std::io;
use std::path::Path;

use rcgen::KeyPair;
use rondo_proto::files::{self, FileAccess};

use super::{ABOUT, About, CA, CERTIFICATE, Identity, IdentityError, KEY, NEW_KEY};

pub(super) fn load(dir: &Path) -> Result<Identity, IdentityError> {
    let about = about(dir)?;
    Ok(Identity {
        url: about.url,
        name: about.name,
        role: about.role,
        ca_pem: read(dir, CA)?,
        cert_pem: read(dir, CERTIFICATE)?,
        key_pem: read(dir, KEY)?,
    })
}

pub(super) fn save(identity: &Identity, dir: &Path) -> Result<(), IdentityError> {
    create_dir(dir)?;
    write(dir, KEY, &identity.key_pem)?;
    write(dir, CA, &identity.ca_pem)?;
    write(dir, CERTIFICATE, &identity.cert_pem)?;
    let Identity { url, name, role, .. } = identity.clone();
    let path = dir.join(ABOUT);
    let about = toml::to_string(&About { url, name, role })
        .map_err(|error| IdentityError::Damaged { path, problem: error.to_string() })?;
    // Last, because its presence is what makes the folder an identity.
    write(dir, ABOUT, &about)
}

/// Whether the folder holds an identity.
pub(super) fn exists(dir: &Path) -> bool {
    dir.join(ABOUT).exists()
}

/// The key in a file, where there is one that can be used: an attempt before may have left it.
pub(super) fn key(dir: &Path, file: &str) -> Option<KeyPair> {
    KeyPair::from_pem(&std::fs::read_to_string(dir.join(file)).ok()?).ok()
}

/// Who the folder is, and of which coordinator.
pub(super) fn about(dir: &Path) -> Result<About, IdentityError> {
    toml::from_str(&read(dir, ABOUT)?)
        .map_err(|error| IdentityError::Damaged { path: dir.join(ABOUT), problem: error.to_string() })
}

/// Removes a file that may not be there.
pub(super) fn remove(dir: &Path, file: &str) -> Result<(), IdentityError> {
    let path = dir.join(file);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::Io { path, source }),
        _ => Ok(()),
    }
}

/// Makes the folder, for its owner alone where it is new.
pub(super) fn create_dir(dir: &Path) -> Result<(), IdentityError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| IdentityError::Io { path: dir.to_owned(), source })
}

/// Fails where a new file cannot be made.
pub(super) fn check_writable(dir: &Path) -> Result<(), IdentityError> {
    let probe = dir.join("probe.new");
    let io_error = |source| IdentityError::Io { path: probe.clone(), source };
    std::fs::write(&probe, b"").map_err(io_error)?;
    std::fs::remove_file(&probe).map_err(io_error)
}

fn read(dir: &Path, file: &'static str) -> Result<String, IdentityError> {
    let path = dir.join(file);
    std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { dir: dir.to_owned(), file },
        _ => IdentityError::Io { path, source },
    })
}

/// Replaces a file of the folder: a crash leaves the old one or the new one. The key is for its
/// owner alone.
pub(super) fn write(dir: &Path, file: &str, text: &str) -> Result<(), IdentityError> {
    let path = dir.join(file);
    let access = if [KEY, NEW_KEY].contains(&file) { FileAccess::Owner } else { FileAccess::Everyone };
    files::replace(&path, text.as_bytes(), access).map_err(|source| IdentityError::Io { path, source })
}
