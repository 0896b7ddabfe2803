//! Carries out operations, and brings a federation to its end.

use rondo_proto::{RunId, v1};
use rondo_rounds::{Input, Reply};

use crate::model::{Op, Setup};
use crate::world::{Crash, Outcome, World, work_of};

/// Rounds of "everybody does their work" after which every run must have ended.
const PATIENCE: usize = 400;

/// Runs a list of operations, then heals everything and checks that every run ends.
pub(crate) fn simulate(setup: Setup, ops: &[Op]) -> World {
    let mut world = World::new(setup);
    for op in ops {
        world.carry_out(*op);
    }
    world.heal();
    world
}

impl World {
    fn client(&self, client: usize) -> usize {
        client % self.devices.len()
    }

    fn run(&self, run: usize) -> RunId {
        self.runs[run % self.runs.len()].clone()
    }

    /// Carries out one operation.
    pub(crate) fn carry_out(&mut self, op: Op) {
        match op {
            Op::Poll(client) => self.obey(self.client(client)),
            Op::Work(client) => self.work(self.client(client)),
            Op::Upload(client) => self.send_oldest(self.client(client), true),
            Op::UploadLosingReply(client) => self.send_oldest(self.client(client), false),
            Op::UploadAgain(client) => {
                let client = self.client(client);
                if let Some(packed) = self.devices[client].sent.clone() {
                    self.upload(client, &packed);
                }
            }
            Op::UploadOther(client) => {
                let client = self.client(client);
                if let Some(assignment) = self.devices[client].assignment.clone() {
                    let packed = self.pack(client, &assignment, " other");
                    self.upload(client, &packed);
                }
            }
            Op::UploadWrong(client, wrong) => {
                let client = self.client(client);
                if let Some(assignment) = self.devices[client].assignment.clone() {
                    let packed = Self::spoil(&self.pack(client, &assignment, ""), wrong);
                    self.upload(client, &packed);
                }
            }
            Op::Heartbeat(client) => self.heartbeat(self.client(client)),
            Op::UploadBegun(client) => {
                let client = self.client(client);
                if let Some(packed) = self.devices[client].spool.front().cloned() {
                    let name = self.devices[client].name.clone();
                    self.step(Input::UploadBegun { client: name, work: packed.work, digest: packed.update.digest });
                }
            }
            Op::Download(client) => self.download(self.client(client)),
            Op::Fail(client) => {
                let client = self.client(client);
                if let Some(assignment) = self.devices[client].assignment.take() {
                    let name = self.devices[client].name.clone();
                    let work = work_of(&assignment);
                    let reason = "no memory".to_owned();
                    self.step(Input::ClientFailed { client: name, work, reason });
                }
            }
            Op::Refuse(client) => {
                let client = self.client(client);
                if let Some(packed) = self.devices[client].spool.pop_front() {
                    let name = self.devices[client].name.clone();
                    let reason = "tensor `x` has shape [1], expected [2]".to_owned();
                    self.step(Input::UpdateRefused { client: name, work: packed.work, reason });
                }
            }
            Op::Kill(client) => {
                let client = self.client(client);
                self.devices[client].assignment = None;
            }
            Op::Decline(client, run) => {
                let client = self.client(client);
                let run = self.run(run);
                self.answer(client, &run, false);
            }
            Op::Everybody => self.everybody_works(),
            Op::Repeat => {
                if let Some(input) = self.last.clone() {
                    self.repeat(input);
                }
            }
            Op::Aggregate => {
                if let Some(input) = self.aggregate() {
                    self.step(input);
                }
            }
            Op::AggregateTwice => {
                if let Some(input) = self.aggregate() {
                    self.step(input.clone());
                    self.repeat(input);
                }
            }
            Op::AggregateAgain => {
                if let Some((result, sum)) = self.result.clone() {
                    if let Input::Aggregated { global, frozen, server, .. } = &result {
                        self.blobs.insert(*global, sum);
                        self.blobs.extend([*frozen, *server].into_iter().flatten().map(|digest| (digest, 0)));
                    }
                    self.step(result);
                }
            }
            Op::AggregateFails => {
                if let Some(plan) = self.queue.pop_front() {
                    self.step(Input::AggregateFailed { work: plan.work, reason: "disk full".to_owned() });
                }
            }
            Op::Wake => {
                if let Some(wake) = self.engine.next_wake() {
                    self.now = wake;
                    self.step(Input::Tick);
                }
            }
            Op::Wait(seconds) => {
                self.now += i64::from(seconds) * 1000;
                self.step(Input::Tick);
            }
            Op::ClockBack(seconds) => {
                self.now -= i64::from(seconds) * 1000;
                self.step(Input::Tick);
            }
            Op::CrashBeforeCommit => self.crash = Some(Crash::BeforeCommit),
            Op::CrashAfterCommit => self.crash = Some(Crash::AfterCommit),
            Op::Restart => self.restart(),
            Op::Create => {
                if self.runs.len() < 3 {
                    self.create();
                }
            }
            Op::Pause(run) => drop(self.step(Input::Pause { run: self.run(run) })),
            Op::Resume(run) => drop(self.step(Input::Resume { run: self.run(run) })),
            Op::Cancel(run) => drop(self.step(Input::Cancel { run: self.run(run) })),
            Op::Drain(client) => {
                let client = self.devices[self.client(client)].name.clone();
                self.step(Input::Drain { client });
            }
            Op::Approve(client) => {
                let client = self.devices[self.client(client)].name.clone();
                self.step(Input::Approve { client });
            }
            Op::Revoke(client) => {
                let client = self.devices[self.client(client)].name.clone();
                self.step(Input::Revoke { client });
            }
            Op::Enrol(client) => drop(self.enrol(self.client(client))),
        }
    }

    /// Polls and does what it is assigned.
    pub(crate) fn obey(&mut self, client: usize) {
        match self.poll(client) {
            Some(v1::poll_reply::Next::Invitation(invitation)) => {
                let run = RunId::new(invitation.run).unwrap();
                self.answer(client, &run, true);
            }
            Some(v1::poll_reply::Next::Assignment(assignment)) => self.devices[client].assignment = Some(assignment),
            Some(v1::poll_reply::Next::Wait(wait)) => {
                assert!(!wait.reason.is_empty());
                self.devices[client].assignment = None;
            }
            None => {}
        }
    }

    /// Finishes the assigned work.
    pub(crate) fn work(&mut self, client: usize) {
        let Some(assignment) = self.devices[client].assignment.clone() else { return };
        if assignment.kind() == v1::WorkKind::Evaluate {
            let evaluation = self.setup.evaluation(assignment.round, client);
            let name = self.devices[client].name.clone();
            let run = RunId::new(&assignment.run).unwrap();
            let outcome =
                self.step(Input::Evaluated { client: name, run, round: assignment.round, evaluation, min_group: 0 });
            if outcome != Outcome::Crashed {
                self.devices[client].assignment = None;
            }
            return;
        }
        let packed = self.pack(client, &assignment, "");
        let spool = &mut self.devices[client].spool;
        if !spool.contains(&packed) {
            spool.push_back(packed);
        }
    }

    /// Sends the oldest update of the spool, and forgets it once it is decided.
    fn send_oldest(&mut self, client: usize, hears_reply: bool) {
        let Some(packed) = self.devices[client].spool.front().cloned() else { return };
        let outcome = self.upload(client, &packed);
        let is_decided = matches!(outcome, Outcome::Answered(Reply::Upload(_)) | Outcome::Rejected(_));
        if hears_reply && is_decided {
            self.devices[client].spool.pop_front();
        }
    }

    fn heartbeat(&mut self, client: usize) {
        let Some(assignment) = self.devices[client].assignment.clone() else { return };
        let name = self.devices[client].name.clone();
        let work = work_of(&assignment);
        let state = "training".to_owned();
        let outcome = self.step(Input::Heartbeat { client: name, work, state, step: 1, steps: 4, loss: f64::NAN });
        if let Outcome::Answered(Reply::Heartbeat { stop: true, reason }) = outcome {
            assert!(!reason.is_empty());
            self.devices[client].assignment = None;
        }
    }

    /// Fetches every blob of the assignment that it lacks.
    pub(crate) fn download(&mut self, client: usize) {
        let Some(assignment) = self.devices[client].assignment.clone() else { return };
        let name = self.devices[client].name.clone();
        let run = RunId::new(&assignment.run).unwrap();
        let state = assignment.state.unwrap_or_default();
        let published = state.published.iter().map(|entry| entry.digest.clone());
        let others = [state.frozen_digest, state.initial_digest];
        let digests: Vec<String> = published.chain(others).filter(|digest| !digest.is_empty()).collect();
        for digest in digests {
            let digest = digest.parse().unwrap();
            if !self.devices[client].cache.contains(&digest) && self.engine.may_download(&name, &run, &digest) {
                assert!(self.blobs.contains_key(&digest), "{digest} may be fetched but is gone");
                self.step(Input::Delivered { client: name.clone(), run: run.clone(), digest, bytes: 120 });
                self.devices[client].cache.insert(digest);
            }
        }
    }

    /// Gives an input a second time. An update brings its blob again.
    fn repeat(&mut self, input: Input) {
        match input {
            Input::UpdateStored { client, work, update } => {
                let index = self.devices.iter().position(|device| device.name == client).unwrap();
                self.upload(index, &crate::device::Packed { work, update });
            }
            // Its blobs may be gone, as after any restart: the executor would have made them again.
            Input::Aggregated { global, frozen, server, .. }
                if [Some(global), frozen, server].iter().flatten().any(|digest| !self.blobs.contains_key(digest)) => {}
            input @ Input::CreateRun { .. } => drop(self.create_from(input)),
            input => drop(self.step(input)),
        }
    }

    /// Everybody is well again and does their work until every run has ended.
    pub(crate) fn heal(&mut self) {
        self.crash = None;
        self.restore();
        for _ in 0..PATIENCE {
            if self.runs.iter().all(|run| self.phase(run) == "ended") {
                return;
            }
            self.everybody_works();
        }
        let summaries: Vec<_> = self.runs.iter().map(|run| self.engine.run_summary(run)).collect();
        panic!("a run with enough healthy clients does not end: {summaries:#?}");
    }

    fn restore(&mut self) {
        for index in 0..self.devices.len() {
            self.enrol(index);
            let client = self.devices[index].name.clone();
            self.step(Input::Approve { client });
            self.obey(index);
            for run in self.runs.clone() {
                self.answer(index, &run, true);
            }
        }
        for run in self.runs.clone() {
            self.step(Input::Resume { run });
        }
    }

    /// One second in which every client does what it can.
    pub(crate) fn everybody_works(&mut self) {
        for client in 0..self.devices.len() {
            self.obey(client);
            self.download(client);
            self.work(client);
            while !self.devices[client].spool.is_empty() {
                self.send_oldest(client, true);
            }
        }
        while !self.queue.is_empty() {
            self.carry_out(Op::Aggregate);
        }
        self.carry_out(Op::Wait(1));
    }

    pub(crate) fn phase(&self, run: &RunId) -> String {
        self.engine.run_summary(run).unwrap().phase
    }

    pub(crate) fn outcome(&self, run: usize) -> String {
        self.engine.run_summary(&self.run(run)).unwrap().outcome
    }
}
