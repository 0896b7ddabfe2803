//! Methods that the crate does not know. They are registered from outside and must pass everything
//! the built-in ones do.

use super::questions;

use rondo_methods::init::seeded::{kaiming_bound, sketch_bound};
use rondo_methods::{
    At, Delta, DpSupport, Exactness, LawKind, Method, MethodConfig, OptionKind, OptionSpec, Registry, Start,
    TensorSpec, Travel,
};

/// dW = gain * B.diag(d).A: random frozen factors, a trained vector (in the manner of VeRA), of
/// which a client of a lower rank trains the first numbers.
pub struct Vector;

impl Method for Vector {
    fn id(&self) -> &str {
        "vector"
    }
    fn title(&self) -> &str {
        "a trained diagonal between random factors"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn options(&self) -> &[OptionSpec] {
        &[OptionSpec { name: "gain", kind: OptionKind::Positive, default: Some("2.0"), help: "scale of the delta" }]
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        vec![
            TensorSpec::trained("d", &[config.rank], Travel::Both, Start::Zero).with_block(&[at.rank]),
            TensorSpec::seeded("a", &[config.rank, at.target.inp], sketch_bound(at.target.inp)),
            TensorSpec::seeded("b", &[at.target.out, config.rank], sketch_bound(at.target.out)),
        ]
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }
    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        let factors = vec![Delta::mat("b"), Delta::Diag("d".into()), Delta::mat("a")];
        Delta::Product(factors).scaled(config.number("gain").unwrap_or(2.0))
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec!["d".into()] }
    }
}

/// dW = (alpha / r) (B.Z^T - 0.5 B.C.A) with everything trained and stacked: transposes, sums and
/// inner factors in one.
pub struct Braid;

impl Method for Braid {
    fn id(&self) -> &str {
        "braid"
    }
    fn title(&self) -> &str {
        "a sum of two products, stacked"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let start = Start::SeededUniform { bound: kaiming_bound(at.target.inp) };
        vec![
            TensorSpec::trained("b", &[at.target.out, at.rank], Travel::Up, Start::Zero),
            TensorSpec::trained("z", &[at.target.inp, at.rank], Travel::Up, start),
            TensorSpec::trained("c", &[at.rank, at.rank], Travel::Up, start),
            TensorSpec::trained("a", &[at.rank, at.target.inp], Travel::Up, start),
        ]
    }
    fn fresh_each_round(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Stack
    }
    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        let first = Delta::Product(vec![Delta::mat("b"), Delta::mat("z").transposed()]);
        let second = Delta::product(&["b", "c", "a"]).scaled(-0.5);
        Delta::Sum(vec![first, second]).scaled(config.scale())
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly("stacked".into())
    }
}

/// dW = B.A with an A that every client draws for itself in every round and never sends: the
/// coordinator draws it too.
pub struct Drawn;

impl Method for Drawn {
    fn id(&self) -> &str {
        "drawn"
    }
    fn title(&self) -> &str {
        "stacked, with a frozen factor per client"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        vec![
            TensorSpec::trained("b", &[at.target.out, at.rank], Travel::Up, Start::Zero),
            TensorSpec::seeded("a", &[at.rank, at.target.inp], kaiming_bound(at.target.inp)),
        ]
    }
    fn fresh_each_round(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Stack
    }
    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&["b", "a"])
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly("stacked".into())
    }
}

/// The built-in methods and these.
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.register(Box::new(Vector)).unwrap();
    registry.register(Box::new(Braid)).unwrap();
    registry.register(Box::new(Drawn)).unwrap();
    questions::register(&mut registry);
    registry
}
