//! Runs, as operators make and read them.

use std::path::PathBuf;

use rondo_proto::error::ErrorCode;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{BaseModel, GetAdapterReply, GetRunReply, InitialAdapter, RoundRecord, RunSummary};
use rondo_proto::{Digest, RunId};
use rondo_rounds::{CohortKey, Engine, Input, Rejection, Reply};
use rondo_wire::status::status;
use tonic::Status;

use super::{Shared, invalid, no_run};
use crate::bases;
use crate::blob_gc::drop_unreferenced;
use crate::driver::DriverError;
use crate::tls::hex;

/// Random bytes at the end of a run id, each two hex digits.
const SUFFIX_BYTES: usize = 3;
/// Draws of an id before giving up; one is taken with probability of some runs in 16 million.
const DRAWS: usize = 8;

/// The adapter that a run is to start from.
struct UploadedAdapter {
    digest: Digest,
    /// Where it was uploaded to.
    path: PathBuf,
    message: InitialAdapter,
}

impl Shared {
    /// Makes a run from a run file. The base is the registered one of that name; the engine refuses
    /// another digest and everything that cannot be trained. With a digest the run starts from the
    /// adapter that was uploaded under it.
    pub(crate) async fn create_run(&self, text: String, initial: &str) -> Result<RunSummary, Status> {
        let file = RunFile::parse(&text).map_err(invalid)?;
        let base = bases::find(&*self.store, &file.base.model)?;
        let Some(base) = base else {
            let message = format!("run file: base model `{}` is not registered", file.base.model);
            let known: Vec<String> = bases::all(&*self.store)?.into_iter().map(|base| base.name).collect();
            let hint = match known.as_slice() {
                [] => "register it with `rondo base add`; there are none yet".to_owned(),
                known => format!("register it with `rondo base add`; there are {}", known.join(", ")),
            };
            return Err(status(ErrorCode::NotFound, message, Some(&hint)));
        };
        let start = match initial {
            "" => None,
            digest => {
                let digest = digest.parse().map_err(invalid)?;
                let (path, message) = self.start_adapters.find(&digest, base.clone()).await?;
                Some(UploadedAdapter { digest, path, message })
            }
        };
        for _ in 0..DRAWS {
            let run = draw_id(&file.name)?;
            let key = draw_key()?;
            match self.try_create(run, text.clone(), base.clone(), start.as_ref(), key).await {
                Err(DriverError::Rejected(Rejection::RunExists { .. })) => {}
                outcome => return summary(outcome),
            }
        }
        Err(status(ErrorCode::Unavailable, "no free run id was found", Some("try again")))
    }

    /// Creates a run under an id. What it starts from is among its blobs before anybody hears of
    /// it, and goes with a run that is refused.
    async fn try_create(
        &self,
        run: RunId,
        run_file: String,
        base: BaseModel,
        start: Option<&UploadedAdapter>,
        key: CohortKey,
    ) -> Result<Reply, DriverError> {
        let start_adapter = start.map(|start| Box::new(start.message.clone()));
        let input = Input::CreateRun { run: run.clone(), run_file, base, start_adapter, key };
        let Some(UploadedAdapter { digest, path, .. }) = start else { return self.driver.step(input).await };
        let putting = self.blobs.lock_for_put().await;
        self.blobs.put_file(&run, digest, path).await.map_err(|error| DriverError::Store(error.to_string()))?;
        let outcome = self.driver.step(input).await;
        drop(putting);
        if outcome.is_err() {
            drop_unreferenced(&self.driver, &self.blobs, &run, vec![*digest]).await;
        }
        outcome
    }

    /// Gives an input about a run to the engine.
    pub(crate) async fn change_run(&self, input: Input) -> Result<RunSummary, Status> {
        summary(self.driver.step(input).await)
    }

    /// Reads something of a run; `None` reads as "no such run".
    pub(crate) async fn read_run<T: Send + 'static>(
        &self,
        run: &RunId,
        read: impl FnOnce(&Engine, &RunId) -> Option<T> + Send + 'static,
    ) -> Result<T, Status> {
        let asked = run.clone();
        self.driver.view(move |engine| read(engine, &asked)).await?.ok_or_else(|| no_run(run))
    }

    /// Everything about a run but its rounds.
    pub(crate) async fn show_run(&self, run: &RunId) -> Result<GetRunReply, Status> {
        let reply = |engine: &Engine, run: &RunId| {
            Some(GetRunReply {
                summary: Some(engine.run_summary(run)?),
                run_file: engine.run_file(run)?.to_owned(),
                base: engine.base(run).cloned(),
                events: engine.events(run, 0),
            })
        };
        self.read_run(run, reply).await
    }

    /// One round, closed or open.
    pub(crate) async fn show_round(&self, run: &RunId, round: u32) -> Result<RoundRecord, Status> {
        let record =
            move |engine: &Engine, run: &RunId| engine.run_summary(run).map(|_| engine.round_record(run, round));
        self.read_run(run, record).await?.ok_or_else(|| {
            let hint = Some("`rondo round list` shows those there are");
            status(ErrorCode::NotFound, format!("run `{run}` has no round {round} yet"), hint)
        })
    }

    /// Where a run's tensors stand after a round.
    pub(crate) async fn adapter(&self, run: &RunId, round: Option<u32>) -> Result<GetAdapterReply, Status> {
        let reply = move |engine: &Engine, run: &RunId| {
            let summary = engine.run_summary(run)?;
            Some(GetAdapterReply {
                run: run.to_string(),
                run_file: engine.run_file(run)?.to_owned(),
                base: engine.base(run).cloned(),
                state: engine.adapter_state(run, round),
                method: summary.method,
                privacy: summary.privacy,
                rounds: engine.rounds(run),
            })
        };
        let reply = self.read_run(run, reply).await?;
        if reply.state.is_none() {
            let message = match round {
                Some(round) => format!("run `{run}` has no adapter of round {round}"),
                None => format!("run `{run}` has not published an adapter yet"),
            };
            let hint = Some("`rondo round list` shows which rounds are closed and which tensors are kept");
            return Err(status(ErrorCode::NotFound, message, hint));
        }
        Ok(reply)
    }
}

fn summary(outcome: Result<Reply, DriverError>) -> Result<RunSummary, Status> {
    match outcome? {
        Reply::Run(summary) => Ok(*summary),
        other => {
            Err(status(ErrorCode::Internal, format!("the engine gave an answer of another kind: {other:?}"), None))
        }
    }
}

/// The key of a run's random cohorts; nobody but the coordinator knows it.
fn draw_key() -> Result<CohortKey, Status> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(no_randomness)?;
    Ok(CohortKey::new(key))
}

fn draw_id(name: &str) -> Result<RunId, Status> {
    let mut suffix = [0; SUFFIX_BYTES];
    getrandom::fill(&mut suffix).map_err(no_randomness)?;
    RunId::new(format!("{name}-{}", hex(&suffix)))
        .map_err(|e| status(ErrorCode::InvalidArgument, format!("run file: `name`: {e}"), Some("shorten the name")))
}

fn no_randomness(error: getrandom::Error) -> Status {
    let hint = "look at the random source of the coordinator's machine; nothing was changed";
    status(ErrorCode::Internal, format!("the operating system gave no random bytes: {error}"), Some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_randomness_is_not_reported_as_a_full_disk() {
        let status = no_randomness(getrandom::Error::UNSUPPORTED);
        assert_eq!(status.code(), tonic::Code::Internal);
        assert!(status.message().contains("no random bytes"), "{status:?}");
        let text = format!("{status:?}");
        assert!(!text.contains("store") && !text.contains("space"), "{text}");
    }
}
