//! What a question to a method is about: which target, at
//! which rank, in which round, for which client.

use crate::layout::Target;

/// What a question to a method is about.
///
/// What is published and what is frozen belongs to the run, not to a round or a client: it is asked
/// for at the run's rank with `round` and `client` at `None`, and a method's answers must not make
/// it depend on them. What trains and travels up may depend on all four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<'a> {
    /// The adapted layer.
    pub target: &'a Target,
    /// Rank r of the adapter: the client's own, or the run's. At least 1.
    pub rank: usize,
    /// The training round, from 1. `None` where no round is
    /// meant: the warm-up, published and frozen tensors.
    pub round: Option<u32>,
    /// The client whose adapter it is. `None` for what all clients share.
    pub client: Option<&'a str>,
}

/// One client's adapter in one round, or the run's own where
/// nothing is said. With a target it makes an [`At`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instance<'a> {
    /// The training round, from 1; `None` for no round in particular: then no part rests.
    pub round: Option<u32>,
    /// Rank r of the adapter; `None` for the run's.
    pub rank: Option<usize>,
    /// The client; `None` for what all clients share.
    pub client: Option<&'a str>,
}

impl<'a> Instance<'a> {
    /// The run's own adapter, in no round in particular.
    pub const OF_RUN: Instance<'static> = Instance { round: None, rank: None, client: None };

    /// The run's adapter in a round. Round 0, the warm-up, is no
    /// training round and gives no round in particular.
    pub fn in_round(round: u32) -> Self {
        Self { round: (round > 0).then_some(round), ..Self::default() }
    }

    /// The same at another rank; 0 stands for the run's.
    pub fn with_rank(self, rank: usize) -> Self {
        Self { rank: (rank > 0).then_some(rank), ..self }
    }

    /// The same for a client; an empty name stands for no client in particular.
    pub fn of_client(self, client: &'a str) -> Self {
        Self { client: (!client.is_empty()).then_some(client), ..self }
    }
}
