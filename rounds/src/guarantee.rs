//! What a run's privacy guarantee requires: of the run, of its updates, and of who may go on.
//!
//! With unit `example` every data owner clips, adds noise and keeps a ledger of its own. The
//! coordinator sees what each update cost. It refuses one that cost more than the run allows, and
//! it ends the run when too few clients can afford another round. With unit `client` the
//! coordinator keeps the ledger itself (`phases::charging`).

use rondo_dp::{Accountant, ClientPlan, Event, Privacy};
use rondo_methods::{DpSupport, Instance, Job, Kind, LawKind};
use rondo_proto::{ClientId, v1};

use crate::input::StoredUpdate;
use crate::key::{CohortKey, RoundKind};
use crate::policy::Policy;
use crate::rejection::Rejection;
use crate::state::central::{Central, Charged};
use crate::state::{Member, Run};

/// Largest relative difference between two machines' accountants: their elementary functions
/// differ.
const ROUNDING: f64 = 1e-9;

/// Checks that a guarantee can be kept with the run's method.
pub(crate) fn check(privacy: &Privacy, job: &Job) -> Result<(), Rejection> {
    check_warm_up(privacy, job)?;
    if let Privacy::Client { .. } = privacy {
        let fresh = "every client starts each round from tensors of its own, so their changes have no sum";
        let why = match job.dp_support() {
            DpSupport::Central { .. } if job.fresh_each_round() => fresh.to_owned(),
            DpSupport::Central { .. } => return Ok(()),
            DpSupport::LocalOnly(why) | DpSupport::Unsupported(why) => why,
        };
        return Err(Rejection::NotCentral { method: job.method().id().to_owned(), why });
    }
    Ok(())
}

/// Checks that a warm-up which reads data pays for it, and that nothing else is to be paid for.
fn check_warm_up(privacy: &Privacy, job: &Job) -> Result<(), Rejection> {
    let method = job.method().id().to_owned();
    match (privacy.warm_up_clip(), job.warm_up_reads_data()) {
        (None, true) if !privacy.is_none() => return Err(Rejection::PrivateWarmUp { method }),
        (Some(_), false) => return Err(Rejection::NoPaidWarmUp { method }),
        (None, _) => return Ok(()),
        (Some(_), true) => {}
    }
    let why = match privacy {
        Privacy::Client { .. } => match job.warm_up_law() {
            Some(LawKind::Mean | LawKind::Sum) => return Ok(()),
            _ => "its clients' statistics have no sum",
        },
        _ if job.warm_up_passes() == 1 => return Ok(()),
        _ => "it goes over the examples more than once, and one noised step covers one pass",
    };
    Err(Rejection::UnpayableWarmUp { method, why })
}

/// How a guarantee per client is kept. `None` for any other unit.
pub(crate) fn central(privacy: &Privacy, policy: &Policy, key: CohortKey) -> Result<Option<Central>, Rejection> {
    let Privacy::Client { sampling_rate, .. } = privacy else { return Ok(None) };
    let plan = ClientPlan::new(privacy, policy.cohort, policy.rounds)?;
    Ok(Some(Central { plan, key: sampling_rate.map(|_| key) }))
}

/// Why an update breaks the run's guarantee, if it does.
pub(crate) fn breach(run: &Run, client: &ClientId, update: &StoredUpdate) -> Option<String> {
    // A warm-up that is not paid for reads no data.
    let is_warm_up = run.live.open.kind == RoundKind::WarmUp;
    if is_warm_up && run.spec.privacy.warm_up_clip().is_none() {
        return None;
    }
    let breach = match run.spec.privacy {
        Privacy::None => return None,
        Privacy::Example { epsilon, delta, noise_multiplier, .. } => match &update.privacy {
            None => Some("it carries no privacy report, and the run guarantees privacy per example".to_owned()),
            Some(report) => {
                let before = run.members.get(client).and_then(|member| member.privacy.as_ref());
                bad_report(report, epsilon, delta)
                    .or_else(|| is_warm_up.then(|| too_many_steps(report)).flatten())
                    .or_else(|| other_noise(report, noise_multiplier))
                    .or_else(|| too_cheap(report, before))
            }
        },
        Privacy::Client { .. } => update.privacy.is_some().then(|| {
            "it carries a privacy report, and in a run with privacy per client the coordinator keeps the ledger".into()
        }),
    };
    breach.or_else(|| discloses(update))
}

/// What an update reports that must stay at its client in a run with privacy.
fn discloses(update: &StoredUpdate) -> Option<String> {
    let reports = [
        ("an example count", update.examples != 0),
        ("a training loss", update.train_loss != 0.0),
        ("a training time", update.train_seconds != 0.0),
        ("a measurement", update.before.is_some()),
    ];
    let reported = reports.into_iter().find_map(|(what, is_reported)| is_reported.then_some(what))?;
    Some(format!("it reports {reported}, which stays at its client in a run with privacy"))
}

/// What is wrong with the report of an update that its data owner noised.
fn bad_report(report: &v1::PrivacyReport, epsilon: f64, delta: f64) -> Option<String> {
    let sensible = report.unit == "example"
        && report.delta == delta
        && report.noise_multiplier > 0.0
        && report.noise_multiplier.is_finite()
        && report.sampling_rate > 0.0
        && report.sampling_rate <= 1.0
        && report.steps >= 1
        && report.total_steps >= report.steps
        && report.epsilon >= 0.0
        && report.epsilon.is_finite()
        && report.next_epsilon >= report.epsilon;
    if !sensible {
        return Some(format!("its privacy report makes no sense for a guarantee per example at delta {delta:e}"));
    }
    if report.epsilon > epsilon {
        return Some(format!("it cost its data owner epsilon {:.4}, and the run allows {epsilon}", report.epsilon));
    }
    None
}

/// Whether the report of a warm-up, which is one noised step, states another number of steps.
fn too_many_steps(report: &v1::PrivacyReport) -> Option<String> {
    let steps = report.steps;
    (steps != 1).then(|| format!("its warm-up took {steps} noised steps, and a paid warm-up is one"))
}

/// Whether a report states other noise than the run asks for.
fn other_noise(report: &v1::PrivacyReport, asked: Option<f64>) -> Option<String> {
    let asked = asked?;
    let reported = report.noise_multiplier;
    (reported != asked).then(|| format!("it was noised with multiplier {reported}, and the run asks for {asked}"))
}

/// Whether an update reports fewer noised steps than its client has reported before.
pub(crate) fn is_set_back(run: &Run, client: &ClientId, update: &StoredUpdate) -> bool {
    let before = run.members.get(client).and_then(|member| member.privacy.as_ref());
    before.zip(update.privacy.as_ref()).is_some_and(|(before, report)| report.total_steps < before.total_steps)
}

/// Whether a report states a lower cost than its own noise, rate and steps come to, or fewer steps
/// than the report before.
fn too_cheap(report: &v1::PrivacyReport, before: Option<&v1::PrivacyReport>) -> Option<String> {
    let reported = report.total_steps;
    let known = before.map_or(0, |before| before.total_steps);
    if reported < known {
        return Some(format!(
            "its data owner has reported {known} noised steps before, and now {reported} in all: its ledger was set back, \
             and it takes part in the run no more"
        ));
    }
    let event = Event::new(report.noise_multiplier, report.sampling_rate, reported.into());
    let mut released = Accountant::new();
    released.record(event.ok()?);
    let least = released.epsilon_enforced(report.delta).ok()?;
    (report.epsilon < least * (1.0 - ROUNDING)).then(|| {
        format!(
            "its privacy report says epsilon {:.4}, and what it reports of the noise comes to {least:.4}",
            report.epsilon
        )
    })
}

/// Whether a member's budget of the run has room for one more round, as far as anybody knows.
pub(crate) fn can_afford(privacy: &Privacy, member: &Member) -> bool {
    if member.set_back {
        return false;
    }
    match (privacy, &member.privacy) {
        (Privacy::Example { epsilon, .. }, Some(report)) => report.next_epsilon <= *epsilon,
        _ => true,
    }
}

/// The guarantee in one line, with what it has cost so far.
pub(crate) fn statement(run: &Run) -> String {
    let guarantee = run.spec.privacy.statement();
    if let Some(central) = &run.spec.central {
        return guarantee + &statement_of_releases(central, run.live.charged.as_ref());
    }
    match spent(run) {
        Some(v1::PrivacyReport { epsilon, epsilon_pld, total_steps, .. }) => {
            format!("{guarantee}; spent at most {epsilon:.4} ({epsilon_pld:.4} by PLD), {total_steps} steps")
        }
        None => guarantee,
    }
}

/// The most that any member has spent in the run so far.
fn spent(run: &Run) -> Option<&v1::PrivacyReport> {
    let reports = run.members.values().filter_map(|member| member.privacy.as_ref());
    reports.max_by(|left, right| left.epsilon.total_cmp(&right.epsilon))
}

/// How a guarantee per client is kept and what it has cost, to follow the guarantee's own line.
fn statement_of_releases(central: &Central, charged: Option<&Charged>) -> String {
    let ClientPlan { noise_multiplier, sampling_rate, divisor, .. } = central.plan;
    let mut text = format!(", noise multiplier {noise_multiplier:.4} on the sum over {divisor}");
    if central.key.is_some() {
        text += &format!(", Poisson-sampled cohorts at rate {sampling_rate}");
    }
    let Some(Charged { releases, epsilon, epsilon_pld, epsilon_seen, .. }) = charged else { return text };
    let plural = if *releases == 1 { "" } else { "s" };
    text += &format!("; spent {epsilon:.4} ({epsilon_pld:.4} by PLD) in {releases} release{plural}");
    if central.key.is_some() {
        text += &format!(", {epsilon_seen:.4} to whoever sees the cohorts");
    }
    text
}

/// The predicted L2 norm of a run's noise, against that of its updates. A mean of updates cannot
/// exceed the clip.
pub(crate) fn prediction(plan: &ClientPlan, job: &Job) -> String {
    let tensors = job.upload_manifest(Kind::Train, Instance::in_round(1));
    let numbers: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let noise = plan.noise_norm(numbers as u64);
    let ratio = plan.signal_to_noise(numbers as u64);
    let fix = if ratio < 1.0 { ": use more clients, a smaller rank, or unit \"example\"" } else { "" };
    format!(
        "predicted noise norm {noise:.3} over {numbers} numbers, against updates of at most {} (signal-to-noise \
         {ratio:.3}){fix}",
        plan.clip
    )
}
