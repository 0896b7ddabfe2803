//! Commands that are run to their end and services that run beside. Whatever was started is ended
//! by its own id: when its owner is dropped, or when this process is interrupted.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// How long a service may take to end after it was asked.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of a log that a failure shows.
const TAIL_LINES: usize = 25;

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes ctrl-c and SIGTERM end every child; what waits for
/// them then fails and cleans up on its way out.
pub(crate) fn stop_children_on_interrupt() {
    let set = ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        for pid in running().iter() {
            signal(*pid, "TERM");
        }
    });
    if let Err(error) = set {
        eprintln!("warning: ctrl-c will not clean up: {error}");
    }
}

/// Fails once ctrl-c was pressed.
pub(crate) fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { bail!("interrupted") } else { Ok(()) }
}

/// Sends a signal by way of the shell, so that no unsafe code or further crate is needed.
fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).stderr(Stdio::null()).status();
    if let Err(error) = sent {
        eprintln!("warning: cannot signal process {pid}: {error}");
    }
}

/// A command as a person would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Starts a command and remembers its id until [`wait`] has seen its end.
fn spawn(command: &mut Command) -> Result<Child> {
    check_interrupt()?;
    let child = command.spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    running().insert(child.id());
    Ok(child)
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let status = child.wait();
    running().remove(&child.id());
    Ok(status?)
}

/// Runs a command with this terminal; a non-zero exit is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = wait(&mut spawn(command)?)?;
    check_interrupt()?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command with this terminal and calls `check` all
/// the while; when that fails the command is ended.
pub(crate) fn run_while(command: &mut Command, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let mut child = spawn(command)?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(error) = check().and_then(|()| check_interrupt()) {
            signal(child.id(), "TERM");
            wait(&mut child)?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    running().remove(&child.id());
    check_interrupt()?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; a non-zero exit is an error that quotes its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command)?;
    let pid = child.id();
    let output = child.wait_with_output();
    running().remove(&pid);
    let output = output?;
    check_interrupt()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({})\n{}", shown(command), output.status, tail(&stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that prints one JSON document.
pub(crate) fn json<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("`{}` printed no such JSON: {}", shown(command), tail(&text)))
}

/// Whether a command can be started and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// A process that runs beside, its output in a log file. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Service {
    /// Starts a service; its standard output and error go to `log`.
    pub(crate) fn start(name: &str, log: &Path, command: &mut Command) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn(command)?;
        Ok(Self { name: name.to_owned(), log: log.to_path_buf(), child })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Fails when the service has ended, quoting its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status})\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Path and last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("cannot be read: {error}"));
        format!("-- {} --\n{}", self.log.display(), tail(&text))
    }

    /// Asks the service to end and waits; after the grace
    /// it is killed. Says whether it ended by itself.
    pub(crate) fn stop(&mut self) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            running().remove(&self.child.id());
            return true;
        }
        signal(self.child.id(), "TERM");
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                running().remove(&self.child.id());
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("warning: {} (process {}) could not be ended: {error}", self.name, self.child.id());
        }
        running().remove(&self.child.id());
        false
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks `probe` again and again until it has an answer.
pub(crate) fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        check_interrupt()?;
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_quote_the_command_and_its_stderr() {
        let error = output(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("reason") && error.contains("sh -c"), "{error}");
    }

    #[test]
    fn dropping_a_service_ends_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start("sleeper", &dir.path().join("log"), Command::new("sleep").arg("600")).unwrap();
        let pid = service.child.id();
        drop(service);
        assert!(!succeeds(Command::new("sh").arg("-c").arg(format!("kill -0 {pid}"))));
        assert!(!running().contains(&pid));
    }

    #[test]
    fn a_service_that_ended_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut service =
            Service::start("broken", &dir.path().join("log"), Command::new("sh").args(["-c", "echo no port; exit 1"]))
                .unwrap();
        let error = until("end", Duration::from_secs(10), || Ok(service.check().err())).unwrap().to_string();
        assert!(error.contains("no port"), "{error}");
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(tail(&text).ends_with("99") && tail(&text).lines().count() == TAIL_LINES);
    }
}
