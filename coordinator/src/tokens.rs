//! One-time join tokens. Only a hash is kept; the token itself is shown once.

use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::store::{Batch, Store, StoreError, record};
use crate::tls::{Role, hex};

const PREFIX: &str = "token/";
/// Says what the text is, to people and to scanners for leaked secrets.
const TOKEN_PREFIX: &str = "rondo-join-";
const SECRET_BYTES: usize = 32;
const ID_HEX: usize = 12;
/// How long a token that opens nothing any more is still listed: a day.
const KEPT_MS: Millis = 86_400_000;

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Short name for lists; the start of the hash.
    pub id: String,
    /// BLAKE3 of the token's text, hex.
    pub hash: String,
    /// The name that joins with it; empty leaves the choice to who joins.
    pub name: String,
    /// The role of who joins.
    pub role: Role,
    /// Afterwards it is refused.
    pub expires_at_ms: Millis,
    /// Who joins must be approved by an operator.
    pub needs_approval: bool,
    /// It gives the enrolled holder of the name a new certificate; nobody else joins with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renews: bool,
    /// Who joined with it; empty while it is unused.
    pub used_by: String,
    /// BLAKE3 of the public key that joined with it, hex. The same key may ask again, for its answer
    /// may have been lost.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub used_key: String,
    /// Fingerprint of the certificate that it gave; empty while it is unused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issued: String,
    /// When somebody joined with it; 0 while it is unused.
    #[serde(default)]
    pub used_at_ms: Millis,
}

/// Why nobody can join with a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nobody made such a token, or it was revoked.
    #[error("the join token is not known")]
    Unknown,
    /// It was used before.
    #[error("join token {id} was already used")]
    Used {
        /// Which one.
        id: String,
    },
    /// It is too old.
    #[error("join token {id} has expired")]
    Expired {
        /// Which one.
        id: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a new token is for.
#[derive(Debug, Clone)]
pub struct TokenPurpose {
    /// The name that joins with it; empty leaves the choice to who joins.
    pub name: String,
    /// The role of who joins.
    pub role: Role,
    /// Afterwards it is refused.
    pub expires_at_ms: Millis,
    /// Who joins must be approved by an operator.
    pub needs_approval: bool,
    /// It gives the enrolled holder of the name a new certificate; nobody else joins with it.
    pub renews: bool,
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn hash(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

impl TokenRecord {
    /// Makes a token; returns the record to keep and the text to show.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn mint(purpose: TokenPurpose) -> Result<(Self, String), TokenError> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(TokenError::Random)?;
        let token = format!("{TOKEN_PREFIX}{}", hex(&secret));
        let hash = hash(&token).to_hex().to_string();
        let TokenPurpose { name, role, expires_at_ms, needs_approval, renews } = purpose;
        let record = Self {
            id: hash[..ID_HEX].to_owned(),
            hash,
            name,
            role,
            expires_at_ms,
            needs_approval,
            renews,
            used_by: String::new(),
            used_key: String::new(),
            issued: String::new(),
            used_at_ms: 0,
        };
        Ok((record, token))
    }

    /// Finds the token with this text, if it may still be used by who has this public key.
    ///
    /// # Errors
    /// The token is unknown, used or expired, or the store cannot be read.
    pub fn find(store: &dyn Store, token: &str, public_key: &[u8], now: Millis) -> Result<Self, TokenError> {
        let presented = hash(token.trim());
        let key = key(&presented.to_hex()[..ID_HEX]);
        let bytes = store.get(&key)?.ok_or(TokenError::Unknown)?;
        let found: Self = record::decode(&key, &bytes)?;
        // blake3 compares hashes in constant time.
        if blake3::Hash::from_hex(&found.hash).ok() != Some(presented) {
            return Err(TokenError::Unknown);
        }
        if !found.used_by.is_empty() && found.used_key != key_hash(public_key) {
            return Err(TokenError::Used { id: found.id });
        }
        if now >= found.expires_at_ms {
            return Err(TokenError::Expired { id: found.id });
        }
        Ok(found)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn put(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let key = key(&self.id);
        let bytes = record::encode(&key, self)?;
        batch.put(key, bytes);
        Ok(())
    }

    /// All tokens, sorted by id.
    ///
    /// # Errors
    /// The store cannot be read, or a record is damaged or of another version.
    pub fn all(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        store.scan(PREFIX)?.iter().map(|(key, bytes)| record::decode(key, bytes)).collect()
    }

    /// Removes a token; `None` when there is none with this id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn remove(store: &dyn Store, id: &str) -> Result<Option<Batch>, StoreError> {
        let key = key(id);
        Ok(store.get(&key)?.map(|_| {
            let mut batch = Batch::new();
            batch.delete(key);
            batch
        }))
    }

    /// Removes the tokens that were used, or expired, a day ago or earlier; an empty batch when
    /// there are none.
    ///
    /// # Errors
    /// The store cannot be read, or a record is damaged or of another version.
    pub fn prune(store: &dyn Store, now: Millis) -> Result<Batch, StoreError> {
        let mut batch = Batch::new();
        for token in Self::all(store)? {
            let ended = if token.used_at_ms > 0 { token.used_at_ms } else { token.expires_at_ms };
            if now >= ended.saturating_add(KEPT_MS) {
                batch.delete(key(&token.id));
            }
        }
        Ok(batch)
    }

    /// As operators see it.
    pub fn info(&self) -> v1::TokenInfo {
        v1::TokenInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role.to_string(),
            expires_at_ms: self.expires_at_ms,
            used: !self.used_by.is_empty(),
            needs_approval: self.needs_approval,
            used_by: self.used_by.clone(),
            renews: self.renews,
        }
    }

    /// Marks it as used by a member with this public key, for a certificate of this fingerprint.
    pub fn use_up(&mut self, name: &str, public_key: &[u8], fingerprint: &str, now: Millis) {
        name.clone_into(&mut self.used_by);
        fingerprint.clone_into(&mut self.issued);
        self.used_key = key_hash(public_key);
        self.used_at_ms = now;
    }
}

fn key_hash(public_key: &[u8]) -> String {
    blake3::hash(public_key).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mem::MemStore;

    fn minted(store: &MemStore) -> (TokenRecord, String) {
        let purpose = TokenPurpose {
            name: "movies".into(),
            role: Role::Client,
            expires_at_ms: 1000,
            needs_approval: false,
            renews: false,
        };
        let (record, token) = TokenRecord::mint(purpose).unwrap();
        let mut batch = Batch::new();
        record.put(&mut batch).unwrap();
        store.commit(&batch).unwrap();
        (record, token)
    }

    #[test]
    fn a_token_is_found_once_and_in_time() {
        let store = MemStore::new();
        let (record, token) = minted(&store);
        let find = |token: &str, key: &[u8], now| TokenRecord::find(&store, token, key, now);
        assert_eq!(find(&format!(" {token}\n"), b"key", 999).unwrap(), record);
        assert!(matches!(find(&token, b"key", 1000), Err(TokenError::Expired { .. })));
        let mut batch = Batch::new();
        let mut used = record;
        used.use_up("movies", b"key", "f1", 5);
        used.put(&mut batch).unwrap();
        store.commit(&batch).unwrap();
        assert!(matches!(find(&token, b"other", 999), Err(TokenError::Used { .. })));
        assert_eq!(find(&token, b"key", 999).unwrap(), used, "the answer to the same key may be lost");
    }

    #[test]
    fn a_day_after_its_end_a_token_is_forgotten() {
        let store = MemStore::new();
        let (unused, _) = minted(&store);
        let (used, _) = minted(&store);
        let mut batch = Batch::new();
        TokenRecord { used_by: "movies".into(), used_at_ms: 500, ..used.clone() }.put(&mut batch).unwrap();
        store.commit(&batch).unwrap();
        let ids = |store: &MemStore| TokenRecord::all(store).unwrap().into_iter().map(|t| t.id).collect::<Vec<_>>();
        assert!(TokenRecord::prune(&store, 500 + KEPT_MS - 1).unwrap().is_empty());
        store.commit(&TokenRecord::prune(&store, 500 + KEPT_MS).unwrap()).unwrap();
        assert_eq!(ids(&store), [unused.id]);
        store.commit(&TokenRecord::prune(&store, 1000 + KEPT_MS).unwrap()).unwrap();
        assert!(ids(&store).is_empty());
    }

    #[test]
    fn the_token_itself_is_not_kept_and_others_do_not_fit() {
        let store = MemStore::new();
        let (record, token) = minted(&store);
        let kept: Vec<u8> = store.load().unwrap().into_values().flatten().collect();
        let secret = token.strip_prefix(TOKEN_PREFIX).unwrap();
        assert!(!String::from_utf8(kept).unwrap().contains(secret));
        assert!(matches!(TokenRecord::find(&store, &record.hash, b"", 0), Err(TokenError::Unknown)));
        assert!(matches!(TokenRecord::find(&store, "", b"", 0), Err(TokenError::Unknown)));
        assert_ne!(minted(&store).1, token);
    }
}
