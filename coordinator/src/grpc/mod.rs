//! The three services. Each call becomes an engine input or a view; the services decide nothing.
//! Callers are authenticated before a message is read, see [`identity`].

pub mod administration;
pub mod download;
pub mod enrolment;
pub mod federation;
pub mod identity;
pub mod runs;
pub mod tokens;
pub mod watch;

use std::pin::Pin;
use std::sync::Arc;

use rondo_proto::RunId;
use rondo_proto::error::ErrorCode;
use rondo_wire::status::status;
use tokio::sync::watch as channel;
use tokio_stream::Stream;
use tonic::Status;

use crate::clock::{Clock, Millis};
use crate::config::Config;
use crate::driver::Driver;
use crate::start_adapters::StartAdapters;
use crate::store::blobs::Blobs;
use crate::store::{Store, StoreError};
use crate::tls::ca::Authority;
use crate::tls::server::ServerCertResolver;
use crate::upload::Uploads;

/// A stream of replies.
pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the services share.
pub struct Shared {
    /// The engine's driver.
    pub driver: Driver,
    /// Records that are not the engine's: members, tokens, bases.
    pub store: Arc<dyn Store>,
    /// Tensors.
    pub blobs: Arc<Blobs>,
    /// Updates on their way in.
    pub uploads: Uploads,
    /// Adapters that runs are to start from.
    pub start_adapters: StartAdapters,
    /// Signs certificates.
    pub authority: Authority,
    /// Settings.
    pub config: Config,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// When the coordinator started.
    pub started_at_ms: Millis,
    /// The server certificate that is shown now.
    pub certificate: Arc<ServerCertResolver>,
    /// Held while records that are not the engine's are read and then changed: tokens, members,
    /// bases.
    pub writing: tokio::sync::Mutex<()>,
    /// Turns true when the coordinator goes down; open streams end then.
    pub closing: channel::Receiver<bool>,
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        status(ErrorCode::Unavailable, error.to_string(), Some("look at the coordinator's log and its disk"))
    }
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> Status {
    status(ErrorCode::InvalidArgument, error.to_string(), None)
}

pub(crate) fn run_id(text: &str) -> Result<RunId, Status> {
    RunId::new(text).map_err(invalid)
}

pub(crate) fn no_run(run: &RunId) -> Status {
    status(ErrorCode::NotFound, format!("there is no run `{run}`"), Some("`rondo run list` shows those there are"))
}
