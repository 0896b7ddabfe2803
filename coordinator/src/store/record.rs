//! The envelope of every record: `{"v":1,"body":...}`, so that a later version can tell what it
//! reads.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The record format this build writes and reads.
pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct OutgoingEnvelope<'a, T> {
    v: u32,
    body: &'a T,
}

#[derive(Deserialize)]
struct EnvelopeVersion {
    v: u32,
}

#[derive(Deserialize)]
struct IncomingEnvelope<T> {
    body: T,
}

fn problem(key: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Record { key: key.to_owned(), problem: problem.into() }
}

/// The bytes of a record.
///
/// # Errors
/// The body cannot be written as JSON.
pub fn encode<T: Serialize>(key: &str, body: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&OutgoingEnvelope { v: VERSION, body }).map_err(|e| problem(key, e.to_string()))
}

/// The record in some bytes; a record of a newer version is refused, never guessed at.
///
/// # Errors
/// The bytes are not readable as such a record, or they have another version.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let version: EnvelopeVersion =
        serde_json::from_slice(bytes).map_err(|e| problem(key, format!("not readable: {e}")))?;
    if version.v != VERSION {
        return Err(problem(
            key,
            format!("has version {}, this build reads version {VERSION}; start the newer coordinator", version.v),
        ));
    }
    let record: IncomingEnvelope<T> =
        serde_json::from_slice(bytes).map_err(|e| problem(key, format!("not readable: {e}")))?;
    Ok(record.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_newer_one_is_refused() {
        let bytes = encode("k", &vec![1, 2]).unwrap();
        assert_eq!(bytes, br#"{"v":1,"body":[1,2]}"#);
        assert_eq!(decode::<Vec<i32>>("k", &bytes).unwrap(), vec![1, 2]);
        let newer = decode::<Vec<i32>>("k", br#"{"v":2,"body":{}}"#).unwrap_err();
        assert!(newer.to_string().contains("version 2"), "{newer}");
        assert!(decode::<Vec<i32>>("k", b"garbage").is_err());
    }
}
