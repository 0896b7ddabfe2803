//! The methods that are simulated: those of the crate, and one that it does not know.

use std::collections::BTreeMap;

use rondo_methods::{
    At, Delta, DpSupport, Exactness, LawKind, Method, MethodConfig, Publication, Registry, Start, TensorSpec, Travel,
};
use rondo_proto::run_file::MethodChoice;

use crate::model::Setup;

/// Every method that simulations run.
pub(crate) const IDS: [&str; 8] =
    ["fedit", "ffa-lora", "flora", "fed-sb", "vector-bank", "fedex-lora", "flexlora", "rolora"];

impl Setup {
    /// The run's method.
    pub(crate) fn method_id(&self) -> &'static str {
        IDS[self.method % IDS.len()]
    }

    /// Whether clients may train with ranks of their own.
    pub(crate) fn mixes_ranks(&self) -> bool {
        asked(self.method_id(), |method, config| method.mixed_ranks(config))
    }

    /// Whether every published entry stays part of the adapter.
    pub(crate) fn accumulates(&self) -> bool {
        asked(self.method_id(), |method, config| method.publication(config)) == Publication::Accumulate
    }

    /// Whether the coordinator adds noise to sums.
    pub(crate) fn is_central(&self) -> bool {
        let support = asked(self.method_id(), |method, config| method.dp_support(config));
        self.epsilon.is_some() && self.per_client && matches!(support, DpSupport::Central { .. })
    }

    /// Whether the warm-up reads data and is paid for.
    pub(crate) fn pays(&self) -> bool {
        self.pays_warm_up && self.epsilon.is_some() && self.method_id() == "fed-sb"
    }

    /// The first round of a private run that costs something.
    pub(crate) fn first_paid_round(&self) -> u32 {
        if self.pays() { 0 } else { 1 }
    }

    /// Whether a server optimiser keeps a state: where one is wanted and the method can have one.
    pub(crate) fn serves(&self) -> bool {
        let can = ["fedit", "fed-sb", "vector-bank"].contains(&self.method_id());
        self.server && (can || (self.method_id() == "ffa-lora" && !self.refactors()))
    }

    /// Whether the executor makes new frozen tensors after training rounds.
    pub(crate) fn refactors(&self) -> bool {
        self.method_id() == "ffa-lora" && self.refactor_every > 0
    }
}

/// What a method answers under its default settings.
fn asked<T>(id: &str, question: impl Fn(&dyn Method, &MethodConfig) -> T) -> T {
    let registry = registry();
    let method = registry.get(id).unwrap();
    let choice =
        MethodChoice { id: id.to_owned(), rank: 4, alpha: None, targets: Vec::new(), options: BTreeMap::new() };
    question(method, &MethodConfig::new(&choice, method.options(), 1e-3, 0).unwrap())
}

/// The crate's methods and one from outside.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.register(Box::new(VectorBank)).unwrap();
    registry
}

/// dW = diag(b).B.diag(d).A with seeded B and A; only the two vectors are trained (as in VeRA).
struct VectorBank;

impl Method for VectorBank {
    fn id(&self) -> &str {
        "vector-bank"
    }

    fn title(&self) -> &str {
        "Trains two vectors around seeded factors"
    }

    fn paper(&self) -> &str {
        "Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation, ICLR 2024, arXiv:2310.11454"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        vec![
            TensorSpec::seeded("bank_A", &[at.rank, at.target.inp], 1.0),
            TensorSpec::seeded("bank_B", &[at.target.out, at.rank], 1.0),
            TensorSpec::trained("bank_d", &[at.rank], Travel::Both, Start::SeededUniform { bound: 0.1 }),
            TensorSpec::trained("bank_b", &[at.target.out], Travel::Both, Start::Zero),
        ]
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        let diag = |part: &str| Delta::Diag(part.to_owned());
        Delta::Product(vec![diag("bank_b"), Delta::mat("bank_B"), diag("bank_d"), Delta::mat("bank_A")])
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Approximate("the product of averaged vectors is not the average of the products".to_owned())
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Unsupported("it only serves tests".to_owned())
    }
}
