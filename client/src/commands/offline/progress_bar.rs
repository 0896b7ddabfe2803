//! How far a command has come, on a terminal.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rondo_trainer_api::work::Progress;

/// A progress bar on standard error, hidden where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} {msg} {eta}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// A line for work that has no steps to count.
    pub(super) fn waiting(what: &'static str, message: &'static str) -> Self {
        let bar = Self::new(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {spinner} {msg} {elapsed}") {
            bar.0.set_style(style);
        }
        bar.0.set_message(message);
        bar
    }

    /// Shows where the work stands.
    pub(super) fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        self.0.set_length(progress.steps.into());
        self.0.set_position(progress.step.into());
        if progress.loss > 0.0 {
            self.0.set_message(format!("loss {:.3}", progress.loss));
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
