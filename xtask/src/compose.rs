//! `cargo xtask compose-test`: the stack of docker-compose.yml,
//! built, started, used for two rounds, and removed.
//!
//! The images hold the binaries that were built here, so nothing is compiled in a container; the
//! base image is made by debootstrap for this machine's own release, so no registry is needed and
//! the C library is the right one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::de::DeserializeOwned;

use crate::cargo::{self, Binaries};
use crate::paths::{MODEL, Paths};
use crate::process;
use crate::records::{Clients, Rounds, Shown, Summary};
use crate::setup::{self, ChosenLibtorch, SetupArgs};

/// Tag of the images that the test builds and of the base image that it makes.
const TAG: &str = "compose-test";
/// Clients in docker-compose.yml.
const CLIENTS: usize = 3;
/// How long the two rounds may take.
const RUN: Duration = Duration::from_secs(600);
/// How long the clients may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// `cargo xtask compose-test`
#[derive(Args)]
pub(crate) struct ComposeArgs {
    /// Check that the compose file is well-formed, and nothing else.
    #[arg(long)]
    config_only: bool,
}

/// Runs the test; where no Docker engine answers it says so and does nothing.
pub(crate) fn run(paths: &Paths, args: &ComposeArgs) -> Result<()> {
    let tool = compose_tool()?;
    if args.config_only {
        process::output(compose(paths, &tool).args(["config"]))?;
        println!("docker-compose.yml is well-formed");
        return Ok(());
    }
    if !process::succeeds(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])) {
        println!("skipped: no Docker engine answers");
        return Ok(());
    }
    setup::run(paths, &SetupArgs::default())?;
    let binaries = cargo::binaries(paths)?;
    let base = base_image()?;
    let context = context(paths, &binaries)?;
    let stack = Stack::new(paths, tool, &base, &context);
    cargo::step("images");
    process::run(stack.compose().args(["build"]).stdout(Stdio::null()))?;
    let result = two_rounds(&stack);
    if result.is_err() {
        let _ = process::run(stack.compose().args(["logs", "--no-color", "--tail", "40"]));
    }
    cargo::step("taking the stack down");
    let down = stack.down();
    result.and(down)
}

/// `docker compose` where there is such a plugin, else `docker-compose`.
fn compose_tool() -> Result<Vec<&'static str>> {
    for words in [vec!["docker", "compose"], vec!["docker-compose"]] {
        if process::succeeds(Command::new(words[0]).args(&words[1..]).arg("version")) {
            return Ok(words);
        }
    }
    bail!(
        "neither `docker compose` nor `docker-compose` is there\nfix: install one (Debian: `apt-get install docker-compose`)"
    )
}

fn compose(paths: &Paths, tool: &[&str]) -> Command {
    let mut command = Command::new(tool[0]);
    command.args(&tool[1..]).current_dir(&paths.workspace);
    command
}

/// Makes a base image of this machine's own Debian or Ubuntu release, once.
fn base_image() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("cannot say which Linux this is")?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"'));
    let codename =
        codename.context("this Linux has no VERSION_CODENAME, so debootstrap cannot make a base image of it")?;
    let image = format!("rondo-base-{codename}:{TAG}");
    if process::succeeds(Command::new("docker").args(["image", "inspect", &image])) {
        return Ok(image);
    }
    cargo::step(&format!("base image {image} by debootstrap"));
    if !process::succeeds(Command::new("debootstrap").arg("--version")) {
        bail!("there is no debootstrap, which makes the base image\nfix: `apt-get install debootstrap`");
    }
    let temporary = std::env::temp_dir().join(format!("rondo-base-{}", std::process::id()));
    // A root file system holds files of many owners, so it is made, packed and removed as root.
    let made = process::output(Command::new("debootstrap").args(["--variant=minbase", codename]).arg(&temporary))
        .context("debootstrap failed; it must be called as root and reach a Debian mirror")
        .and_then(|_| {
            let script = "tar --directory \"$1\" --create . | docker import - \"$2\"";
            process::output(Command::new("sh").args(["-euc", script, "sh"]).arg(&temporary).arg(&image))
        });
    let removed = std::fs::remove_dir_all(&temporary);
    made?;
    removed.with_context(|| format!("cannot remove {}", temporary.display()))?;
    Ok(image)
}

/// A build context that holds the Dockerfiles and what was built here.
fn context(paths: &Paths, binaries: &Binaries) -> Result<PathBuf> {
    let context = paths.root.join("compose").join("context");
    if context.exists() {
        std::fs::remove_dir_all(&context)?;
    }
    for crate_dir in ["coordinator", "client"] {
        copy(&paths.workspace.join(crate_dir).join("Dockerfile"), &context.join(crate_dir).join("Dockerfile"))?;
    }
    let prebuilt = context.join("prebuilt");
    copy(&binaries.coordinator, &prebuilt.join("rondo-coordinator"))?;
    copy(&binaries.client, &prebuilt.join("rondo-client"))?;
    copy(&binaries.rondo, &prebuilt.join("rondo"))?;
    let libtorch = match setup::chosen_libtorch(paths) {
        ChosenLibtorch::Ours(dir) | ChosenLibtorch::Named(dir) => dir,
        ChosenLibtorch::Pytorch => bail!("unset LIBTORCH_USE_PYTORCH: the images take their libraries from one folder"),
    };
    std::fs::create_dir_all(prebuilt.join("lib"))?;
    for entry in std::fs::read_dir(libtorch.join("lib"))? {
        let from = entry?.path();
        let name = from.file_name().context("a file has a name")?;
        let to = prebuilt.join("lib").join(name);
        if from.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to)?;
        } else if from.is_file() {
            copy(&from, &to)?;
        }
    }
    Ok(context)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The compose project of this test, apart from any other on this machine.
struct Stack<'a> {
    paths: &'a Paths,
    tool: Vec<&'static str>,
    project: String,
    variables: Vec<(&'static str, String)>,
}

impl<'a> Stack<'a> {
    fn new(paths: &'a Paths, tool: Vec<&'static str>, base: &str, context: &Path) -> Self {
        let show = |path: &Path| path.display().to_string();
        let variables = vec![
            ("RONDO_BUILD_IMAGE", base.to_owned()),
            ("RONDO_RUNTIME_IMAGE", base.to_owned()),
            ("RONDO_CONTEXT", show(context)),
            ("RONDO_PREBUILT", "prebuilt".to_owned()),
            ("RONDO_TAG", TAG.to_owned()),
            // A free port: nothing outside the stack calls it.
            ("RONDO_PUBLISH", "127.0.0.1:0".to_owned()),
            ("RONDO_MODELS", show(&paths.models())),
            ("RONDO_DATA", show(&paths.demo_data())),
        ];
        Self { paths, tool, project: format!("rondo-test-{}", std::process::id()), variables }
    }

    fn compose(&self) -> Command {
        let mut command = compose(self.paths, &self.tool);
        command.args(["--project-name", &self.project]);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// The operators' command line inside the running coordinator's network.
    fn operator(&self, args: &[&str]) -> Command {
        let mut command = self.compose();
        command.args(["run", "--rm", "-T", "operator"]).args(args);
        command
    }

    /// What the operators' command line prints as JSON.
    fn ask<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        process::json(&mut self.operator(args))
    }

    fn down(&self) -> Result<()> {
        // Also after ctrl-c, so not through `process`.
        let status = self.compose().args(["down", "--volumes", "--remove-orphans", "--timeout", "20"]).status()?;
        if !status.success() {
            bail!("the stack could not be taken down ({status}); its compose project is {}", self.project);
        }
        for image in ["rondo-coordinator", "rondo-client"] {
            process::succeeds(Command::new("docker").args(["image", "rm", &format!("{image}:{TAG}")]));
        }
        // The build stages, which hold the whole context.
        process::succeeds(Command::new("docker").args([
            "image",
            "prune",
            "--force",
            "--filter",
            "label=rondo.prebuilt=prebuilt",
        ]));
        Ok(())
    }
}

/// Starts the stack, waits for the clients and runs `examples/compose/run.toml` on it.
fn two_rounds(stack: &Stack<'_>) -> Result<()> {
    cargo::step("a coordinator and three clients");
    process::run(stack.compose().args(["up", "--detach"]))?;
    process::until("the clients are ready", READY, || {
        let seen: Clients = stack.ask(&["client", "list", "--json"])?;
        Ok((seen.clients.iter().filter(|client| !client.bases.is_empty()).count() == CLIENTS).then_some(()))
    })?;
    println!("{CLIENTS} clients are enrolled and hold the base model");

    process::output(&mut stack.operator(&["base", "add", MODEL, "--from", &format!("/models/{MODEL}")]))?;
    let created: Summary = stack.ask(&["run", "create", "/examples/compose/run.toml", "--json"])?;
    let start = Instant::now();
    let ended = process::until("the run ends", RUN, || {
        let shown: Shown = stack.ask(&["run", "show", &created.run, "--json"])?;
        Ok((!shown.summary.outcome.is_empty()).then_some(shown.summary))
    })?;
    if ended.outcome != "completed" {
        bail!("run {} did not complete: {}", created.run, ended.outcome);
    }
    let rounds: Rounds = stack.ask(&["round", "list", &created.run, "--json"])?;
    let training: Vec<_> = rounds.rounds.iter().filter(|round| round.kind == "training").collect();
    let accepted = |state: &str| state == "accepted";
    for round in &training {
        let updates = round.participants.iter().filter(|participant| accepted(&participant.state)).count();
        println!("round {}: {updates} updates", round.round);
        if updates != CLIENTS {
            bail!("round {} has {updates} updates of {CLIENTS}", round.round);
        }
    }
    if training.len() != 2 {
        bail!("the run has {} training rounds instead of 2", training.len());
    }
    println!("two rounds across {CLIENTS} containers in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
