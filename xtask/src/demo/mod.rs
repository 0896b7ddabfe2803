//! `cargo xtask demo`: a real federation on loopback. One coordinator and one client per domain,
//! each a process of its own with its own certificate and data folder, fine-tune the demo's
//! encoder; then it is shown what that did.

mod bounds;
mod members;
mod private;
mod report;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::report::{MethodReport, Report};
use crate::cargo;
use crate::examples::{self, METHODS, PRIVATE_METHODS, RunChanges};
use crate::federation::Federation;
use crate::paths::{MODEL, Paths};
use crate::process;
use crate::setup::{self, SetupArgs};

/// `cargo xtask demo`
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// fed-sb, ffa-lora, flora, fedit, or all of them one after
    /// another [default: fed-sb, with --epsilon all].
    #[arg(long, value_parser = ["fed-sb", "ffa-lora", "flora", "fedit", "all"])]
    method: Option<String>,
    /// With privacy for every example, at this epsilon over
    /// the whole run; of fed-sb, ffa-lora and fedit.
    #[arg(long, value_name = "EPSILON", value_parser = epsilon)]
    epsilon: Option<f64>,
    /// Training rounds [default: what the run file of the method says].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Clients; beyond four, the domains are split between several.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
    /// Two short rounds: shows that everything works, not how well.
    #[arg(long)]
    fast: bool,
    /// Leave the federation running afterwards, until ctrl-c.
    #[arg(long)]
    keep: bool,
    /// Fail where a result misses what the project promises.
    #[arg(long)]
    check: bool,
}

impl DemoArgs {
    /// The quickest demo of every method.
    pub(crate) fn fast_all() -> Self {
        Self {
            method: Some("all".to_owned()),
            epsilon: None,
            rounds: None,
            clients: 4,
            fast: true,
            keep: false,
            check: false,
        }
    }

    fn methods(&self) -> Vec<&'static str> {
        let (known, default): (&[&str], _) =
            if self.epsilon.is_some() { (&PRIVATE_METHODS, "all") } else { (&METHODS, "fed-sb") };
        let said = self.method.as_deref().unwrap_or(default);
        known.iter().copied().filter(|method| said == "all" || said == *method).collect()
    }

    fn changes(&self) -> RunChanges {
        let short = |value| self.fast.then_some(value);
        RunChanges {
            clients: self.clients,
            rounds: self.rounds.or(short(2)),
            local_steps: short(6),
            warm_up_examples: short(64),
            epsilon: self.epsilon,
        }
    }

    fn max_eval_examples(&self) -> Option<u32> {
        self.fast.then_some(160)
    }
}

/// Sets up, builds, runs the federation and reports.
pub(crate) fn run(paths: &Paths, args: &DemoArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    if args.methods().is_empty() {
        bail!("there is no run file with privacy for this method; those there are: {}", PRIVATE_METHODS.join(", "));
    }
    let binaries = cargo::binaries(paths)?;
    let dir = next_dir(&paths.demos())?;
    let start = Instant::now();

    cargo::step(&format!("a federation of {} clients in {}", args.clients, paths.show(&dir)));
    let members = members::members(paths, args.clients, args.max_eval_examples())?;
    let mut federation = Federation::start(binaries, &dir, (MODEL, &paths.demo_model()), &members)?;
    let mut report = Report::new(args.fast, args.clients, args.epsilon);
    for method in args.methods() {
        cargo::step(&format!("{method}: federated fine-tuning"));
        match run_method(paths, &mut federation, method, args) {
            Ok(done) => report.add(done),
            Err(error) => {
                eprintln!("\n{}", federation.log_tails());
                return Err(error);
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();

    println!("{}", text::text(&report, paths));
    let file = report.save(&dir)?;
    println!("\nThis report as JSON: {}", paths.show(&file));
    println!("Logs, certificates and data of the demo: {}", paths.show(&dir));
    let misses = bounds::misses(&report);
    for miss in &misses {
        println!("missed: {miss}");
    }
    if args.keep {
        federation.keep(paths)?;
    }
    if args.check && !misses.is_empty() {
        bail!("{} of the demo's bounds were missed", misses.len());
    }
    Ok(())
}

fn run_method(paths: &Paths, federation: &mut Federation, method: &str, args: &DemoArgs) -> Result<MethodReport> {
    let start = Instant::now();
    let run = federation.create_run(paths, method, &examples::run_file(paths, method, args.changes())?)?;
    federation.watch(&run)?;
    let seconds = start.elapsed().as_secs_f64();
    let summary = federation.summary(&run)?;
    if summary.outcome != "completed" {
        bail!("run {run} did not complete: {}", summary.outcome);
    }
    let rounds = federation.rounds(&run)?;
    let adapter = federation.export(&run, method)?;
    let mut report = MethodReport::new(method, &run, rounds, adapter, seconds)?;
    if args.epsilon.is_some() {
        private::measure(paths, federation, &mut report, args.max_eval_examples())?;
    }
    Ok(report)
}

fn epsilon(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(epsilon) if epsilon > 0.0 && epsilon.is_finite() => Ok(epsilon),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// The next free numbered folder.
pub(crate) fn next_dir(demos: &Path) -> Result<PathBuf> {
    let last = numbered(demos)?.last().map_or(0, |(number, _)| *number);
    let dir = demos.join(format!("{}", last + 1));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Demo folders, oldest first.
fn numbered(demos: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut dirs = Vec::new();
    if demos.is_dir() {
        for entry in std::fs::read_dir(demos)? {
            let entry = entry?;
            if let Ok(number) = entry.file_name().to_string_lossy().parse() {
                dirs.push((number, entry.path()));
            }
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// The newest demo that finished, for the checks that look at what it exported.
pub(crate) fn latest_report(paths: &Paths) -> Result<Option<Report>> {
    for (_, dir) in numbered(&paths.demos())?.into_iter().rev() {
        process::check_interrupt()?;
        if let Some(report) = Report::load(&dir)? {
            return Ok(Some(report));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_folders_count_up_by_number() {
        let dir = tempfile::tempdir().unwrap();
        for expected in 1..=11 {
            assert_eq!(next_dir(dir.path()).unwrap(), dir.path().join(expected.to_string()));
        }
        std::fs::create_dir(dir.path().join("notes")).unwrap();
        assert_eq!(numbered(dir.path()).unwrap().last().unwrap().0, 11);
    }
}
