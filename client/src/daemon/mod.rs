//! The daemon: asks the coordinator what to do, does it, and asks again, until it is told to end.
//!
//! One assignment is in hand at a time, of whichever run. Everything may be dropped at any await: the spool, the cache
//! and the record of answers are on the disk, the coordinator gives an open assignment again, and every call may be
//! repeated. So a shutdown drops the turn in hand, and a crash is a shutdown that nobody waited for.

mod assignment;
mod beat;
mod failure;
mod guard;
mod judge;
mod outfit;
mod promise;
mod stop_point;
mod transfer;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_dp::LedgerError;
use rondo_methods::Registry;
use rondo_proto::v1::{self, poll_reply::Next};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::answers::Answers;
use crate::api::{Api, Backoff, Retry};
use crate::cache::{Cache, CacheError};
use crate::config::Config;
use crate::disk::Disk;
use crate::home::Home;
use crate::models::{self, ModelError, Models};
use crate::spool::{Charge, Entry, Key, Spool, SpoolError};
use crate::worker::{Task, Worker};
use rondo_data::DataError;
use rondo_trainer_api::work::MakeTrainer;

pub use failure::Failure;
pub use guard::{Guard, promise};
pub use judge::{Agreed, Judge};

/// Longest pause between tries while the coordinator is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a report is tried before the daemon goes on without it.
const REPORT_WITHIN: Duration = Duration::from_secs(120);
/// Updates that nobody asks for are offered no more often than this.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long a shutdown waits for the trainer to reach its next step.
const LAST_STEP: Duration = Duration::from_secs(60);

/// What a daemon is made of.
pub struct Parts<A> {
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
    judge: Arc<Mutex<Judge>>,
    guard: Guard,
    spool: Arc<Spool>,
    cache: Arc<Mutex<Cache>>,
    worker: Worker,
    retry: Retry,
    away: Backoff,
    /// The assignment that ended last, and the reason when it failed: given again, it is not done again.
    last: Option<(Key, Task, Option<String>)>,
    next_sweep: Instant,
    _home: Home,
}

impl<A: Api> Daemon<A> {
    /// Opens the folder's records and looks at the models and data files that the configuration names.
    pub fn new(parts: Parts<A>) -> Result<Self, StartError> {
        let Parts { home, config, client, api, registry, trainer, disk } = parts;
        outfit::check(&config)?;
        let models = Models::open(models::places(&config.models)?, home.models())?;
        let config = Arc::new(config);
        let guard = Guard::open(&home.ledger(), Arc::clone(&config))?;
        for domain in guard.forgotten() {
            tracing::warn!(
                domain,
                "the privacy ledger has releases of a domain that no data set of client.toml names; if its data are here under \
                 another, that one has started at zero: give it this `privacy_domain`"
            );
        }
        let (answers, registry) = (Answers::open(home.answers()), Arc::new(registry));
        let judge = Judge::new(Arc::clone(&config), registry, models, answers, guard.clone());
        let first = Duration::from_millis(config.poll.interval_ms).min(LONGEST_PAUSE);
        let retry = Retry { first, most: LONGEST_PAUSE, within: None };
        Ok(Self {
            client,
            config,
            api: Arc::new(api),
            judge: Arc::new(Mutex::new(judge)),
            guard,
            spool: Arc::new(Spool::open(home.spool(), disk)?),
            cache: Arc::new(Mutex::new(Cache::open(home.cache())?)),
            worker: Worker::start(trainer).map_err(StartError::Thread)?,
            away: retry.backoff(),
            retry,
            last: None,
            next_sweep: Instant::now(),
            _home: home,
        })
    }

    /// Works until `shutdown` comes. Whatever is in hand then is dropped and taken up again by the next start.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tracing::info!(client = self.client, "ready");
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = self.turn() => {}
            }
        }
        tracing::info!(client = self.client, "shutting down");
        let Self { worker, .. } = self;
        // A step of training is not broken off; the process may end without it when it takes too long.
        if tokio::time::timeout(LAST_STEP, spawn_blocking(move || worker.finish())).await.is_err() {
            tracing::warn!("the trainer did not come to its next step in time");
        }
    }

    /// One poll and what it brings.
    async fn turn(&mut self) {
        let introduction = self.judge.lock().unwrap_or_else(PoisonError::into_inner).introduction();
        let reply = match self.api.poll(introduction).await {
            Ok(reply) => reply,
            Err(error) => {
                let pause = if error.is_passing() { self.away.pause() } else { LONGEST_PAUSE };
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "no work from the coordinator");
                return sleep(pause).await;
            }
        };
        self.away.reset();
        self.settle(&reply);
        self.guard.close(&reply.ended_runs);
        match reply.next {
            Some(Next::Invitation(invitation)) => self.answer(invitation).await,
            Some(Next::Assignment(assignment)) => self.assignment(assignment).await,
            Some(Next::Wait(v1::Wait { retry_after_ms, reason })) => {
                tracing::debug!(reason, "waiting");
                self.sweep().await;
                self.idle(retry_after_ms).await;
            }
            None => self.idle(0).await,
        }
    }

    async fn idle(&self, at_least_ms: u32) {
        sleep(Duration::from_millis(self.config.poll.interval_ms.max(u64::from(at_least_ms)))).await;
    }

    async fn answer(&mut self, invitation: v1::Invitation) {
        let judge = Arc::clone(&self.judge);
        let judged =
            spawn_blocking(move || judge.lock().unwrap_or_else(PoisonError::into_inner).invited(&invitation)).await;
        let answer = match judged {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "an invitation could not be judged");
                return self.idle(0).await;
            }
        };
        let retry = Retry { within: Some(REPORT_WITHIN), ..self.retry.clone() };
        if let Err(error) = retry.call(|| self.api.answer(answer.clone())).await {
            tracing::error!(run = answer.run, %error, "the answer was not taken");
            self.idle(0).await;
        }
    }

    /// Drops updates that the coordinator holds and no longer asks for, and one of which it says that it is settled. One
    /// that it asks for again (it may have lost a disk) is still here.
    fn settle(&self, reply: &v1::PollReply) {
        let (asked, decided) = match &reply.next {
            Some(Next::Assignment(assignment)) => {
                let key = assignment::key(assignment).ok();
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

    /// Offers updates that the coordinator has not asked for: a round may have gone on without them, or this client may
    /// have been away. What it refuses for good is dropped. What has yet to be paid for is not
    /// offered: the round may have no use for it.
    async fn sweep(&mut self) {
        if Instant::now() < self.next_sweep {
            return;
        }
        self.next_sweep = Instant::now() + SWEEP_EVERY;
        let entries = self.spool.list().unwrap_or_else(|error| {
            tracing::warn!(%error, "spool");
            Vec::new()
        });
        for entry in entries.into_iter().filter(|entry| !entry.accepted && entry.facts.charge != Charge::Due) {
            let settled = match transfer::upload_once(self.api.as_ref(), &entry).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "an update left over");
                    assignment::is_useless(&entry, &error)
                }
            };
            if settled && let Err(error) = self.spool.remove(&entry.key) {
                tracing::warn!(%error, "spool");
            }
        }
    }
}
