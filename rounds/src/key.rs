//! Keys: what names a piece of work, a kind of round or a record; and the unit of time.

use std::fmt;
use std::str::FromStr;

use rondo_proto::{ClientId, RunId};
use serde::{Deserialize, Serialize};

/// Unix time in milliseconds.
pub type Millis = i64;

/// The assignment that an input is about. Everything a client sends about its work names all three,
/// so that a late message is recognised as late.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkKey {
    /// The run.
    pub run: RunId,
    /// The round; 0 is the warm-up.
    pub round: u32,
    /// The attempt at this round, from 1.
    pub attempt: u32,
}

/// Which kind of round it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundKind {
    /// Clients compute the method's warm-up statistic.
    WarmUp,
    /// Clients train.
    Train,
}

impl From<RoundKind> for rondo_methods::Kind {
    fn from(kind: RoundKind) -> Self {
        match kind {
            RoundKind::WarmUp => Self::WarmUp,
            RoundKind::Train => Self::Train,
        }
    }
}

impl RoundKind {
    /// As round records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Train => "training",
        }
    }
}

/// Names one record. `Display` and `FromStr` give the store's key; keys of one run sort together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// An enrolled client: `client/<name>`.
    Client(ClientId),
    /// What a run is, written once: `run/<id>/spec`.
    Spec(RunId),
    /// What changes while a run goes on: `run/<id>/live`.
    Live(RunId),
    /// One client's part in a run: `run/<id>/member/<name>`.
    Member(RunId, ClientId),
    /// A closed round, written once: `run/<id>/round/<number>`.
    Round(RunId, u32),
    /// A line of a run's history: `run/<id>/event/<number>`.
    Event(RunId, u64),
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "client/{client}"),
            Self::Spec(run) => write!(f, "run/{run}/spec"),
            Self::Live(run) => write!(f, "run/{run}/live"),
            Self::Member(run, client) => write!(f, "run/{run}/member/{client}"),
            Self::Round(run, round) => write!(f, "run/{run}/round/{round:010}"),
            Self::Event(run, sequence) => write!(f, "run/{run}/event/{sequence:020}"),
        }
    }
}

/// Text that names no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the key of a record")]
pub struct InvalidRecordKey(pub String);

impl FromStr for RecordKey {
    type Err = InvalidRecordKey;

    fn from_str(text: &str) -> Result<Self, InvalidRecordKey> {
        let invalid = || InvalidRecordKey(text.to_owned());
        let run = |id: &str| RunId::new(id).map_err(|_| invalid());
        let client = |name: &str| ClientId::new(name).map_err(|_| invalid());
        match text.split('/').collect::<Vec<_>>()[..] {
            ["client", name] => Ok(Self::Client(client(name)?)),
            ["run", id, "spec"] => Ok(Self::Spec(run(id)?)),
            ["run", id, "live"] => Ok(Self::Live(run(id)?)),
            ["run", id, "member", name] => Ok(Self::Member(run(id)?, client(name)?)),
            ["run", id, "round", number] => Ok(Self::Round(run(id)?, number.parse().map_err(|_| invalid())?)),
            ["run", id, "event", number] => Ok(Self::Event(run(id)?, number.parse().map_err(|_| invalid())?)),
            _ => Err(invalid()),
        }
    }
}

/// 32 bytes of the operating system's randomness, from which a run draws its Poisson-sampled
/// cohorts. Whoever knows it knows every cohort: it stays in the run's records, and no client,
/// operator or log is shown it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortKey([u8; 32]);

impl CohortKey {
    /// A key from fresh randomness. The engine has none of its own.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CohortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CohortKey { .. }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_way_through_a_store() {
        let run = RunId::new("run-1").unwrap();
        let client = ClientId::new("client_a").unwrap();
        let keys = [
            RecordKey::Client(client.clone()),
            RecordKey::Spec(run.clone()),
            RecordKey::Live(run.clone()),
            RecordKey::Member(run.clone(), client),
            RecordKey::Round(run.clone(), 12),
            RecordKey::Event(run, 345),
        ];
        for key in keys {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        assert!("run/x/other".parse::<RecordKey>().is_err());
        assert!("run/../spec".parse::<RecordKey>().is_err());
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", CohortKey::new([7; 32])), "CohortKey { .. }");
    }
}
