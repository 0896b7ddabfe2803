//! Registered base models: descriptions, never weights.

use rondo_proto::{Digest, v1};

use crate::store::{Batch, Store, StoreError, record};

const PREFIX: &str = "base/";
const MAX_NAME_BYTES: usize = 128;

/// Why a base model cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBaseError {
    /// The description lacks something.
    #[error("base model `{name}`: {problem}")]
    Invalid {
        /// Its name.
        name: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The name stands for another model.
    #[error("base model `{name}` is registered with digest {registered}, this one has {got}")]
    OtherDigest {
        /// The name.
        name: String,
        /// Digest on record.
        registered: String,
        /// Digest that came.
        got: String,
    },
    /// The name stands for the same weights with other tokens.
    #[error(
        "base model `{name}` is registered with another tokenizer, chat template or other special tokens (digest \
         {registered}, this one has {got}); register this one under a name of its own"
    )]
    OtherTokens {
        /// The name.
        name: String,
        /// Digest on record.
        registered: String,
        /// Digest that came.
        got: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The base of that name.
///
/// # Errors
/// The store cannot be read, or the record is damaged or of another version.
pub fn find(store: &dyn Store, name: &str) -> Result<Option<v1::BaseModel>, StoreError> {
    let key = key(name);
    store.get(&key)?.map(|bytes| record::decode(&key, &bytes)).transpose()
}

/// All bases, by name.
///
/// # Errors
/// The store cannot be read, or a record is damaged or of another version.
pub fn all(store: &dyn Store) -> Result<Vec<v1::BaseModel>, StoreError> {
    store.scan(PREFIX)?.iter().map(|(key, bytes)| record::decode(key, bytes)).collect()
}

/// Whether the base that is registered lacks the digest of its tokens, and this one has it.
fn is_news(present: &v1::BaseModel, base: &v1::BaseModel) -> Result<bool, RegisterBaseError> {
    match (present.token_digest.as_str(), base.token_digest.as_str()) {
        (_, "") => Ok(false),
        ("", _) => Ok(true),
        (registered, got) if registered == got => Ok(false),
        (registered, got) => Err(RegisterBaseError::OtherTokens {
            name: base.name.clone(),
            registered: registered.to_owned(),
            got: got.to_owned(),
        }),
    }
}

/// The change that registers a base; empty when it is there already, the same.
///
/// # Errors
/// The base is not valid, its name is registered with another digest, or the store cannot be read.
pub fn register(store: &dyn Store, base: &v1::BaseModel) -> Result<Batch, RegisterBaseError> {
    let name = base.name.clone();
    let invalid = |problem: String| Err(RegisterBaseError::Invalid { name: name.clone(), problem });
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(|c| c.is_control() || c == '/') {
        return invalid(format!("a name has 1 to {MAX_NAME_BYTES} bytes and neither '/' nor control characters"));
    }
    if let Err(e) = base.digest.parse::<Digest>() {
        return invalid(e.to_string());
    }
    if !base.token_digest.is_empty()
        && let Err(e) = base.token_digest.parse::<Digest>()
    {
        return invalid(format!("token_digest: {e}"));
    }
    if base.linears.is_empty() {
        return invalid("it lists no linear layer, so nothing could be adapted".to_owned());
    }
    if let Some(layer) = base.linears.iter().find(|l| l.name.is_empty() || l.out_features == 0 || l.in_features == 0) {
        return invalid(format!(
            "linear layer `{}` has shape [{}, {}]",
            layer.name, layer.out_features, layer.in_features
        ));
    }
    let mut batch = Batch::new();
    match find(store, &name)? {
        Some(present) if present.digest == base.digest && !is_news(&present, base)? => {}
        // A base that was registered before tokens had a digest learns its own.
        Some(present) if present.digest == base.digest => {
            let key = key(&name);
            let bytes = record::encode(&key, &v1::BaseModel { token_digest: base.token_digest.clone(), ..present })?;
            batch.put(key, bytes);
        }
        Some(present) => {
            return Err(RegisterBaseError::OtherDigest { name, registered: present.digest, got: base.digest.clone() });
        }
        None => {
            let key = key(&name);
            let bytes = record::encode(&key, base)?;
            batch.put(key, bytes);
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mem::MemStore;

    fn base() -> v1::BaseModel {
        v1::BaseModel {
            name: "minilm-l6".into(),
            digest: Digest::of(b"model").to_string(),
            linears: vec![v1::LinearLayer { name: "query".into(), out_features: 8, in_features: 8 }],
            ..Default::default()
        }
    }

    #[test]
    fn a_base_is_registered_once() {
        let store = MemStore::new();
        store.commit(&register(&store, &base()).unwrap()).unwrap();
        assert_eq!(find(&store, "minilm-l6").unwrap(), Some(base()));
        assert!(register(&store, &base()).unwrap().is_empty());
        let other = v1::BaseModel { digest: Digest::of(b"other").to_string(), ..base() };
        let error = register(&store, &other).unwrap_err().to_string();
        assert!(error.contains(&other.digest) && error.contains(&base().digest), "{error}");
        assert_eq!(all(&store).unwrap().len(), 1);
    }

    #[test]
    fn a_base_of_an_earlier_version_learns_what_makes_its_tokens_and_keeps_it() {
        let store = MemStore::new();
        store.commit(&register(&store, &base()).unwrap()).unwrap();
        let with = |tokens: &[u8]| v1::BaseModel { token_digest: Digest::of(tokens).to_string(), ..base() };
        store.commit(&register(&store, &with(b"tokens")).unwrap()).unwrap();
        assert_eq!(find(&store, "minilm-l6").unwrap(), Some(with(b"tokens")));
        for same in [with(b"tokens"), base()] {
            assert!(register(&store, &same).unwrap().is_empty());
        }
        let error = register(&store, &with(b"others")).unwrap_err();
        assert!(matches!(error, RegisterBaseError::OtherTokens { .. }), "{error}");
        assert!(error.to_string().contains("another tokenizer, chat template"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        let store = MemStore::new();
        let cases = [
            v1::BaseModel { name: String::new(), ..base() },
            v1::BaseModel { name: "a/b".into(), ..base() },
            v1::BaseModel { digest: "sha1:0".into(), ..base() },
            v1::BaseModel { token_digest: "blake3:0".into(), ..base() },
            v1::BaseModel { linears: vec![], ..base() },
            v1::BaseModel { linears: vec![v1::LinearLayer::default()], ..base() },
        ];
        for case in cases {
            assert!(matches!(register(&store, &case), Err(RegisterBaseError::Invalid { .. })), "{case:?}");
        }
    }
}
