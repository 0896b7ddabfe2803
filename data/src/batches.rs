//! Which examples form a step's batch: shuffled passes over the data, drawn from a seed by BLAKE3
//! and so the same on every machine.

/// Batches among which texts of like length are brought together.
const WINDOW: usize = 16;

/// An endless stream of batches of example indices. Within one pass every example comes once; a
/// batch that reaches the end of a pass is filled from the next one.
#[derive(Debug, Clone)]
pub struct Batches {
    order: Vec<usize>,
    next: usize,
    batch: usize,
    pass: u64,
    seed: [u8; 32],
}

impl Batches {
    /// Batches of `batch` indices below `examples` (all of them, when there are fewer), drawn from
    /// the text `seed`; put run seed, client and round into it.
    pub fn new(examples: usize, batch: usize, seed: &str) -> Self {
        let seed = blake3::derive_key("rondo batches v1", seed.as_bytes());
        let mut batches =
            Self { order: (0..examples).collect(), next: 0, batch: batch.clamp(1, examples.max(1)), pass: 0, seed };
        batches.shuffle();
        batches
    }

    /// The same examples, so brought together that the texts of a batch are of like length: a batch
    /// costs what its longest text costs. `lengths` is the length of each example, in any unit.
    ///
    /// Batches are taken up to 16 at a time, sorted by length, cut anew, and put in a drawn order.
    /// So at the end of every such window the same examples have been seen as without, and every
    /// pass still names each example once.
    pub fn bucketed<'l>(lengths: &'l [u32], batch: usize, seed: &str) -> Bucketed<'l> {
        let batches = Self::new(lengths.len(), batch, seed);
        let seed = blake3::derive_key("rondo bucketed batches v1", seed.as_bytes());
        Bucketed { batches: batches.peekable(), lengths, window: Vec::new().into_iter(), windows: 0, seed }
    }

    fn shuffle(&mut self) {
        shuffle(&mut self.order, &self.seed, self.pass);
        self.pass += 1;
        self.next = 0;
    }
}

/// Fisher-Yates with numbers drawn from a seed and a counter.
fn shuffle<T>(items: &mut [T], seed: &[u8; 32], count: u64) {
    let mut numbers = blake3::Hasher::new_keyed(seed).update(&count.to_le_bytes()).finalize_xof();
    for last in (1..items.len()).rev() {
        let mut bytes = [0; 8];
        numbers.fill(&mut bytes);
        // Multiply-shift: uniform on 0..=last up to 2^-64 * last.
        let drawn = (u128::from(u64::from_le_bytes(bytes)) * (last as u128 + 1)) >> 64;
        items.swap(last, drawn as usize);
    }
}

/// An endless stream of batches of texts of like length; see [`Batches::bucketed`].
#[derive(Debug, Clone)]
pub struct Bucketed<'l> {
    batches: std::iter::Peekable<Batches>,
    lengths: &'l [u32],
    window: std::vec::IntoIter<Vec<usize>>,
    windows: u64,
    seed: [u8; 32],
}

impl Bucketed<'_> {
    fn refill(&mut self) {
        let mut examples = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut size = 0;
        for _ in 0..WINDOW {
            // A window must not name an example twice: it ends where the next batch would bring one
            // again.
            let Some(batch) = self.batches.next_if(|batch| batch.iter().all(|index| !seen.contains(index))) else {
                break;
            };
            size = batch.len();
            seen.extend(batch.iter().copied());
            examples.extend(batch);
        }
        examples.sort_by_key(|&index| self.lengths[index]);
        let mut window: Vec<Vec<usize>> = examples.chunks(size.max(1)).map(<[usize]>::to_vec).collect();
        shuffle(&mut window, &self.seed, self.windows);
        self.windows += 1;
        self.window = window.into_iter();
    }
}

impl Iterator for Bucketed<'_> {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.window.len() == 0 {
            self.refill();
        }
        self.window.next()
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
            // A batch across two passes could name an example twice; such a one is left for later
            // in the pass.
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
    use proptest::prelude::*;

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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn bucketing_keeps_every_window_and_pass(
            lengths in proptest::collection::vec(0u32..500, 1..120),
            batch in 1usize..20,
            seed in "[a-z]{3}",
        ) {
            let draw = |count| Batches::bucketed(&lengths, batch, &seed).take(count).collect::<Vec<_>>();
            let passes = 3;
            let batches = draw(passes * lengths.len());
            prop_assert_eq!(&batches, &draw(passes * lengths.len()), "the seed alone decides");
            let full = batch.min(lengths.len());
            for batch in &batches {
                let mut unique = batch.clone();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!((unique.len(), batch.len()), (full, full));
            }
            // Never more than a window ahead or behind of the plain order: after k batches, counts
            // differ by that much.
            let mut counts = vec![0_i64; lengths.len()];
            let mut plain = Batches::new(lengths.len(), batch, &seed);
            for (bucketed, plain) in batches.iter().zip(plain.by_ref()) {
                bucketed.iter().for_each(|&index| counts[index] += 1);
                plain.iter().for_each(|&index| counts[index] -= 1);
                prop_assert!(counts.iter().all(|count| count.abs() <= 1));
            }
            let open: i64 = counts.iter().map(|count| count.abs()).sum();
            prop_assert!(open <= 2 * (WINDOW * full) as i64);
        }
    }

    #[test]
    fn batches_of_like_length_waste_less_and_come_in_no_order_of_length() {
        let lengths: Vec<u32> = (0..512).map(|index| (index * 7919) % 1000).collect();
        let padding = |batches: &mut dyn Iterator<Item = Vec<usize>>| -> u32 {
            let waste = |batch: Vec<usize>| {
                let longest = batch.iter().map(|&index| lengths[index]).max().unwrap();
                batch.iter().map(|&index| longest - lengths[index]).sum::<u32>()
            };
            batches.take(64).map(waste).sum()
        };
        let plain = padding(&mut Batches::new(512, 8, "x"));
        let bucketed = padding(&mut Batches::bucketed(&lengths, 8, "x"));
        assert!(bucketed * 5 < plain, "{bucketed} of {plain}");
        let firsts: Vec<u32> = Batches::bucketed(&lengths, 8, "x").take(16).map(|batch| lengths[batch[0]]).collect();
        assert!(!firsts.is_sorted(), "{firsts:?}");
    }
}
