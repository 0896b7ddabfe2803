//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rondo_methods::Registry;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, DEFAULT_LISTEN, LogFormat};
use crate::data_dir::DataDir;
use crate::init::{InitRequest, Initialised, init};
use crate::logging::{self, LoggingError};
use crate::operator;
use crate::serve::{ServeError, serve};
use crate::setup::SetupError;

/// Time that work on other threads gets after everything has been flushed.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// The coordinator of federated fine-tuning runs.
#[derive(Debug, Parser)]
#[command(
    name = "rondo-coordinator",
    version,
    after_help = "Example:\n  \
    rondo-coordinator init --data-dir /var/lib/rondo --host coordinator.example\n  \
    rondo-coordinator serve --data-dir /var/lib/rondo --listen 0.0.0.0:7461"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(InitArgs),
    Serve(ServeArgs),
    Operator(OperatorArgs),
}

/// Make the CA, the server certificate and the first operator's identity, and print how to join.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    rondo-coordinator init --data-dir /var/lib/rondo --host coordinator.example --token movies --token news")]
struct InitArgs {
    /// Directory that holds all of the coordinator's state.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Host name or address under which others reach the coordinator; may be repeated, the first
    /// one makes the URL.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The address that will be served; its port makes the URL.
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Make a one-time join token for a client of this name; may be repeated.
    #[arg(long = "token", value_name = "NAME")]
    tokens: Vec<String>,
    /// Also write each token to DIR/NAME.token, the CA fingerprint to DIR/ca-fingerprint and the
    /// URL to DIR/url.
    #[arg(long, value_name = "DIR")]
    token_dir: Option<PathBuf>,
    /// Configuration file; its lives of tokens and certificates are used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Succeed without doing anything when the directory is initialised already.
    #[arg(long)]
    if_missing: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Serve clients and operators until SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rondo-coordinator serve --data-dir /var/lib/rondo --listen 0.0.0.0:7461")]
struct ServeArgs {
    /// Directory that `init` made.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address and port; port 0 takes a free one, DIR/address says which [default: the
    /// configuration's, else 127.0.0.1:7461]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the log lines.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Make an operator's identity on the coordinator's machine, for when no operator can call any
/// more.
#[derive(Debug, Args)]
#[command(after_help = "The coordinator must not be running.\n\nExample:\n  \
    rondo-coordinator operator --data-dir /var/lib/rondo --name operator --out /var/lib/rondo/operator")]
struct OperatorArgs {
    /// Directory that `init` made.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the operator: a new one, or one whose certificate has expired or was revoked.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Folder for the identity; an identity of the same name there is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Configuration file; its life of certificates is used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// `init` or `operator`.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// `serve`.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The system refused threads, signals or output.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The result cannot be written as JSON.
    #[error("cannot write the result as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// What to do about it, where the message does not say so itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setup(SetupError::Identity(error)) | Self::Serve(ServeError::Identity(error)) => error.hint(),
            Self::Config(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Some("name the file with --config, or leave --config out: every setting has a default".to_owned())
            }
            _ => None,
        }
    }
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> CliError {
    move |source| CliError::System { action, source }
}

/// Runs a command.
///
/// # Errors
/// The configuration or the data directory cannot be used, the system refuses threads, signals or
/// output, or the coordinator ends by itself.
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Init(args) => run_init(args),
        Command::Serve(args) => run_serve(args),
        Command::Operator(args) => run_operator(args),
    }
}

fn read_config(path: Option<&PathBuf>) -> Result<Config, CliError> {
    Ok(path.map(|path| Config::read(path)).transpose()?.unwrap_or_default())
}

fn run_init(args: InitArgs) -> Result<(), CliError> {
    let config = read_config(args.config.as_ref())?;
    let data = DataDir::new(args.data_dir);
    if args.if_missing && data.is_initialised() {
        return Ok(());
    }
    let InitArgs { hosts, tokens, token_dir, listen, json, config: config_file, .. } = args;
    let usual = Config::default().listen;
    let mut serve = format!("rondo-coordinator serve --data-dir {}", data.root().display());
    // What was said to `init` has to be said to `serve` too: nothing of it is kept in the data
    // directory.
    if let Some(file) = config_file {
        serve.push_str(&format!(" --config {}", file.display()));
    }
    if listen != usual || config.listen != usual {
        serve.push_str(&format!(" --listen {listen}"));
    }
    let made = init(&data, &InitRequest { hosts, port: listen.port(), tokens, token_dir, config }, &SystemClock)?;
    let text = if json { serde_json::to_string(&made)? } else { instructions(&data, &made, &serve) };
    writeln!(std::io::stdout(), "{text}").map_err(system("print"))
}

fn run_operator(args: OperatorArgs) -> Result<(), CliError> {
    let config = read_config(args.config.as_ref())?;
    let data = DataDir::new(args.data_dir);
    let made = operator::reissue(&data, &args.name, &args.out, config.client_certificate_days, &SystemClock)?;
    let text = format!(
        "operator `{}` can call {} until its certificate expires\n\n  rondo --identity {} run list",
        made.name,
        made.url,
        args.out.display()
    );
    writeln!(std::io::stdout(), "{text}").map_err(system("print"))
}

fn instructions(data: &DataDir, made: &Initialised, serve: &str) -> String {
    let Initialised { ca_fingerprint, url, operator_dir, tokens } = made;
    let mut text = format!(
        "initialised {}\n\nCA fingerprint  {ca_fingerprint}\nURL             {url}\noperator        {}\n\n\
         start the coordinator:\n  {serve}\n\n",
        data.root().display(),
        operator_dir.display()
    );
    if tokens.is_empty() {
        text.push_str(&format!(
            "make a join token for a client:\n  rondo --identity {} token create --name NAME\n\nthe client joins with:\n",
            operator_dir.display()
        ));
        text.push_str(&format!(
            "  rondo-client join {url} --token TOKEN --ca-fingerprint {ca_fingerprint} --dir DIR\n"
        ));
    } else {
        text.push_str("each client joins with its own token, once:\n");
        for made in tokens {
            text.push_str(&format!(
                "  rondo-client join {url} --token {} --ca-fingerprint {ca_fingerprint} --dir {}\n",
                made.token, made.name
            ));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn run_serve(args: ServeArgs) -> Result<(), CliError> {
    let mut config = read_config(args.config.as_ref())?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.log.format = args.log_format.unwrap_or(config.log.format);
    logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system("start threads"))?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for signals"))?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let data = DataDir::new(args.data_dir);
        serve(&data, config, Registry::builtin(), Arc::new(SystemClock), |_| {}, shutdown).await?;
        Ok(())
    });
    // Everything is flushed; an aggregation under way is done again at the next start.
    runtime.shutdown_timeout(LAST_MOMENT);
    outcome
}
