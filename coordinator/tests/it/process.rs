//! The built program: started, killed, started again, asked to end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rondo_proto::v1;
use rondo_wire::stubs::administration_client::AdministrationClient;

use crate::coordinator::{Operator, channel, operator};
use crate::fake_client::{Did, FakeClient, header, work_until_ended};
use crate::tensors::run_file;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rondo-coordinator"))
}

/// A serving process; killed when dropped.
struct Process {
    child: Child,
    dir: PathBuf,
    address: SocketAddr,
}

fn initialise(dir: &Path) -> serde_json::Value {
    let out = program()
        .args(["init", "--host", "127.0.0.1", "--listen", "127.0.0.1:0", "--token", "movies", "--json", "--data-dir"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn init_prints_how_to_serve_with_its_own_settings() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let said = |more: &[&str], data: &Path| {
        let out = program().args(["init", "--data-dir"]).arg(data).args(more).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (_, stdout, _) = said(&["--listen", "0.0.0.0:9000"], &data);
    assert!(stdout.contains(&format!("serve --data-dir {} --listen 0.0.0.0:9000\n", data.display())), "{stdout}");
    let (_, stdout, _) = said(&[], &dir.path().join("usual"));
    assert!(stdout.contains(&format!("serve --data-dir {}\n", dir.path().join("usual").display())), "{stdout}");
    let help = program().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(rondo_coordinator::config::DEFAULT_LISTEN), "{help}");

    // A failure is reported as the other programs do it, and once.
    let (code, _, stderr) = said(&[], &data);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: ") && stderr.contains("is initialised already"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let missing = dir.path().join("none.toml");
    let out = program().args(["serve", "--data-dir"]).arg(&data).arg("--config").arg(&missing).output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("error: cannot read") && lines[1].starts_with("hint: "),
        "{stderr}"
    );
    assert_eq!(stderr.matches("No such file").count(), 1, "{stderr}");
}

impl Process {
    fn start(dir: &Path) -> Self {
        // What a killed process left does not say where this one listens.
        let address_file = dir.join("address");
        let _ = std::fs::remove_file(&address_file);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let address = loop {
            if let Ok(text) = std::fs::read_to_string(&address_file) {
                break text.trim().parse().unwrap();
            }
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < until, "{}", log_of(dir));
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, dir: dir.to_owned(), address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    fn terminate(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end: {}", log_of(&self.dir));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn operator(&self) -> Operator {
        operator(&self.dir, self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_the_run_completes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    initialise(&data);
    let mut process = Process::start(&data);
    let mut operator = process.operator();
    let run = operator.create_run(run_file("fed-sb", 2)).await.run;
    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets"] {
        clients.push(FakeClient::join_at(&operator, process.address, dir.path(), name).await);
    }
    // Killed after every kind of step, the last one of the three clients in each case still to
    // come.
    for after in [Did::Answered, Did::WarmedUp, Did::Trained, Did::Evaluated, Did::Trained] {
        let until = Instant::now() + Duration::from_secs(30);
        while clients[0].step().await.unwrap() != after {
            assert!(Instant::now() < until, "no {after:?}: {}", log_of(&data));
            clients[1].step().await.unwrap();
            clients[2].step().await.unwrap();
        }
        process.kill();
        process = Process::start(&data);
        operator = process.operator();
        clients.iter_mut().for_each(|client| client.reconnect(process.address));
    }
    let ended = work_until_ended(&mut clients, &operator, &run).await;
    assert_eq!(ended.outcome, "completed", "{}", log_of(&data));
    let rounds = operator.api.clone().list_rounds(v1::GetRunRequest { run }).await.unwrap().into_inner().rounds;
    assert_eq!(rounds.len(), 3);
    for round in rounds {
        assert_eq!(round.attempt, 1);
        assert!(round.participants.iter().all(|part| part.state == "accepted"), "{round:#?}");
    }
    assert_eq!(process.terminate(), Some(0), "{}", log_of(&data));
    let log = log_of(&data);
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert!(!log.contains("\"ERROR\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_open_streams_and_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    initialise(dir.path());
    let process = Process::start(dir.path());
    let operator = process.operator();
    let run = operator.create_run(run_file("fedit", 1)).await.run;
    let request = v1::GetRunRequest { run };
    let mut watched = operator.api.clone().watch_run(request).await.unwrap().into_inner();
    watched.message().await.unwrap().unwrap();
    let client = FakeClient::join_at(&operator, process.address, dir.path(), "news").await;
    let started = Instant::now();
    assert_eq!(process.terminate(), Some(0), "{}", log_of(dir.path()));
    assert!(started.elapsed() < Duration::from_secs(8), "the drain is bounded");
    while let Ok(Some(_)) = watched.message().await {}
    assert!(!dir.path().join("address").exists());
    drop(client);
}

#[test]
fn init_twice_and_serve_without_init_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = program().args(["serve", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("rondo-coordinator init"));
    let made = initialise(dir.path());
    assert_eq!(made["ca_fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(made["tokens"][0]["name"], "movies");
    let again = program().args(["init", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("initialised already"));
    let quiet = program().args(["init", "--if-missing", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert!(quiet.status.success());
    let usage = program().arg("serve").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn two_coordinators_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    initialise(dir.path());
    let process = Process::start(dir.path());
    let second = program().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
    assert!(dir.path().join("address").exists(), "the first one is still found");
    assert_eq!(process.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_made_while_no_coordinator_serves() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    initialise(&data);
    let out = dir.path().join("second");
    let make =
        || program().args(["operator", "--name", "second", "--data-dir"]).arg(&data).arg("--out").arg(&out).output();
    let process = Process::start(&data);
    let refused = make().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"));
    assert_eq!(process.terminate(), Some(0));
    let made = make().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let process = Process::start(&data);
    let second = rondo_wire::identity::load(&out).unwrap();
    let mut api = AdministrationClient::new(channel(&second, process.address));
    let operators = api.list_operators(v1::ListOperatorsRequest {}).await.unwrap().into_inner().operators;
    assert_eq!(operators.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["operator", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_leaves_a_partial_that_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    initialise(&data);
    let process = Process::start(&data);
    let operator = process.operator();
    operator.create_run(run_file("fedit", 1)).await;
    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets"] {
        clients.push(FakeClient::join_at(&operator, process.address, dir.path(), name).await);
    }
    for client in &mut clients {
        client.step().await.unwrap();
    }
    let assignment = clients[0].assignment().await;
    let bytes = clients[0].update(&assignment);
    let head = header(&assignment, &bytes);
    let reply = clients[0].send(head.clone(), &bytes[..800]).await.unwrap();
    assert_eq!((reply.stored_bytes, reply.accepted), (800, false));
    process.kill();
    let process = Process::start(&data);
    clients[0].reconnect(process.address);
    assert_eq!(clients[0].upload_status(&head).await.unwrap().stored_bytes, 800);
    let rest = v1::UploadHeader { offset: 800, ..head };
    assert!(clients[0].send(rest, &bytes).await.unwrap().accepted);
}
