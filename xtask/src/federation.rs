//! The processes of a federation on loopback: started, asked and ended.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cargo::Binaries;
use crate::paths::Paths;
use crate::process::{self, Service};
use crate::records::{Clients, Evaluation, Round, Rounds, Shown, Summary, Token};

/// How long the coordinator and the clients may take to be ready.
const START: Duration = Duration::from_secs(60);

/// A coordinator and its clients. Dropping it ends them.
pub(crate) struct Federation {
    binaries: Binaries,
    dir: PathBuf,
    url: String,
    // Clients first: they end before the coordinator does.
    clients: Vec<Service>,
    coordinator: Service,
}

/// A data owner to be: what lies in its own folder before it enrols.
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// client.toml; relative paths start at the client's folder.
    pub(crate) config: String,
    /// Files below the client's folder.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
}

impl Federation {
    /// Makes certificates, starts the coordinator, enrols the
    /// clients, starts them, and registers the base model.
    pub(crate) fn start(binaries: Binaries, dir: &Path, base: (&str, &Path), members: &[Member]) -> Result<Self> {
        let data_dir = dir.join("coordinator");
        // The operator's identity and the join commands name the
        // address, so it is settled before the server runs.
        let listen = format!("127.0.0.1:{}", free_port()?);
        process::output(Command::new(&binaries.coordinator).arg("init").arg("--data-dir").arg(&data_dir).args([
            "--host",
            "127.0.0.1",
            "--listen",
            &listen,
        ]))?;
        let coordinator = Service::start(
            "coordinator",
            &dir.join("coordinator.log"),
            Command::new(&binaries.coordinator)
                .arg("serve")
                .arg("--data-dir")
                .arg(&data_dir)
                .args(["--listen", &listen]),
        )?;
        let url = format!("https://{listen}");
        let mut federation = Self { binaries, dir: dir.to_path_buf(), url, clients: Vec::new(), coordinator };
        process::until("the coordinator answers", START, || {
            federation.coordinator.check()?;
            Ok(process::succeeds(federation.rondo().args(["client", "list", "--json"])).then_some(()))
        })?;
        println!("coordinator on {}", federation.url);
        members.iter().try_for_each(|member| federation.add_client(member))?;
        federation.wait_for_clients()?;
        let (name, from) = base;
        process::output(federation.rondo().args(["base", "add", name, "--from"]).arg(from))?;
        println!("base model {name} registered: digests and shapes only, the weights stay with the clients");
        Ok(federation)
    }

    /// Enrols and starts one client with data of its own.
    fn add_client(&mut self, member: &Member) -> Result<()> {
        let name = &member.name;
        let home = self.dir.join("clients").join(name);
        let config = PathBuf::from("client.toml");
        for (file, content) in member.files.iter().chain([&(config.clone(), member.config.clone().into_bytes())]) {
            let path = home.join(file);
            let folder = path.parent().unwrap_or(&home);
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let token: Token = process::json(self.rondo().args(["token", "create", "--name", name, "--json"]))?;
        process::output(
            Command::new(&self.binaries.client)
                .args(["join", &self.url, "--token", &token.token, "--ca-fingerprint", &token.ca_fingerprint])
                .args(["--name", name, "--dir"])
                .arg(&home),
        )?;
        let mut command = Command::new(&self.binaries.client);
        command.arg("run").arg("--dir").arg(&home).arg("--config").arg(home.join(config));
        self.clients.push(Service::start(name, &self.dir.join(format!("client-{name}.log")), &mut command)?);
        Ok(())
    }

    /// Waits until every client has said what it holds.
    fn wait_for_clients(&mut self) -> Result<()> {
        process::until("the clients are ready", START, || {
            self.check()?;
            let seen: Clients = process::json(self.rondo().args(["client", "list", "--json"]))?;
            let ready =
                seen.clients.iter().filter(|client| client.last_seen_ms > 0 && !client.bases.is_empty()).count();
            Ok((ready == self.clients.len()).then_some(()))
        })?;
        let names: Vec<&str> = self.clients.iter().map(Service::name).collect();
        println!("{} clients enrolled over mutual TLS: {}", names.len(), names.join(", "));
        Ok(())
    }

    /// The operators' command line with this federation's operator identity.
    fn rondo(&self) -> Command {
        let mut command = Command::new(&self.binaries.rondo);
        command.env("RONDO_IDENTITY", self.dir.join("coordinator").join("operator"));
        command
    }

    /// Fails when one of the processes has ended.
    fn check(&mut self) -> Result<()> {
        self.coordinator.check()?;
        self.clients.iter_mut().try_for_each(Service::check)
    }

    /// Creates a run from the text of a run file and returns its id.
    pub(crate) fn create_run(&self, paths: &Paths, name: &str, text: &str) -> Result<String> {
        let file = self.dir.join(format!("run-{name}.toml"));
        std::fs::write(&file, text)?;
        let summary: Summary = process::json(self.rondo().args(["run", "create", "--json"]).arg(&file))?;
        println!("run {} created from {}", summary.run, paths.show(&file));
        Ok(summary.run)
    }

    /// Shows the run live until it ends; fails when a process of the federation ends before.
    pub(crate) fn watch(&mut self, run: &str) -> Result<()> {
        let mut command = self.rondo();
        command.args(["run", "watch", run]);
        process::run_while(&mut command, || self.check())
    }

    /// How the run stands.
    pub(crate) fn summary(&self, run: &str) -> Result<Summary> {
        let shown: Shown = process::json(self.rondo().args(["run", "show", run, "--json"]))?;
        Ok(shown.summary)
    }

    /// The run's closed rounds.
    pub(crate) fn rounds(&self, run: &str) -> Result<Vec<Round>> {
        let rounds: Rounds = process::json(self.rondo().args(["round", "list", run, "--json"]))?;
        Ok(rounds.rounds)
    }

    /// Exports the latest adapter as a PEFT folder.
    pub(crate) fn export(&self, run: &str, name: &str) -> Result<PathBuf> {
        let out = self.dir.join(format!("adapter-{name}"));
        process::output(self.rondo().args(["adapter", "export", run, "--format", "peft", "--out"]).arg(&out))?;
        Ok(out)
    }

    /// A client's rows.
    pub(crate) fn data(&self, client: &str) -> PathBuf {
        self.dir.join("clients").join(client).join("data/reviews.tsv")
    }

    /// A client measures an exported adapter on the rows it holds out, offline.
    pub(crate) fn evaluate(
        &self,
        paths: &Paths,
        client: &str,
        adapter: &Path,
        held_out: f64,
        limit: Option<u32>,
    ) -> Result<Evaluation> {
        let mut command = Command::new(&self.binaries.client);
        command.arg("evaluate").arg("--model").arg(paths.demo_model()).arg("--adapter").arg(adapter);
        command.arg("--data").arg(self.data(client)).args(["--dataset", "reviews", "--device", "cpu", "--json"]);
        command.args(["--held-out", &held_out.to_string()]);
        if let Some(limit) = limit {
            command.args(["--limit", &limit.to_string()]);
        }
        process::json(&mut command)
    }

    /// The ends of all logs.
    pub(crate) fn log_tails(&self) -> String {
        let tails: Vec<String> =
            std::iter::once(&self.coordinator).chain(&self.clients).map(Service::log_tail).collect();
        tails.join("\n")
    }

    /// Leaves everything running until ctrl-c or until a process ends.
    pub(crate) fn keep(mut self, paths: &Paths) -> Result<()> {
        let identity = self.dir.join("coordinator").join("operator");
        println!(
            "\nThe federation keeps running; ctrl-c ends it. In another terminal:\n  export RONDO_IDENTITY={}\n  {} run list",
            paths.show(&identity),
            paths.show(&self.binaries.rondo)
        );
        while process::check_interrupt().is_ok() {
            self.check()?;
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

/// A port of this machine that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
