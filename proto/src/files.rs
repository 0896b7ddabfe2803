//! Replacing a file durably, and telling a full disk from other errors.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Who may read a file that [`replace`] writes. Only Unix knows the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// The owner alone: mode 0600 from the first byte on.
    Owner,
    /// Everybody the umask allows; the owner alone may write: mode 0644 less the umask.
    Everyone,
}

/// Replaces a file as a whole. It holds its old bytes or the new ones, never a part of either, and
/// the new ones survive a power cut once this has returned.
///
/// The bytes go to `<name>.new` in the same folder. That file is flushed and renamed over `path`,
/// then the folder is flushed. A `<name>.new` that an earlier crash left is removed first. One
/// writer of a path at a time is the caller's to see to.
///
/// # Errors
/// The system's error. The old file stands, and no temporary file stays, unless the error came
/// from the flush of the folder: then the new file is there and a power cut may undo it.
pub fn replace(path: &Path, bytes: &[u8], access: FileAccess) -> io::Result<()> {
    replace_by(path, bytes, access, |from, to| fs::rename(from, to))
}

/// [`replace`] with a rename that a test can let fail.
fn replace_by(
    path: &Path,
    bytes: &[u8],
    access: FileAccess,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_path(path)?;
    remove_if_there(&temporary)?;
    let renamed = write_new(&temporary, bytes, access).and_then(|()| rename(&temporary, path));
    if let Err(error) = renamed {
        // The first error is the one to report. A file that stays is removed by the next call.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::InvalidFilename))?;
    let mut name = name.to_owned();
    name.push(".new");
    Ok(path.with_file_name(name))
}

/// Creates a file that is not there, so that its mode is the one asked for, and flushes it.
fn write_new(path: &Path, bytes: &[u8], access: FileAccess) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        let mode = match access {
            FileAccess::Owner => 0o600,
            FileAccess::Everyone => 0o644,
        };
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    #[cfg(not(unix))]
    let _ = access;
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the entries of a folder durable, for example after a rename in it.
///
/// # Errors
/// The folder cannot be opened or flushed. Only Unix lets a folder be opened; elsewhere this does
/// nothing, and a rename is as durable as the system makes it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    // The parent of a bare file name is the empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Whether an error, or an error that caused it, means that there is no room left: a full disk, a
/// quota or a limit on the size of a file.
pub fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| {
            matches!(error.kind(), FileTooLarge | StorageFull | QuotaExceeded)
                // The error inside an `io::Error` is no source of it.
                || error.get_ref().is_some_and(|inner| is_full(inner))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_then_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for text in ["a long first text", "short"] {
            replace(&path, text.as_bytes(), FileAccess::Everyone).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn a_rename_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"old", FileAccess::Everyone).unwrap();
        let refused = replace_by(&path, b"new", FileAccess::Everyone, |temporary, to| {
            assert_eq!(fs::read(temporary).unwrap(), b"new", "written before the rename");
            assert_eq!(to, path);
            Err(ErrorKind::StorageFull.into())
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["state.json"]);

        // The system's own refusal: a file cannot take the place of a folder.
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), b"x").unwrap();
        replace(&folder, b"new", FileAccess::Everyone).unwrap_err();
        assert_eq!(
            (names(dir.path()), names(&folder)),
            (vec!["folder".into(), "state.json".into()], vec!["inside".into()])
        );
        replace(&dir.path().join("missing").join("state.json"), b"x", FileAccess::Owner).unwrap_err();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_the_owner_is_private_whatever_was_there_before() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // What a crash left, and an old file, that everybody may read.
        for open in [dir.path().join("key.pem.new"), path.clone()] {
            fs::write(&open, b"old").unwrap();
            fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
        }
        replace_by(&path, b"new", FileAccess::Owner, |temporary, to| {
            assert_eq!(mode(temporary), 0o600);
            fs::rename(temporary, to)
        })
        .unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        replace(&path, b"certificate", FileAccess::Everyone).unwrap();
        assert_eq!(mode(&path) & 0o133, 0, "nobody but the owner may write");
    }

    #[test]
    fn the_folder_of_a_bare_file_name_can_be_flushed() {
        sync_folder(Path::new("name").parent().unwrap()).unwrap();
        assert!(temporary_path(Path::new("/")).is_err());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_known_through_chains_of_errors() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            assert!(is_full(&io::Error::from(kind)), "{kind}");
            assert!(is_full(&Outer(kind.into())), "{kind}");
            assert!(is_full(&io::Error::other(Outer(kind.into()))), "{kind}");
            assert!(is_full(&Outer(io::Error::other(io::Error::other(Outer(kind.into()))))), "{kind}");
        }
        for kind in [ErrorKind::PermissionDenied, ErrorKind::NotFound] {
            assert!(!is_full(&io::Error::other(Outer(kind.into()))), "{kind}");
        }
        assert!(!is_full(&io::Error::other("no space left on device")), "a text is no kind");
    }
}
