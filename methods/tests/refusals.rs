//! What is refused, when, and in what words.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use rondo_methods::law::shares;
use rondo_methods::{
    At, Delta, DpSupport, Exactness, Instance, Job, Kind, LawKind, Method, MethodConfig, MethodError, Registry, Start,
    TensorSpec, Travel, UpdateRefusal,
};
use suite::{Federation, base, run_file};

fn refusal(id: &str, rank: usize, options: &str) -> String {
    match Job::new(&Registry::builtin(), &run_file(id, rank, options, ""), &base()) {
        Ok(job) => panic!("accepted: {job:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn run_files_are_refused_before_any_round() {
    let text = refusal("fedsb", 2, "");
    assert!(text.contains("unknown method `fedsb`, did you mean `fed-sb`?") && text.contains("flora"), "{text}");
    let text = refusal("fed-sb", 2, "overample = 3");
    assert!(text.contains("`method.overample`") && text.contains("did you mean `oversample`?"), "{text}");
    let text = refusal("fedit", 2, "init = \"base-svd\"");
    assert!(text.contains("it has no options"), "{text}");
    let text = refusal("fed-sb", 2, "init = \"gradient-sketsh\"");
    assert!(text.contains("did you mean \"gradient-sketch\"?") && text.contains("\"base-svd\""), "{text}");
    let text = refusal("fed-sb", 2, "oversample = 0");
    assert!(text.contains("from 1 to 1024"), "{text}");
    let text = refusal("fed-sb", 2, "eta0 = -1.0");
    assert!(text.contains("above 0"), "{text}");
    let text = refusal("fed-sb", 2, "alpha = 4.0");
    assert!(text.contains("scale of B.R.A is 1") && text.contains("rank, 2"), "{text}");
    let text = refusal("miss", 2, "alpha = 4.0");
    assert!(text.contains("D^T.E has no scale") && text.contains("rank, 2"), "{text}");
    let text = refusal("fed-sb", 2, "init = \"base-svd\"\nstart = \"first-step\"");
    assert!(text.contains("knows no gradient"), "{text}");
    let text = refusal("ffa-lora", 6, "");
    assert!(
        text.contains("rank 6 is outside 1 to 5 for target `encoder.layer.0.output.dense` of shape [5, 9]"),
        "{text}"
    );
    let mut run = run_file("fedit", 2, "", "");
    run.method.targets = vec!["quary".into()];
    let error = Job::new(&Registry::builtin(), &run, &base()).unwrap_err();
    assert!(matches!(error, MethodError::Targets(_)) && error.to_string().contains("quary"), "{error}");
}

#[test]
fn ranks_of_clients_follow_the_method() {
    let of = |id: &str| Job::new(&Registry::builtin(), &run_file(id, 3, "", ""), &base()).unwrap();
    assert_eq!(of("flora").client_rank(0).unwrap(), 3);
    assert_eq!(of("flora").client_rank(2).unwrap(), 2);
    assert!(of("flora").client_rank(4).is_err());
    for id in ["fedit", "fedex-lora"] {
        assert_eq!(of(id).client_rank(3).unwrap(), 3);
        let text = of(id).client_rank(2).unwrap_err().to_string();
        assert!(text.contains(id) && text.contains("all clients train with the run's rank"), "{text}");
    }
    for id in ["ffa-lora", "fed-sb", "flexlora", "rolora", "fedsvd", "zero-pad", "miss"] {
        assert_eq!(of(id).client_rank(1).unwrap(), 1);
        assert!(of(id).client_rank(4).is_err());
    }
}

#[test]
fn a_pull_towards_an_adapter_that_starts_anew_is_refused() {
    let outcome = |id: &str| {
        let mut run = run_file(id, 2, "", "");
        run.train.proximal = 0.1;
        Job::new(&Registry::builtin(), &run, &base()).map(|_| ()).map_err(|error| error.to_string())
    };
    let text = outcome("flora").unwrap_err();
    assert!(text.contains("`train.proximal`") && text.contains("flora") && text.contains("set it to 0"), "{text}");
    for id in ["fedit", "ffa-lora", "fed-sb", "fedex-lora", "rolora"] {
        assert_eq!(outcome(id), Ok(()));
    }
}

#[test]
fn states_need_the_right_files() {
    let registry = Registry::builtin();
    let mut sb = Federation::start(&registry, "fed-sb", 2, "", "");
    let error = sb.job.state(1, "anna", 0, None, &[]).unwrap_err();
    assert!(error.to_string().contains("the warm-up round brings it"), "{error}");
    // The published file in the frozen one's place, and the other way round.
    let (frozen, published) = (sb.frozen.clone().unwrap(), sb.published.clone());
    assert!(matches!(sb.job.state(1, "anna", 0, Some(&published[0]), &published), Err(MethodError::Artefact { .. })));
    assert!(matches!(
        sb.job.state(1, "anna", 0, Some(&frozen), std::slice::from_ref(&frozen)),
        Err(MethodError::Artefact { .. })
    ));
    sb.frozen = None;
    let updates = Federation::start(&registry, "fed-sb", 2, "", "").three();
    let updates = updates.iter().map(|trained| sb.upload(trained)).collect();
    assert!(matches!(sb.aggregate(Kind::Train, updates, "x"), Err(MethodError::Missing { .. })));

    // FLoRA's stacks must all be there, in order.
    let mut flora = Federation::start(&registry, "flora", 2, "", "");
    for _ in 0..3 {
        let updates = flora.three().iter().map(|trained| flora.upload(trained)).collect();
        flora.finish(Kind::Train, updates).unwrap();
    }
    let gap = [flora.published[0].clone(), flora.published[2].clone()];
    let error = flora.job.state(4, "anna", 0, None, &gap).unwrap_err();
    assert!(error.to_string().contains("one is missing"), "{error}");

    // A publisher with other seeded tensors is not believed.
    let mut run = run_file("ffa-lora", 2, "", "");
    let one = Federation::start(&registry, "ffa-lora", 2, "", "");
    let updates = one.three().iter().map(|trained| one.upload(trained)).collect();
    let output = one.aggregate(Kind::Train, updates, "seeds").unwrap();
    run.train.seed += 1;
    let other = Job::new(&registry, &run, &base()).unwrap();
    assert!(matches!(other.state(2, "anna", 0, None, &[output.global]), Err(MethodError::Seeds(_))));
}

#[test]
fn contributions_are_checked() {
    let federation = Federation::start(&Registry::builtin(), "fedit", 2, "", "");
    let updates: Vec<_> = federation.three().iter().map(|trained| federation.upload(trained)).collect();
    let refused = |updates: Vec<_>| federation.aggregate(Kind::Train, updates, "x").unwrap_err().to_string();
    assert!(refused(Vec::new()).contains("no updates"));
    assert!(refused(updates[..2].to_vec()).contains("sum to 1"));
    let mut twice = updates.clone();
    twice[1].client = twice[0].client.clone();
    assert!(refused(twice).contains("comes twice"));
    let mut lower = updates.clone();
    lower[0].rank = 1;
    assert!(refused(lower).contains("all clients train with the run's rank"));
    assert!(federation.aggregate(Kind::WarmUp, updates, "x").unwrap_err().to_string().contains("no warm-up"));
    assert!(shares(&[1.0, 3.0]).unwrap() == [0.25, 0.75]);
    for broken in [vec![], vec![0.0], vec![1.0, -1.0], vec![f64::NAN], vec![f64::INFINITY]] {
        assert!(shares(&broken).is_err(), "{broken:?}");
    }
    let path = federation.dir.path().join("none");
    assert!(matches!(
        federation.job.check_update(Kind::WarmUp, Instance::in_round(0).with_rank(2), &path, None),
        Err(UpdateRefusal::NoWarmUp(_))
    ));
}

/// A method from outside whose answers do not fit together.
struct Broken {
    id: &'static str,
    law: LawKind,
    delta: Delta,
    travel: Travel,
    mixed: bool,
    block: Option<[usize; 2]>,
    last_round: u32,
}

impl Method for Broken {
    fn id(&self) -> &str {
        self.id
    }
    fn title(&self) -> &str {
        ""
    }
    fn paper(&self) -> &str {
        ""
    }
    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        vec![
            TensorSpec::trained("a", &[at.rank, at.target.inp], self.travel, Start::Zero),
            TensorSpec {
                block: self.block.map(Vec::from),
                ..TensorSpec::trained("b", &[at.target.out, at.rank], self.travel, Start::Zero)
            },
        ]
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        self.mixed
    }
    fn trains_in(&self, _config: &MethodConfig, at: At<'_>, _part: &str) -> bool {
        at.round.is_some_and(|round| round <= self.last_round)
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        self.law
    }
    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        self.delta.clone()
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Unsupported("a test".into())
    }
}

#[test]
fn methods_that_do_not_fit_are_refused() {
    let sound = || Broken {
        id: "broken",
        law: LawKind::Mean,
        delta: Delta::product(&["b", "a"]),
        travel: Travel::Both,
        mixed: false,
        block: None,
        last_round: u32::MAX,
    };
    let mut registry = Registry::builtin();
    assert!(registry.register(Box::new(Broken { id: "fedit", ..sound() })).is_err());
    assert!(registry.register(Box::new(Broken { id: "Broken", ..sound() })).is_err());
    let outcome = |method: Broken| {
        let mut registry = Registry::empty();
        registry.register(Box::new(method)).unwrap();
        Job::new(&registry, &run_file("broken", 2, "", ""), &base()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(outcome(sound()), Ok(()));
    for law in [LawKind::Agree, LawKind::Sum] {
        let text = outcome(Broken { law, ..sound() }).unwrap_err();
        assert!(text.contains("its law is for warm-up statistics only"), "{text}");
    }
    let text = outcome(Broken { delta: Delta::product(&["a", "b"]), ..sound() }).unwrap_err();
    assert!(text.contains("the delta `a.b` is (2, 2), the weight is (6, 6)"), "{text}");
    let text = outcome(Broken { delta: Delta::product(&["b", "a"]).transposed(), ..sound() }).unwrap_err();
    assert!(text.contains("(b.a)^T"), "{text}");
    let text = outcome(Broken { delta: Delta::product(&["b", "c"]), ..sound() }).unwrap_err();
    assert!(text.contains("part `c` is not there"), "{text}");
    let text = outcome(Broken { travel: Travel::Never, ..sound() }).unwrap_err();
    assert!(text.contains("never sent up"), "{text}");
    let text = outcome(Broken { travel: Travel::Up, ..sound() }).unwrap_err();
    assert!(text.contains("both ways"), "{text}");
    let text = outcome(Broken { mixed: true, ..sound() }).unwrap_err();
    assert!(text.contains("tensors of different shapes have no mean"), "{text}");
    assert_eq!(outcome(Broken { mixed: true, law: LawKind::Padded, ..sound() }), Ok(()));
    for block in [[6, 3], [0, 1]] {
        let text = outcome(Broken { block: Some(block), ..sound() }).unwrap_err();
        assert!(text.contains("part `b` has a block that trains, but that is no part of it"), "{text}");
    }
    let text = outcome(Broken { block: Some([3, 1]), law: LawKind::Padded, ..sound() }).unwrap_err();
    assert!(text.contains("its law does not keep what lies outside"), "{text}");
    let text = outcome(Broken { last_round: 1, ..sound() }).unwrap_err();
    assert!(text.contains("nothing trains in round 2"), "{text}");
    let text = outcome(Broken { law: LawKind::Residual, last_round: 0, ..sound() }).unwrap_err();
    assert!(text.contains("nothing trains in round 1"), "{text}");
    let sum = Delta::Sum(vec![Delta::product(&["b", "a"]), Delta::product(&["b", "a"])]);
    let text = outcome(Broken { law: LawKind::Truncate, delta: sum, ..sound() }).unwrap_err();
    assert!(text.contains("no product of two"), "{text}");
}
