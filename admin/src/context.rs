//! What every command has at hand: the identity, the way to the coordinator, and the output.

use std::path::{Path, PathBuf};

use rondo_wire::identity::{self, Identity};
use rondo_wire::stubs::administration_client::AdministrationClient;
use tonic::transport::Channel;

use crate::error::CliError;
use crate::output::Output;
use crate::renewal;

/// The coordinator's administration service.
pub type Administration = AdministrationClient<Channel>;

/// Largest answer that is taken: the rounds of a long run with many clients are some megabytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The surroundings of a command.
pub struct Context {
    identity: Option<PathBuf>,
    channel: Option<Channel>,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// With the identity folder that was named on the command line, if any.
    pub fn new(identity: Option<PathBuf>, output: Output) -> Self {
        Self { identity, channel: None, output }
    }

    /// With a channel that is already there.
    pub fn with_channel(channel: Channel, output: Output) -> Self {
        Self { identity: None, channel: Some(channel), output }
    }

    /// The identity folder: the one named, or the default.
    ///
    /// # Errors
    /// No folder was named, and there is no home folder.
    pub fn identity_dir(&self) -> Result<PathBuf, CliError> {
        let default = || std::env::home_dir().map(|home| home.join(Path::new(".config/rondo")));
        self.identity.clone().or_else(default).ok_or_else(|| {
            CliError::usage("there is no home folder to look for an identity in").hint("name one with --identity")
        })
    }

    /// The operator's identity.
    ///
    /// # Errors
    /// The folder is not known, holds no identity or cannot be read.
    pub fn identity(&self) -> Result<Identity, CliError> {
        Ok(identity::load(&self.identity_dir()?)?)
    }

    /// A client of the coordinator; connects when first
    /// used. The identity is renewed when that is due.
    ///
    /// # Errors
    /// There is no readable identity, or its URL or certificates cannot be used.
    pub async fn administration(&self) -> Result<Administration, CliError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let identity = renewal::keep_fresh(self.identity()?, &self.identity_dir()?).await;
                identity::channel(&identity)?
            }
        };
        Ok(AdministrationClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}
