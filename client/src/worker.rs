//! The thread that owns the trainer. Libtorch's tensors may not be shared
//! between threads, and no tensor may wait in an async task: work goes in by
//! one channel, its outcome comes back by another.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use rondo_proto::v1;
use rondo_trainer_api::work::{LocalUpdate, MakeTrainer, Progress, Trainer, Work, WorkError};
use tokio::sync::oneshot;

/// Which call of the trainer a piece of work is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// [`Trainer::warm_up`].
    WarmUp,
    /// [`Trainer::train`].
    Train,
    /// [`Trainer::evaluate`].
    Evaluate,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Of a warm-up or of training.
    Update(LocalUpdate),
    /// Of an evaluation.
    Evaluation(v1::Evaluation),
}

struct TrainingOrder {
    activity: Activity,
    work: Work,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
    done: oneshot::Sender<Result<Outcome, WorkError>>,
}

/// The thread and the way to it.
#[derive(Debug)]
pub struct Worker {
    orders: Option<mpsc::Sender<TrainingOrder>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(mut make: MakeTrainer) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<TrainingOrder>();
        let thread = thread::Builder::new().name("trainer".to_owned()).spawn(move || {
            let mut trainer = None;
            for order in inbox {
                let outcome = carry_out(&mut trainer, &mut make, &order);
                // Nobody waits when the work was dropped.
                let _ = order.done.send(outcome);
            }
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Hands over a piece of work. Dropping the handle stops the work at its next step.
    pub fn submit(&self, activity: Activity, work: Work) -> TrainingHandle {
        let (done, outcome) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Mutex::new(Progress::default()));
        let order = TrainingOrder { activity, work, stop: Arc::clone(&stop), progress: Arc::clone(&progress), done };
        // Should the thread be gone, `done` is dropped with the order and the outcome says so.
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
        TrainingHandle { outcome, stop, progress }
    }

    /// Waits until the present work has come to its next
    /// step. Its handle should have been dropped before.
    pub fn finish(mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A piece of work that the trainer does.
#[derive(Debug)]
pub struct TrainingHandle {
    outcome: oneshot::Receiver<Result<Outcome, WorkError>>,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
}

impl TrainingHandle {
    /// How far it is; can be read while the outcome is waited for.
    pub fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// The trainer cannot be made, fails or panics, the work was stopped, or the trainer's thread
    /// is gone.
    pub async fn outcome(mut self) -> Result<Outcome, WorkError> {
        let gone = || WorkError::Panicked("the trainer's thread is gone".to_owned());
        (&mut self.outcome).await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for TrainingHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn carry_out(
    trainer: &mut Option<Box<dyn Trainer>>,
    make: &mut MakeTrainer,
    order: &TrainingOrder,
) -> Result<Outcome, WorkError> {
    let mut report = |progress: Progress| {
        *order.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        if order.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    if report(Progress::default()).is_break() {
        return Err(WorkError::Interrupted);
    }
    // A trainer that panicked is not used again, so its broken insides are never seen.
    let mut taken = trainer.take();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let trainer = match &mut taken {
            Some(trainer) => trainer,
            None => taken.insert(make()?),
        };
        match order.activity {
            Activity::WarmUp => trainer.warm_up(&order.work, &mut report).map(Outcome::Update),
            Activity::Train => trainer.train(&order.work, &mut report).map(Outcome::Update),
            Activity::Evaluate => trainer.evaluate(&order.work, &mut report).map(Outcome::Evaluation),
        }
    }));
    match result {
        Ok(result) => {
            *trainer = taken;
            result
        }
        Err(panic) => Err(WorkError::Panicked(panic_message(panic.as_ref()))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
