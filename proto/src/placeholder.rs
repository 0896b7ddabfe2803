//! Files in whose place something else lies: nothing at all, or what Git keeps where Git LFS has
//! not fetched the content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// How every Git LFS pointer begins, today's and those of its first versions.
const POINTERS: [&[u8]; 2] = [b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"];

/// Bytes that suffice to recognise one.
const BEGINNING: u64 = 64;

/// What lies in place of a file's content. Its text goes on from the file's name, or from "it".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Placeholder {
    /// A file without content.
    #[error("is empty; copy or download the file again")]
    Empty,
    /// A pointer of Git LFS.
    #[error("is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`")]
    LfsPointer,
}

impl Placeholder {
    /// Recognises one by the file's first bytes, 64 of them if it has as many.
    pub fn of(beginning: &[u8]) -> Option<Self> {
        match beginning {
            [] => Some(Self::Empty),
            _ if POINTERS.iter().any(|pointer| beginning.starts_with(pointer)) => Some(Self::LfsPointer),
            _ => None,
        }
    }

    /// Recognises one that lies at a path; reads no more than the beginning.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let mut beginning = Vec::new();
        File::open(path)?.take(BEGINNING).read_to_end(&mut beginning)?;
        Ok(Self::of(&beginning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_nothing_are_recognised_and_content_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let at = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Placeholder::at(&path).unwrap()
        };
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
        assert_eq!(at(pointer), Some(Placeholder::LfsPointer));
        assert_eq!(at(b"version https://hawser.github.com/spec/v1\n"), Some(Placeholder::LfsPointer));
        assert_eq!(at(b""), Some(Placeholder::Empty));
        for content in [&b"version"[..], b"{}", b"GGUF", &[0; 100], b" version https://git-lfs.github.com/spec/v1"] {
            assert_eq!(at(content), None);
        }
        assert!(Placeholder::at(&dir.path().join("none")).is_err());
        assert!(Placeholder::LfsPointer.to_string().contains("git lfs pull"));
    }
}
