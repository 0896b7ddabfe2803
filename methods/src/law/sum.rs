//! The plain sum of each tensor, X = sum_k X_k, in f64: of statistics that are sums over tokens or examples themselves. The
//! clients' shares do not count.

use super::mean::Mean;
use super::{Law, Merged, Part};
use crate::error::MethodError;

pub(super) struct Sum {
    sums: Box<Mean>,
}

impl Sum {
    pub(super) fn new(target: &str) -> Self {
        Self { sums: Box::new(Mean::new(target)) }
    }
}

impl Law for Sum {
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError> {
        self.sums.absorb(&Part { weight: 1.0, ..*part })
    }

    fn finish(self: Box<Self>) -> Result<Merged, MethodError> {
        self.sums.finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::delta::Delta;
    use crate::law::{Frame, LawKind, Part};
    use crate::tensor::{Tensor, TensorSet};

    #[test]
    fn shares_do_not_count() {
        let mut law = LawKind::Sum.start(&Frame::of("t"));
        for (client, weight, x) in [("a", 0.25, 2.0), ("b", 0.75, 3.0)] {
            let tensors = TensorSet::from([("x".to_owned(), Tensor { shape: vec![1], data: vec![x] })]);
            let sent = ["x".to_owned()];
            let part = Part { client, weight, delta: &Delta::mat("x"), tensors: &tensors, sent: &sent };
            law.absorb(&part).unwrap();
        }
        assert_eq!(law.finish().unwrap().tensors["x"].data, [5.0]);
    }
}
