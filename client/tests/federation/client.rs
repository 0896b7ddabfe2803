//! A client process: a folder, a small data set of its own, and the built program.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rondo_proto::v1;

use crate::coordinator::Coordinator;

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rondo-client"));
    program.env_remove("RONDO_LOG").env_remove("RONDO_TOKEN").stdin(Stdio::null());
    program
}

/// The tiny model's folder.
pub fn model_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/tiny-bert")
}

/// A classification on the tiny model over the clients' rows, with these tables.
pub fn run_file(base: &v1::BaseModel, method: &str, tables: &str) -> String {
    format!(
        r#"
        name = "sentiment"
        base = {{ model = "tiny", digest = "{}" }}
        task = {{ kind = "classification", dataset = "reviews", labels = ["negative", "positive"], max_tokens = 16 }}
        method = {{ id = "{method}", rank = 2, targets = ["query", "value"] }}
        {tables}
        "#,
        base.digest
    )
}

/// A running client. Killed when dropped; what it logged is shown when the test fails.
pub struct Client {
    pub name: String,
    pub dir: PathBuf,
    child: Child,
}

impl Client {
    /// Enrols and starts.
    pub async fn join(coordinator: &Coordinator, root: &Path, name: &str) -> Self {
        Self::start(name, Self::enrol(coordinator, root, name).await)
    }

    /// Enrols; answers the new client's folder.
    pub async fn enrol(coordinator: &Coordinator, root: &Path, name: &str) -> PathBuf {
        let dir = root.join(name);
        let token = coordinator.token(name).await;
        let joined = program()
            .args(["join", &coordinator.url(), "--token", &token.token, "--ca-fingerprint", &token.ca_fingerprint])
            .args(["--name", name, "--dir"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        fs::write(dir.join("reviews.tsv"), rows(name)).unwrap();
        let config = format!(
            "[[model]]\npath = {:?}\n[[dataset]]\nname = \"reviews\"\npath = \"reviews.tsv\"\neval_fraction = 0.25\n\
             [limits]\ndevice = \"cpu\"\nthreads = 1\n[poll]\ninterval_ms = 50\nheartbeat_ms = 20\n",
            model_dir()
        );
        fs::write(dir.join("client.toml"), config).unwrap();
        dir
    }

    /// Runs the daemon.
    pub fn start(name: &str, dir: PathBuf) -> Self {
        Self::start_dying_at(name, dir, "")
    }

    /// Runs the daemon, which dies when it gets to this
    /// place (`daemon/stop_point.rs`); empty for none.
    pub fn start_dying_at(name: &str, dir: PathBuf, place: &str) -> Self {
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut daemon = program();
        daemon.env("RONDO_DIE_AT", place).args(["run", "--dir"]).arg(&dir);
        let child = daemon.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { name: name.to_owned(), dir, child }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// Sentences of which one word says the label; each
/// client has a thing of its own to say them about.
fn rows(name: &str) -> String {
    let mut rows = "text\tlabel\n".to_owned();
    for (word, label) in [("bad", "negative"), ("awful", "negative"), ("good", "positive"), ("great", "positive")] {
        for thing in ["film", "book", "phone", "food", "day", "service"] {
            for opening in ["the", "this", "that"] {
                writeln!(rows, "{opening} {thing} of {name} was {word}\t{label}").unwrap();
            }
        }
    }
    rows
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}
