//! `rondo-client run`: the daemon.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rondo_dp::Ledger;
use rondo_methods::Registry;
use rondo_trainer_api::limits::Limits;
use rondo_trainer_api::work::MakeTrainer;
use rondo_wire::identity::{self, IdentityError};
use tokio::signal;

use crate::api::GrpcApi;
use crate::config::{Config, ConfigError};
use crate::daemon::{Daemon, DaemonSetup, StartError};
use crate::disk::LocalDisk;
use crate::home::{Home, HomeError};
use crate::renewal;

/// Runs the daemon until SIGTERM or Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client run --dir ~/rondo
  RONDO_LOG=debug rondo-client run --dir ~/rondo --config /etc/rondo/client.toml

A client.toml:
  [[model]]
  path = \"/srv/models/minilm-l6\"       # config.json, *.safetensors, tokenizer.json; or one .gguf file

  [[dataset]]
  name = \"reviews\"                     # as run files call it
  path = \"reviews.tsv\"                 # relative to client.toml; .jsonl, .json, .csv, .tsv or .parquet
  text = \"text\"
  label = \"label\"
  eval_fraction = 0.1

  [limits]
  max_rank = 64
  device = \"auto\"")]
pub struct RunArgs {
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// The configuration [default: client.toml in that folder]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Begin a new privacy ledger where both of its files are lost; what was spent is forgotten
    #[arg(long)]
    pub new_ledger: bool,
    /// Log as JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// client.toml.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is none.
    #[error("{} is not there; write one (`rondo-client run --help` shows an example) or name it with --config", .file.display())]
    NoConfig {
        /// Where it was looked for.
        file: PathBuf,
    },
    /// The folder holds no identity.
    #[error(
        "{} holds no identity: {file} is missing\nhint: enrol first: rondo-client join https://HOST:PORT --token TOKEN \
         --ca-fingerprint SHA256 --dir {}; an operator makes the token with `rondo token create`, which prints the rest",
        .dir.display(), .dir.display()
    )]
    NotEnrolled {
        /// The folder.
        dir: PathBuf,
        /// The file that is missing.
        file: &'static str,
    },
    /// The identity.
    #[error("{source}{}", .source.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Identity {
        /// What went wrong.
        #[from]
        source: IdentityError,
    },
    /// An operator's identity.
    #[error("{} holds the identity of {role} {name:?}; a client's is needed: enrol one with `rondo-client join`", .dir.display())]
    Role {
        /// The folder.
        dir: PathBuf,
        /// The role it has.
        role: String,
        /// The name it has.
        name: String,
    },
    /// Models, data, records.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be listened to.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// The device of `[limits]`.
    #[error("{0}")]
    Trainer(Box<dyn Error + Send + Sync>),
    /// Built without the feature `torch`.
    #[error("this rondo-client was built without libtorch and cannot train; build it with the feature `torch`")]
    NoTrainer,
}

/// Runs the daemon.
///
/// # Errors
/// The folder is in use, it holds no client's identity, client.toml is missing or wrong, the
/// trainer cannot be made, or the daemon cannot start ([`StartError`]).
pub async fn run(args: &RunArgs) -> Result<(), RunError> {
    let stop = stop_signal().map_err(RunError::Signals)?;
    let home = Home::open(&args.dir)?;
    if args.new_ledger {
        // Makes both files where they are gone, and changes nothing where they are there.
        Ledger::open(&home.ledger()).map_err(StartError::from)?;
    }
    let config = read_config(args)?;
    let identity = identity::load(&args.dir).map_err(|error| match error {
        IdentityError::Missing { dir, file } => RunError::NotEnrolled { dir, file },
        error => error.into(),
    })?;
    if identity.role != "client" {
        let role = identity.role;
        let name = identity.name;
        return Err(RunError::Role { dir: args.dir.clone(), role, name });
    }
    let api = GrpcApi::new(identity::channel(&identity)?, Duration::from_millis(config.poll.timeout_ms));
    let renewing = tokio::spawn(renewal::keep_fresh(identity.clone(), args.dir.clone(), api.clone()));
    let trainer = make_trainer(&config.limits)?;
    let setup = DaemonSetup {
        home,
        config,
        client: identity.name,
        api,
        registry: Registry::builtin(),
        trainer,
        disk: Box::new(LocalDisk),
    };
    // Models are hashed at the first start, which takes a while for large ones.
    let daemon = tokio::task::block_in_place(|| Daemon::new(setup))?;
    daemon.run(stop).await;
    renewing.abort();
    Ok(())
}

fn read_config(args: &RunArgs) -> Result<Config, RunError> {
    let file = args.config.clone().unwrap_or_else(|| args.dir.join("client.toml"));
    if !Path::exists(&file) {
        return Err(RunError::NoConfig { file });
    }
    Ok(Config::read(&file)?)
}

/// Resolves at the first SIGTERM or Ctrl-C. Listening starts here,
/// so that none is missed while the daemon starts.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(feature = "torch")]
fn make_trainer(limits: &Limits) -> Result<MakeTrainer, RunError> {
    rondo_trainer::maker(limits).map_err(|error| RunError::Trainer(Box::new(error)))
}

#[cfg(not(feature = "torch"))]
fn make_trainer(_limits: &Limits) -> Result<MakeTrainer, RunError> {
    Err(RunError::NoTrainer)
}
