//! The daemon asks the coordinator what to do, does it, and asks again, until it is shut down.
//!
//! One assignment is in work at a time, of whichever run. Everything may be dropped at any await:
//! the spool, the cache and the record of answers are on the disk, the coordinator gives an open
//! assignment again, and every call may be repeated. So a shutdown drops the work at hand, and a
//! crash is a shutdown that nobody waited for.

mod accepted_run;
mod admission;
mod approval;
mod assignment;
mod delivery;
mod disclosure;
mod failure;
mod heartbeat;
mod privacy_guard;
mod privacy_terms;
mod reports;
pub mod startup_checks;
mod transfer;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_data::DataError;
use rondo_dp::LedgerError;
use rondo_methods::Registry;
use rondo_proto::v1::{self, poll_reply::Next};
use rondo_trainer_api::work::MakeTrainer;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::answers::Answers;
use crate::api::{Api, Backoff, Retry};
use crate::cache::{Cache, CacheError};
use crate::config::Config;
use crate::disk::Disk;
use crate::history::{History, HistoryError};
use crate::home::Home;
use crate::models::{self, ModelError, Models};
use crate::spool::{Charge, Entry, Key, Spool, SpoolError};
use crate::worker::{Activity, Worker};

use disclosure::Disclosure;
use transfer::Outgoing;

pub use accepted_run::AcceptedRun;
pub use admission::Admission;
pub use approval::RunApproval;
pub use failure::Failure;
pub use privacy_guard::PrivacyGuard;
pub use privacy_terms::privacy_terms;

/// Longest pause between tries while the coordinator is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a report is tried before the daemon goes on without it.
const REPORT_WITHIN: Duration = Duration::from_secs(120);
/// Updates that nobody asks for are offered no more often than this.
const LEFTOVERS_EVERY: Duration = Duration::from_secs(30);
/// How long a shutdown waits for the trainer to reach its next step.
const LAST_STEP: Duration = Duration::from_secs(60);

/// What a daemon is built from.
pub struct DaemonSetup<A> {
    /// Its folder, locked.
    pub home: Home,
    /// client.toml.
    pub config: Config,
    /// The name that its certificate carries.
    pub client: String,
    /// The way to the coordinator.
    pub api: A,
    /// The methods there are.
    pub registry: Registry,
    /// Makes the trainer.
    pub trainer: MakeTrainer,
    /// Where the spool writes.
    pub disk: Box<dyn Disk>,
}

/// Why a daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A model of client.toml.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A data file of client.toml.
    #[error("data set {name:?}: cannot open {}: {source}; set the right `path` in its [[dataset]] table of client.toml", .path.display())]
    Dataset {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The privacy ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The record of what was sent.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The columns of a data file are not those that client.toml names, or serve no task.
    #[error("data set {name:?}: {source}")]
    Rows {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<DataError>,
    },
    /// The trainer's thread.
    #[error("the trainer's thread: {0}")]
    Thread(std::io::Error),
}

/// A daemon that is ready to run.
pub struct Daemon<A> {
    client: String,
    config: Arc<Config>,
    api: Arc<A>,
    admission: Arc<Mutex<Admission>>,
    guard: PrivacyGuard,
    spool: Arc<Spool>,
    history: Arc<History>,
    disclosure: Disclosure,
    cache: Arc<Mutex<Cache>>,
    worker: Worker,
    retry: Retry,
    backoff: Backoff,
    /// Why a run leaves this client out, as it was last said.
    left_out: String,
    /// The assignment that ended last, and the reason when
    /// it failed: given again, it is not done again.
    last: Option<(Key, Activity, Option<String>)>,
    next_leftovers: Instant,
    _home: Home,
}

impl<A: Api> Daemon<A> {
    /// Opens the folder's records and looks at the models
    /// and data files that the configuration names.
    ///
    /// # Errors
    /// A model or data file of client.toml cannot be used, a record in the folder cannot be opened,
    /// or the trainer's thread cannot start.
    pub fn new(setup: DaemonSetup<A>) -> Result<Self, StartError> {
        let DaemonSetup { home, config, client, api, registry, trainer, disk } = setup;
        startup_checks::check(&config)?;
        let models = Models::open(models::places(&config.models)?, home.models())?;
        let config = Arc::new(config);
        let guard = PrivacyGuard::open(&home.ledger(), Arc::clone(&config))?;
        for domain in guard.unnamed_domains() {
            tracing::warn!(
                domain,
                "the privacy ledger has releases of a domain that no data set of client.toml names; if its data are here under \
                 another, that one has started at zero: give it this `privacy_domain`"
            );
        }
        let answers = Answers::open(home.answers());
        let registry = Arc::new(registry);
        let approval = RunApproval::new(config.policy.approve, &home);
        let admission = Admission::new(Arc::clone(&config), registry, models, answers, guard.clone(), approval);
        let history = Arc::new(History::open(&home.history())?);
        let disclosure = Disclosure::of(&config.policy);
        let first = Duration::from_millis(config.poll.interval_ms).min(LONGEST_PAUSE);
        let retry = Retry { first, most: LONGEST_PAUSE, within: None };
        Ok(Self {
            client,
            config,
            api: Arc::new(api),
            admission: Arc::new(Mutex::new(admission)),
            guard,
            spool: Arc::new(Spool::open(home.spool(), disk)?),
            history,
            disclosure,
            cache: Arc::new(Mutex::new(Cache::open(home.cache())?)),
            worker: Worker::start(trainer).map_err(StartError::Thread)?,
            backoff: retry.backoff(),
            left_out: String::new(),
            retry,
            last: None,
            next_leftovers: Instant::now(),
            _home: home,
        })
    }

    /// Works until `shutdown` resolves. Work that is not done then is
    /// dropped, and the next start takes it up again.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tracing::info!(client = self.client, "ready");
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = self.poll_once() => {}
            }
        }
        tracing::info!(client = self.client, "shutting down");
        let Self { worker, .. } = self;
        // A step of training is not broken off; the process
        // may end without it when it takes too long.
        if tokio::time::timeout(LAST_STEP, spawn_blocking(move || worker.finish())).await.is_err() {
            tracing::warn!("the trainer did not come to its next step in time");
        }
    }

    /// One poll and what it brings.
    async fn poll_once(&mut self) {
        let introduction = self.admission.lock().unwrap_or_else(PoisonError::into_inner).introduction();
        let reply = match self.api.poll(introduction).await {
            Ok(reply) => reply,
            Err(error) => {
                let pause = if error.is_passing() { self.backoff.pause() } else { LONGEST_PAUSE };
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "no work from the coordinator");
                return sleep(pause).await;
            }
        };
        self.backoff.reset();
        self.drop_settled(&reply);
        self.guard.close(&reply.ended_runs);
        match reply.next {
            Some(Next::Invitation(invitation)) => self.answer(invitation).await,
            Some(Next::Assignment(assignment)) => self.assignment(assignment).await,
            Some(Next::Wait(v1::Wait { retry_after_ms, reason, left_out })) => {
                tracing::debug!(reason, "waiting");
                // Said once, not at every poll.
                if !left_out.is_empty() && left_out != self.left_out {
                    tracing::warn!(reason = left_out, "a run leaves this client out");
                }
                self.left_out = left_out;
                self.offer_leftovers().await;
                self.idle(retry_after_ms).await;
            }
            None => self.idle(0).await,
        }
    }

    async fn idle(&self, at_least_ms: u32) {
        sleep(Duration::from_millis(self.config.poll.interval_ms.max(u64::from(at_least_ms)))).await;
    }

    async fn answer(&mut self, invitation: v1::Invitation) {
        let admission = Arc::clone(&self.admission);
        let decision =
            spawn_blocking(move || admission.lock().unwrap_or_else(PoisonError::into_inner).answer(&invitation)).await;
        let answer = match decision {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "an invitation could not be decided");
                return self.idle(0).await;
            }
        };
        let run = answer.run.clone();
        if let Err(error) = self.send_answer(answer).await {
            tracing::error!(run, %error, "the answer was not taken");
            self.idle(0).await;
        }
    }

    /// What an upload needs beside its entry.
    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing { disclosure: self.disclosure, history: &self.history }
    }

    /// Drops updates that the coordinator holds and no longer asks for, and an update that it says
    /// is settled. An update that it asks for again (it may have lost a disk) stays in the spool.
    fn drop_settled(&self, reply: &v1::PollReply) {
        let (asked, decided) = match &reply.next {
            Some(Next::Assignment(assignment)) => {
                let key = assignment::key_of(assignment).ok();
                if assignment.upload_settled { (None, key) } else { (key, None) }
            }
            _ => (None, None),
        };
        let is_done = |entry: &Entry| {
            let key = Some(&entry.key);
            // What has a cost may be asked for in another attempt, and is not made twice.
            if entry.facts.charge.is_some() {
                let later = |of: &Key| of.run == entry.key.run && of.round > entry.key.round;
                let ended = reply.ended_runs.iter().any(|run| run == entry.key.run.as_str());
                return ended || asked.iter().chain(&decided).any(later);
            }
            key == decided.as_ref() || entry.accepted && key != asked.as_ref()
        };
        let settled = self.spool.list().and_then(|entries| {
            let done = entries.iter().filter(|entry| is_done(entry));
            done.map(|entry| self.spool.remove(&entry.key)).collect::<Result<Vec<()>, _>>()
        });
        if let Err(error) = settled {
            tracing::warn!(%error, "spool");
        }
    }

    /// Offers updates that the coordinator has not asked for: a round may have gone on without
    /// them, or this client may have been offline. What it refuses for good is dropped. What has
    /// yet to be paid for is not offered: the round may have no use for it.
    async fn offer_leftovers(&mut self) {
        if Instant::now() < self.next_leftovers {
            return;
        }
        self.next_leftovers = Instant::now() + LEFTOVERS_EVERY;
        let entries = self.spool.list().unwrap_or_else(|error| {
            tracing::warn!(%error, "spool");
            Vec::new()
        });
        for entry in entries.into_iter().filter(|entry| !entry.accepted && entry.facts.charge != Charge::Due) {
            let settled = match transfer::upload_once(self.api.as_ref(), self.outgoing(), &entry).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "an update left over");
                    delivery::can_be_dropped(&entry, &error)
                }
            };
            if settled && let Err(error) = self.spool.remove(&entry.key) {
                tracing::warn!(%error, "spool");
            }
        }
    }
}
