//! Which examples form a step's batch: shuffled passes over the data, drawn from a seed by BLAKE3 and so the same on
//! every machine.

/// An endless stream of batches of example indices. Within one pass every example comes once; a batch that reaches the
/// end of a pass is filled from the next one.
#[derive(Debug, Clone)]
pub struct Batches {
    order: Vec<usize>,
    next: usize,
    batch: usize,
    pass: u64,
    seed: [u8; 32],
}

impl Batches {
    /// Batches of `batch` indices below `examples` (all of them, when there are fewer), drawn from the text `seed`;
    /// put run seed, client and round into it.
    pub fn new(examples: usize, batch: usize, seed: &str) -> Self {
        let seed = blake3::derive_key("rondo batches v1", seed.as_bytes());
        let mut batches =
            Self { order: (0..examples).collect(), next: 0, batch: batch.clamp(1, examples.max(1)), pass: 0, seed };
        batches.shuffle();
        batches
    }

    fn shuffle(&mut self) {
        let mut numbers = blake3::Hasher::new_keyed(&self.seed).update(&self.pass.to_le_bytes()).finalize_xof();
        for last in (1..self.order.len()).rev() {
            let mut bytes = [0; 8];
            numbers.fill(&mut bytes);
            // Multiply-shift: uniform on 0..=last up to 2^-64 * last.
            let drawn = (u128::from(u64::from_le_bytes(bytes)) * (last as u128 + 1)) >> 64;
            self.order.swap(last, drawn as usize);
        }
        self.pass += 1;
        self.next = 0;
    }
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.order.is_empty() {
            return None;
        }
        let mut batch = Vec::with_capacity(self.batch);
        while batch.len() < self.batch {
            if self.next == self.order.len() {
                self.shuffle();
            }
            // A batch across two passes could name an example twice; such a one is left for later in the pass.
            let Some(ahead) = self.order[self.next..].iter().position(|index| !batch.contains(index)) else { break };
            self.order.swap(self.next, self.next + ahead);
            batch.push(self.order[self.next]);
            self.next += 1;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_names_every_example_once() {
        let drawn: Vec<usize> = Batches::new(10, 5, "seed").take(4).flatten().collect();
        for pass in drawn.chunks(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(drawn[..10], drawn[10..]);
    }

    #[test]
    fn no_batch_names_an_example_twice_and_all_are_full() {
        for batch in Batches::new(7, 5, "x").take(50) {
            assert_eq!(batch.len(), 5);
            let mut unique = batch.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), 5, "{batch:?}");
        }
        assert_eq!(Batches::new(3, 8, "x").next().map(|batch| batch.len()), Some(3));
        assert_eq!(Batches::new(0, 8, "x").next(), None);
    }

    #[test]
    fn the_seed_alone_decides() {
        let draw = |seed: &str| Batches::new(100, 8, seed).take(30).collect::<Vec<_>>();
        assert_eq!(draw("7/movies/1"), draw("7/movies/1"));
        assert_ne!(draw("7/movies/1"), draw("7/movies/2"));
    }
}
