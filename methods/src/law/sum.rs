//! The plain sum of each tensor, X = sum_k X_k, in f64: of statistics that are sums over tokens or
//! examples themselves. The clients' shares do not count.

use super::mean::Mean;
use super::{Law, LawDefinition, LawOutput, TargetUpdate};
use crate::error::MethodError;

/// The plain sum.
pub(super) const SUM: LawDefinition = LawDefinition {
    start: |context| Box::new(Sum::new(context.target)),
    merged: None,
    keeps_tensors: false,
    takes_smaller: false,
    keeps_unsent: false,
    stacks: false,
    needs_pair: false,
    only_for_warm_up: true,
    serves_warm_up: true,
    server_steps: Err("it is for warm-up statistics only"),
};

struct Sum {
    sums: Box<Mean>,
}

impl Sum {
    fn new(target: &str) -> Self {
        Self { sums: Box::new(Mean::new(target)) }
    }
}

impl Law for Sum {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        self.sums.absorb(&TargetUpdate { weight: 1.0, ..*update })
    }

    fn finish(self: Box<Self>) -> Result<LawOutput, MethodError> {
        self.sums.finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::delta::Delta;
    use crate::law::{LawContext, LawKind, TargetUpdate};
    use crate::tensor::{Tensor, TensorSet};

    #[test]
    fn shares_do_not_count() {
        let mut law = LawKind::Sum.start(&LawContext::of("t"));
        for (client, weight, x) in [("a", 0.25, 2.0), ("b", 0.75, 3.0)] {
            let tensors = TensorSet::from([("x".to_owned(), Tensor { shape: vec![1], data: vec![x] })]);
            let sent = ["x".to_owned()];
            let update = TargetUpdate { client, weight, delta: &Delta::mat("x"), tensors: &tensors, sent: &sent };
            law.absorb(&update).unwrap();
        }
        assert_eq!(law.finish().unwrap().tensors["x"].data, [5.0]);
    }
}
