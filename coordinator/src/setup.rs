//! Why something could not be set up in a data directory, by `init` or by `operator`: both write
//! the same kinds of files.

use std::path::PathBuf;

use rondo_proto::ids::InvalidId;
use rondo_wire::identity::IdentityError;

use crate::data_dir::DataDirError;
use crate::store::StoreError;
use crate::tls::TlsError;
use crate::tokens::TokenError;

/// Why a directory was not initialised, or no operator's identity was made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It was initialised before.
    #[error(
        "{path} is initialised already; start it with `rondo-coordinator serve --data-dir {path}`, make tokens with \
         `rondo token create`, or choose another directory"
    )]
    Already {
        /// The data directory.
        path: PathBuf,
    },
    /// A host name that no certificate can carry.
    #[error("--host {host:?} is neither a host name nor an address")]
    Host {
        /// What was given.
        host: String,
    },
    /// The coordinator runs.
    #[error(
        "a coordinator serves from {path}; stop it first, or, while another operator can still call, use \
         `rondo operator add`"
    )]
    Serving {
        /// The data directory.
        path: PathBuf,
    },
    /// That operator can call.
    #[error(
        "operator `{name}` has a certificate that counts; if its key is lost, choose another --name and then revoke it \
         with `rondo operator revoke {name}`"
    )]
    Holds {
        /// Its name.
        name: String,
    },
    /// The folder for the identity holds something else.
    #[error("{path} holds the identity of {role} `{name}`; choose another --out")]
    Taken {
        /// The folder.
        path: PathBuf,
        /// Whose identity it is.
        name: String,
        /// Of which role.
        role: String,
    },
    /// A client's or operator's name that is none.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// Files of the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}
