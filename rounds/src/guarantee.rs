//! What a run's promise of privacy asks of it, of its updates, and of who may go on.
//!
//! With unit `example` every data owner clips, noises and keeps the books at home; the coordinator sees what each update
//! cost, refuses one that cost more than was promised, and stops when too few can afford another round. With unit
//! `client` the coordinator keeps the books itself ([`crate::central`]).

use rondo_dp::{Accountant, ClientPlan, Event, Privacy};
use rondo_methods::{DpSupport, Job};
use rondo_proto::{ClientId, v1};

use crate::central::{self, Central, CohortKey};
use crate::effect::RoundKind;
use crate::input::StoredUpdate;
use crate::policy::Policy;
use crate::rejection::Rejection;
use crate::state::{Member, Run};

/// How far two machines' accountants may differ, as a share: their elementary functions may.
const ROUNDING: f64 = 1e-9;

/// Checks that a promise can be kept with the run's method.
pub(crate) fn check(privacy: &Privacy, job: &Job) -> Result<(), Rejection> {
    if !privacy.is_none() && job.warm_up_reads_data() {
        return Err(Rejection::PrivateWarmUp { method: job.method().id().to_owned() });
    }
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

/// How a promise per client is kept; `None` for any other.
pub(crate) fn central(privacy: &Privacy, policy: &Policy, key: CohortKey) -> Result<Option<Central>, Rejection> {
    let Privacy::Client { sampling_rate, .. } = privacy else { return Ok(None) };
    let plan = ClientPlan::new(privacy, policy.cohort, policy.rounds)?;
    Ok(Some(Central { plan, key: sampling_rate.map(|_| key) }))
}

/// Why an update breaks the run's promise, if it does.
pub(crate) fn breach(run: &Run, client: &ClientId, update: &StoredUpdate) -> Option<String> {
    // A warm-up of a private run reads no data.
    if run.live.open.kind == RoundKind::WarmUp {
        return None;
    }
    let told = match run.spec.privacy {
        Privacy::None => return None,
        Privacy::Example { epsilon, delta, noise_multiplier, .. } => match &update.privacy {
            None => Some("it carries no privacy report, and the run promises privacy per example".to_owned()),
            Some(report) => {
                let before = run.members.get(client).and_then(|member| member.privacy.as_ref());
                bad_report(report, epsilon, delta)
                    .or_else(|| other_noise(report, noise_multiplier))
                    .or_else(|| too_cheap(report, before))
            }
        },
        Privacy::Client { .. } => update.privacy.is_some().then(|| {
            "it carries a privacy report, and in a run with privacy per client the coordinator has the books".into()
        }),
    };
    told.or_else(|| tells(update))
}

/// What an update tells that stays at home with privacy.
fn tells(update: &StoredUpdate) -> Option<String> {
    let tells = [
        ("an example count", update.examples != 0),
        ("a training loss", update.train_loss != 0.0),
        ("a training time", update.train_seconds != 0.0),
        ("a measurement", update.before.is_some()),
    ];
    let told = tells.into_iter().find_map(|(what, tells)| tells.then_some(what))?;
    Some(format!("it tells {told}, which a run with privacy keeps at home"))
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
        return Some(format!("its privacy report makes no sense for a promise per example at delta {delta:e}"));
    }
    if report.epsilon > epsilon {
        return Some(format!("it cost its data owner epsilon {:.4}, and the run promises {epsilon}", report.epsilon));
    }
    None
}

/// Whether a report has other noise than the run asks for.
fn other_noise(report: &v1::PrivacyReport, asked: Option<f64>) -> Option<String> {
    let (asked, told) = (asked?, report.noise_multiplier);
    (told != asked).then(|| format!("it was noised with multiplier {told}, and the run asks for {asked}"))
}

/// Whether an update tells of fewer noised steps than its client has told of before.
pub(crate) fn is_set_back(run: &Run, client: &ClientId, update: &StoredUpdate) -> bool {
    let before = run.members.get(client).and_then(|member| member.privacy.as_ref());
    before.zip(update.privacy.as_ref()).is_some_and(|(before, report)| report.total_steps < before.total_steps)
}

/// Whether a report tells a lower cost than its own noise, rate and steps come to, or fewer steps than the one before.
fn too_cheap(report: &v1::PrivacyReport, before: Option<&v1::PrivacyReport>) -> Option<String> {
    let (told, known) = (report.total_steps, before.map_or(0, |before| before.total_steps));
    if told < known {
        return Some(format!(
            "its data owner has told of {known} noised steps before, and now of {told} in all: its ledger was set back, and it \
             takes part in the run no more"
        ));
    }
    let event = Event::new(report.noise_multiplier, report.sampling_rate, told.into());
    let mut released = Accountant::new();
    released.record(event.ok()?);
    let least = released.epsilon_enforced(report.delta).ok()?;
    (report.epsilon < least * (1.0 - ROUNDING)).then(|| {
        format!(
            "its privacy report says epsilon {:.4}, and what it tells of the noise comes to {least:.4}",
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

/// The promise in one line, with what it has cost so far.
pub(crate) fn statement(run: &Run) -> String {
    let promise = run.spec.privacy.statement();
    if let Some(central) = &run.spec.central {
        return promise + &central::statement(central, run.live.charged.as_ref());
    }
    match spent(run) {
        Some(v1::PrivacyReport { epsilon, epsilon_pld, total_steps, .. }) => {
            format!("{promise}; spent at most {epsilon:.4} ({epsilon_pld:.4} by PLD), {total_steps} steps")
        }
        None => promise,
    }
}

/// The most that any member has spent in the run so far.
fn spent(run: &Run) -> Option<&v1::PrivacyReport> {
    let reports = run.members.values().filter_map(|member| member.privacy.as_ref());
    reports.max_by(|left, right| left.epsilon.total_cmp(&right.epsilon))
}
