//! How files travel: in chunks whose whole gRPC message stays within 1 MiB, resumable at any
//! offset, checked by digest.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use rondo_proto::digest::{Digest, Hasher};
use rondo_proto::v1::{
    Chunk, InitialHeader, InitialMessage, UploadHeader, UploadMessage, initial_message, upload_message,
};
use tokio_stream::Stream;

/// Largest gRPC message of a transfer, frame included.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// Bytes of data in one chunk; the rest of the message is field tags, lengths and the gRPC frame.
pub const CHUNK_BYTES: usize = MESSAGE_BYTES - 64;
/// The frame before every gRPC message: one byte of flags, four of length.
pub const FRAME_BYTES: u64 = 5;
/// Chunks read ahead of the network.
const READ_AHEAD: usize = 2;

/// What a message costs on the wire as gRPC counts it: its encoding and its frame, without HTTP/2
/// and TLS.
pub fn wire_bytes(message: &impl Message) -> u64 {
    message.encoded_len() as u64 + FRAME_BYTES
}

/// The rest of a file from an offset, cut into pieces of `CHUNK_BYTES`, read one at a time.
#[derive(Debug)]
pub struct Pieces {
    file: File,
    left: u64,
    total: u64,
}

/// Opens a file at an offset in bytes.
///
/// # Errors
/// The file cannot be read; of kind `InvalidInput`, an offset beyond its end.
pub fn pieces(path: &Path, offset: u64) -> io::Result<Pieces> {
    let mut file = File::open(path)?;
    let total = file.metadata()?.len();
    let Some(left) = total.checked_sub(offset) else {
        let problem = format!("offset {offset} lies beyond the {total} bytes there are");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    };
    file.seek(SeekFrom::Start(offset))?;
    Ok(Pieces { file, left, total })
}

impl Pieces {
    /// Size of the whole file in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        let size = self.left.min(CHUNK_BYTES as u64);
        let mut piece = vec![0; size as usize];
        // A file that shrank or cannot be read ends the transfer with one error, not with endless
        // ones.
        self.left = match self.file.read_exact(&mut piece) {
            Ok(()) => self.left - size,
            Err(error) => {
                self.left = 0;
                return Some(Err(error));
            }
        };
        Some(Ok(piece.into()))
    }
}

/// The chunks of a download from an offset in bytes. There is always a first one, and it carries
/// the blob's size.
///
/// # Errors
/// As of [`pieces`].
pub fn chunks(path: &Path, offset: u64) -> io::Result<impl Iterator<Item = io::Result<Chunk>> + Send + use<>> {
    let mut pieces = pieces(path, offset)?;
    let total_bytes = pieces.total();
    let first = pieces.next().unwrap_or_else(|| Ok(Bytes::new()));
    let first = first.map(|data| Chunk { data, total_bytes });
    Ok(std::iter::once(first).chain(pieces.map(|piece| piece.map(|data| Chunk { data, total_bytes: 0 }))))
}

/// The messages of an upload: the header, then the file from the header's offset.
///
/// # Errors
/// As of [`pieces`].
pub fn upload_messages(
    header: UploadHeader,
    path: &Path,
) -> io::Result<impl Iterator<Item = io::Result<UploadMessage>> + Send + use<>> {
    let pieces = pieces(path, header.offset)?;
    let first = UploadMessage { part: Some(upload_message::Part::Header(header)) };
    let data = pieces.map(|piece| piece.map(|data| UploadMessage { part: Some(upload_message::Part::Data(data)) }));
    Ok(std::iter::once(Ok(first)).chain(data))
}

/// The messages that bring an adapter that a run starts from: the header, then the whole file.
///
/// # Errors
/// As of [`pieces`].
pub fn start_adapter_messages(
    header: InitialHeader,
    path: &Path,
) -> io::Result<impl Iterator<Item = io::Result<InitialMessage>> + Send + use<>> {
    let pieces = pieces(path, 0)?;
    let first = InitialMessage { part: Some(initial_message::Part::Header(header)) };
    let data = pieces.map(|piece| piece.map(|data| InitialMessage { part: Some(initial_message::Part::Data(data)) }));
    Ok(std::iter::once(Ok(first)).chain(data))
}

/// Reads on a thread for blocking work and hands on as a stream, a few chunks ahead of the network.
/// Must be called within a tokio runtime.
pub fn stream<T: Send + 'static>(
    items: impl Iterator<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send + Unpin {
    let (sender, receiver) = tokio::sync::mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for item in items {
            // The receiver is gone when the transfer was cancelled.
            if sender.blocking_send(item).is_err() {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// Why a received blob was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The disk refuses, or is full.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More or fewer bytes came than were announced.
    #[error("{digest} has {got} bytes, {expected} were announced")]
    Size {
        /// The blob.
        digest: Digest,
        /// Announced size.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The bytes are not the ones that were asked for.
    #[error("the bytes received for {expected} have digest {got}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        got: Digest,
    },
}

/// A blob on its way in: bytes are appended to `<path>.part` and hashed; only a blob that is whole
/// and has the right digest gets its name. What an interrupted transfer left is kept and the next
/// one continues there.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    part: PathBuf,
    file: File,
    hasher: Hasher,
    digest: Digest,
    stored: u64,
    total: Option<u64>,
}

impl Receiver {
    /// Opens the part file of a blob and hashes what it already holds.
    ///
    /// # Errors
    /// The part file cannot be opened or read.
    pub fn open(path: &Path, digest: Digest) -> Result<Self, ReceiveError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let io_error = |source| ReceiveError::Io { path: part.clone(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&part).map_err(io_error)?;
        let mut hasher = Hasher::default();
        let stored = io::copy(&mut file, &mut hasher).map_err(io_error)?;
        Ok(Self { path: path.to_owned(), part, file, hasher, digest, stored, total: None })
    }

    /// Bytes held so far: the offset to ask for.
    pub fn offset(&self) -> u64 {
        self.stored
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// More bytes came than were announced, or the disk refuses.
    pub fn absorb(&mut self, chunk: &Chunk) -> Result<(), ReceiveError> {
        if chunk.total_bytes > 0 {
            self.total = Some(chunk.total_bytes);
        }
        let got = self.stored + chunk.data.len() as u64;
        if let Some(expected) = self.total.filter(|total| got > *total) {
            self.discard();
            return Err(ReceiveError::Size { digest: self.digest, expected, got });
        }
        self.file.write_all(&chunk.data).map_err(|source| ReceiveError::Io { path: self.part.clone(), source })?;
        self.hasher.update(&chunk.data);
        self.stored = got;
        Ok(())
    }

    /// Checks size and digest, flushes to disk and gives the file its name.
    ///
    /// # Errors
    /// A blob with a wrong digest is deleted; one that is too short is kept for the next attempt.
    /// The disk refuses.
    pub fn finish(mut self) -> Result<PathBuf, ReceiveError> {
        if let Some(expected) = self.total.filter(|total| self.stored < *total) {
            return Err(ReceiveError::Size { digest: self.digest, expected, got: self.stored });
        }
        let got = self.hasher.digest();
        if got != self.digest {
            self.discard();
            return Err(ReceiveError::Digest { expected: self.digest, got });
        }
        let io_error = |source| ReceiveError::Io { path: self.path.clone(), source };
        self.file.sync_all().map_err(io_error)?;
        std::fs::rename(&self.part, &self.path).map_err(io_error)?;
        Ok(self.path)
    }

    /// Forgets what was received. A part file that cannot be removed is emptied by the next
    /// attempt's wrong digest.
    fn discard(&mut self) {
        let _ = self.file.set_len(0);
        let _ = std::fs::remove_file(&self.part);
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
