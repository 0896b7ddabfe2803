//! What can happen in a simulated federation.

/// One operation. Clients and runs are named by number; numbers beyond what there is wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// The client asks what to do, and does what it is assigned: accepts an invitation, takes an
    /// assignment.
    Poll(usize),
    /// The client finishes its assigned work: an update goes to its spool, an evaluation is
    /// reported.
    Work(usize),
    /// The client sends the oldest update of its spool.
    Upload(usize),
    /// The same, but the reply is lost: the update stays in the spool.
    UploadLosingReply(usize),
    /// The client sends again what it sent last, whenever that was.
    UploadAgain(usize),
    /// The client sends an update of its spool with other bytes than before.
    UploadOther(usize),
    /// The client sends an update with something wrong.
    UploadWrong(usize, Wrong),
    /// The client reports progress.
    Heartbeat(usize),
    /// The client starts an upload and gets no further.
    UploadBegun(usize),
    /// The client fetches every blob of its assignment.
    Download(usize),
    /// The client reports that it cannot do its work.
    Fail(usize),
    /// Validation refuses the client's update.
    Refuse(usize),
    /// The client process is killed: it forgets its assignment, its spool survives.
    Kill(usize),
    /// The client changes its mind about a run.
    Decline(usize, usize),
    /// A second in which everybody does what there is to do.
    Everybody,
    /// The input that was given last comes again.
    Repeat,
    /// The executor finishes the oldest aggregation.
    Aggregate,
    /// The executor finishes the oldest aggregation, and its result comes twice.
    AggregateTwice,
    /// The executor's latest result comes once more, however late.
    AggregateAgain,
    /// The executor fails the oldest aggregation.
    AggregateFails,
    /// The clock reaches the next time the engine asked for.
    Wake,
    /// Seconds pass.
    Wait(u32),
    /// The clock is set back by seconds.
    ClockBack(u32),
    /// The next step is lost: the coordinator dies before it commits, and starts again.
    CrashBeforeCommit,
    /// The next step is committed, but neither answered nor acted upon: the coordinator dies, and
    /// starts again.
    CrashAfterCommit,
    /// The coordinator is stopped and started.
    Restart,
    /// An operator creates another run.
    Create,
    /// An operator pauses a run.
    Pause(usize),
    /// An operator resumes a run.
    Resume(usize),
    /// An operator cancels a run.
    Cancel(usize),
    /// An operator drains a client.
    Drain(usize),
    /// An operator approves a client.
    Approve(usize),
    /// An operator revokes a client.
    Revoke(usize),
    /// A client enrols.
    Enrol(usize),
}

/// What can be wrong with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It rests on no example.
    Empty,
    /// Its training loss is not a number.
    Loss,
    /// Its norm is infinite.
    Norm,
    /// It was trained with another rank.
    Rank,
    /// It was trained on another version of the base.
    Version,
    /// It is for the round before.
    Round,
    /// It is for the next attempt.
    Attempt,
}

/// What a simulation starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Which of [`crate::methods::IDS`].
    pub(crate) method: usize,
    /// Clients, all enrolled and approved.
    pub(crate) clients: usize,
    /// Training rounds.
    pub(crate) rounds: u32,
    /// Updates that make a round complete.
    pub(crate) cohort: u32,
    /// Fewest updates.
    pub(crate) quorum: u32,
    /// Clients drawn beyond the cohort.
    pub(crate) over_select: u32,
    /// Evaluate every so many rounds.
    pub(crate) eval_every: u32,
    /// Failed attempts that end a run.
    pub(crate) max_attempts: u32,
    /// Whether updates weigh by example count, or all alike.
    pub(crate) weigh_examples: bool,
    /// Tenths of the epsilon that the run guarantees; `None` = no privacy.
    pub(crate) epsilon: Option<u32>,
    /// Whether it guarantees it per client, with methods that can, and per example otherwise.
    pub(crate) per_client: bool,
    /// Whether a run with privacy per client has Poisson-sampled cohorts.
    pub(crate) by_coins: bool,
    /// Whether the clip of a run with privacy per client moves; its noise is then small enough for
    /// a small cohort.
    pub(crate) moves_clip: bool,
    /// Whether a private run of the method that can begin
    /// with a statistic of data does, and pays for it.
    pub(crate) pays_warm_up: bool,
    /// Seed of the draws.
    pub(crate) seed: u64,
    /// What measurements come to.
    pub(crate) course: Course,
    /// Whether the finished run hands out its best round.
    pub(crate) keep_best: bool,
    /// Percent above the best loss from which a round is rolled back.
    pub(crate) rollback: Option<u32>,
    /// Who measures.
    pub(crate) measures: Measures,
    /// Whether a server optimiser keeps a state.
    pub(crate) server: bool,
    /// Rounds after which the executor makes new frozen tensors, of the method that can; 0 = never.
    pub(crate) refactor_every: u32,
    /// Draws the ranks that clients allow and ask for, of methods that mix them; 0 = all the run's
    /// but client 5.
    pub(crate) ranks: u64,
    /// Whether runs start from an adapter.
    pub(crate) start_adapter: bool,
}

/// What measurements come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// The same loss each time.
    Level,
    /// Every (round, client) has a loss of its own.
    Wild,
    /// As wild, and now and then no number.
    Diverging,
}

/// Who measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measures {
    /// Every participant.
    Everybody,
    /// One of those who train.
    ClientZero,
    /// One more client, which only has the data set to measure on.
    Outsider,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            method: 0,
            clients: 5,
            rounds: 2,
            cohort: 3,
            quorum: 2,
            over_select: 0,
            eval_every: 1,
            max_attempts: 3,
            weigh_examples: true,
            epsilon: None,
            per_client: false,
            by_coins: false,
            moves_clip: false,
            pays_warm_up: false,
            seed: 7,
            course: Course::Level,
            keep_best: false,
            rollback: None,
            measures: Measures::Everybody,
            server: false,
            refactor_every: 0,
            ranks: 0,
            start_adapter: false,
        }
    }
}
