//! The policy of this client: which runs it takes part in. It is checked before a run is answered.

use rondo_proto::run_file::RunFile;
use rondo_trainer_api::limits::Limits;
use rondo_trainer_api::memory::TooLarge;

use crate::config::PolicyConfig;

/// Why a run is declined. The coordinator gets these words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Decline {
    /// A value that the policy's list does not hold.
    #[error("this client's policy allows {what} {}, not {found:?}", list(.allowed))]
    NotAllowed {
        /// "methods", "tasks", "data sets".
        what: &'static str,
        /// What the run has.
        found: String,
        /// What the policy lists.
        allowed: Vec<String>,
    },
    /// The run has no privacy and the policy asks for it.
    #[error("this client's policy asks for privacy, and the run has no [privacy] table")]
    NoPrivacy,
    /// The run leaves the noise to the coordinator, and the policy asks for noise on this machine.
    #[error(
        "this client's policy asks for privacy.unit = \"example\", and the run has \"client\", whose updates reach the \
         coordinator without noise"
    )]
    UnitClient,
    /// The data have a budget that this run cannot be held against.
    #[error(
        "data set {dataset:?} has a privacy budget here, which binds runs with privacy.unit = \"example\" alone; it is for \
         no others"
    )]
    Budgeted {
        /// The data set.
        dataset: String,
    },
    /// The run measures on data that are not public.
    #[error(
        "a run with privacy is measured on public data alone, and this client does not call data set {dataset:?} public \
         (public = true in its [[dataset]] table)"
    )]
    NotPublic {
        /// The data set.
        dataset: String,
    },
    /// The run's privacy budget is too large.
    #[error("this client's policy allows epsilon up to {limit}, and the run spends {found}")]
    Epsilon {
        /// The run's.
        found: f64,
        /// The policy's.
        limit: f64,
    },
    /// The run's chance of failure is too large.
    #[error("this client's policy allows delta up to {limit:e}, and the run has {found:e}")]
    Delta {
        /// The run's.
        found: f64,
        /// The policy's.
        limit: f64,
    },
    /// A number above a limit.
    #[error("this client's policy allows {what} up to {limit}, and the run has {found}")]
    TooLarge {
        /// Dotted key of the run file.
        what: &'static str,
        /// The run's.
        found: u64,
        /// The policy's.
        limit: u32,
    },
    /// The rank is above this client's and the method needs one rank for all.
    #[error("this client trains ranks up to {limit}, the run has rank {found}, and its method needs one rank for all")]
    Rank {
        /// The run's.
        found: usize,
        /// The client's.
        limit: u32,
    },
    /// A training step does not fit into this client's memory.
    #[error("{0}")]
    Memory(#[from] Box<TooLarge>),
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Checks a run and gives the rank to train with: the run's, or this
/// client's largest where the method can mix ranks.
///
/// # Errors
/// The policy does not allow the run's method, task, data set or privacy, a number is above its
/// limit, or the rank is above this client's and the method needs one rank for all.
pub fn check(policy: &PolicyConfig, limits: &Limits, run: &RunFile, mixed_ranks: bool) -> Result<u32, Decline> {
    let task = run.task.kind.name();
    for (what, found, allowed) in [
        ("methods", run.method.id.as_str(), &policy.methods),
        ("tasks", task, &policy.tasks),
        ("data sets", run.task.dataset.as_str(), &policy.datasets),
    ] {
        if !allowed.is_empty() && !allowed.iter().any(|name| name == found) {
            return Err(Decline::NotAllowed { what, found: found.to_owned(), allowed: allowed.clone() });
        }
    }
    privacy(policy, run)?;
    for (what, found, limit) in [
        ("rounds.count", u64::from(run.rounds.count), policy.max_rounds),
        ("train.local_steps", u64::from(run.train.local_steps), policy.max_local_steps),
        ("train.batch", u64::from(run.train.batch), policy.max_batch),
        ("task.max_tokens", run.task.max_tokens as u64, policy.max_tokens),
    ] {
        if limit > 0 && found > u64::from(limit) {
            return Err(Decline::TooLarge { what, found, limit });
        }
    }
    let found = run.method.rank;
    let limit = limits.max_rank;
    if limit == 0 || found <= limit as usize {
        // The run file bounds the rank by the targets' dimensions, far below u32.
        return Ok(u32::try_from(found).unwrap_or(u32::MAX));
    }
    if mixed_ranks { Ok(limit) } else { Err(Decline::Rank { found, limit }) }
}

/// Whether a run's privacy is enough.
fn privacy(policy: &PolicyConfig, run: &RunFile) -> Result<(), Decline> {
    let Some(asked) = &run.privacy else {
        return if policy.require_privacy { Err(Decline::NoPrivacy) } else { Ok(()) };
    };
    if policy.require_privacy && asked.is_per_client() && !policy.accept_unit_client {
        return Err(Decline::UnitClient);
    }
    if let Some(limit) = policy.max_epsilon.filter(|limit| asked.epsilon > *limit) {
        return Err(Decline::Epsilon { found: asked.epsilon, limit });
    }
    match policy.max_delta.filter(|limit| asked.delta > *limit) {
        Some(limit) => Err(Decline::Delta { found: asked.delta, limit }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rondo_proto::run_file::PrivacyChoice;

    use super::*;

    fn run() -> RunFile {
        toml::from_str(
            r#"
            name = "sentiment"
            base = { model = "tiny" }
            task = { kind = "classification", dataset = "reviews", labels = ["a", "b"], max_tokens = 64 }
            method = { id = "flora", rank = 16, targets = ["query"] }
            train = { local_steps = 20, batch = 32, lr = 1e-3 }
            rounds = { count = 5, cohort = 2, quorum = 1 }
            "#,
        )
        .unwrap()
    }

    fn private(epsilon: f64) -> RunFile {
        let privacy = PrivacyChoice {
            unit: "example".to_owned(),
            epsilon,
            delta: 1e-5,
            clip: 1.0,
            noise_multiplier: None,
            sampling_rate: None,
            clip_quantile: None,
            warm_up_clip: None,
        };
        RunFile { privacy: Some(privacy), ..run() }
    }

    #[test]
    fn the_rank_is_cut_where_the_method_mixes_ranks() {
        let limits = |max_rank| Limits { max_rank, ..Limits::default() };
        let open = PolicyConfig::default();
        assert_eq!(check(&open, &limits(0), &run(), false), Ok(16));
        assert_eq!(check(&open, &limits(16), &run(), false), Ok(16));
        assert_eq!(check(&open, &limits(8), &run(), true), Ok(8));
        assert_eq!(check(&open, &limits(8), &run(), false), Err(Decline::Rank { found: 16, limit: 8 }));
    }

    #[test]
    fn each_rule_declines_with_its_reason() {
        let per_client = || {
            let mut run = private(3.0);
            run.privacy.iter_mut().for_each(|privacy| privacy.unit = "client".to_owned());
            run
        };
        let rules: [(PolicyConfig, RunFile, &str); 10] = [
            (
                PolicyConfig { methods: vec!["fed-sb".into()], ..Default::default() },
                run(),
                "allows methods \"fed-sb\", not \"flora\"",
            ),
            (PolicyConfig { tasks: vec!["causal-lm".into()], ..Default::default() }, run(), "not \"classification\""),
            (
                PolicyConfig { datasets: vec!["notes".into()], ..Default::default() },
                run(),
                "data sets \"notes\", not \"reviews\"",
            ),
            (PolicyConfig { require_privacy: true, ..Default::default() }, run(), "asks for privacy"),
            (
                PolicyConfig { max_epsilon: Some(1.0), ..Default::default() },
                private(3.0),
                "epsilon up to 1, and the run spends 3",
            ),
            (
                PolicyConfig { max_delta: Some(1e-6), ..Default::default() },
                private(3.0),
                "delta up to 1e-6, and the run has 1e-5",
            ),
            (
                PolicyConfig { require_privacy: true, ..Default::default() },
                per_client(),
                "privacy.unit = \"example\", and the run has \"client\"",
            ),
            (PolicyConfig { max_rounds: 4, ..Default::default() }, run(), "rounds.count up to 4, and the run has 5"),
            (PolicyConfig { max_local_steps: 10, ..Default::default() }, run(), "train.local_steps up to 10"),
            (PolicyConfig { max_tokens: 32, ..Default::default() }, run(), "task.max_tokens up to 32"),
        ];
        for (policy, run, says) in rules {
            let reason = check(&policy, &Limits::default(), &run, true).unwrap_err().to_string();
            assert!(reason.contains(says), "{reason:?} should contain {says:?}");
        }
        let strict = PolicyConfig {
            methods: vec!["flora".into()],
            require_privacy: true,
            max_epsilon: Some(3.0),
            max_delta: Some(1e-5),
            ..Default::default()
        };
        assert_eq!(check(&strict, &Limits::default(), &private(3.0), true), Ok(16));
        let trusting = PolicyConfig { accept_unit_client: true, ..strict };
        assert_eq!(check(&trusting, &Limits::default(), &per_client(), true), Ok(16));
        assert_eq!(check(&trusting, &Limits::default(), &run(), true), Err(Decline::NoPrivacy));
    }
}
