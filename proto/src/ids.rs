//! Typed ids. A run id and a client name are never mistaken for one another, nor for free text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} {text:?} is not valid: use 1 to 64 lower-case letters, digits, '-' or '_', starting with a letter or digit"
)]
pub struct InvalidId {
    /// What the text was meant to name.
    pub kind: &'static str,
    /// The text.
    pub text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let mut chars = text.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let goes_on = chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if starts_well && goes_on && text.len() <= 64 { Ok(()) } else { Err(InvalidId { kind, text: text.to_owned() }) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps the text.
            ///
            /// # Errors
            /// The text is not 1 to 64 lower-case letters, digits, `-` and `_`, or it begins with
            /// `-` or `_`.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// One federated fine-tuning job.
    RunId,
    "run id"
);
id!(
    /// One enrolled data owner, named by its certificate.
    ClientId,
    "client name"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_says_what_the_text_was_meant_to_name() {
        let error = ClientId::new("Bank A").unwrap_err().to_string();
        assert!(error.starts_with("client name \"Bank A\" is not valid"), "{error}");
        assert!(RunId::new("../etc").unwrap_err().to_string().starts_with("run id"));
        assert!(serde_json::from_str::<RunId>("\"no/slash\"").is_err());
    }

    proptest! {
        #[test]
        fn good_ids_survive_writing_and_reading(text in "[a-z0-9][a-z0-9_-]{0,63}") {
            let id = RunId::new(text.as_str()).unwrap();
            prop_assert_eq!(id.as_str(), text.as_str());
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<RunId>(&json).unwrap(), id);
        }

        #[test]
        fn an_id_is_always_fit_for_a_file_name(text in "\\PC{0,70}") {
            if let Ok(id) = ClientId::new(text) {
                prop_assert!(!id.as_str().contains(['/', '\\', '.', ' ']) && (1..=64).contains(&id.as_str().len()));
            }
        }
    }
}
