//! Who is drawn for a round: the same draw on every machine, from the run's seed alone or, where
//! the draw is to hide who takes part, from the run's secret key.

use rondo_proto::ClientId;

use crate::key::CohortKey;

/// Sorts candidates into the order in which they are drawn for an attempt at a round. Every
/// candidate's place is the BLAKE3 hash of (seed, round, attempt, name), so that it depends neither
/// on the order of the input nor on who else is there.
pub fn draw(seed: u64, round: u32, attempt: u32, candidates: impl IntoIterator<Item = ClientId>) -> Vec<ClientId> {
    let mut drawn: Vec<([u8; 32], ClientId)> =
        candidates.into_iter().map(|client| (draw_hash(seed, round, attempt, &client), client)).collect();
    drawn.sort();
    drawn.into_iter().map(|(_, client)| client).collect()
}

fn draw_hash(seed: u64, round: u32, attempt: u32, client: &ClientId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("rondo 2026 cohort draw v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    hasher.update(client.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

/// The candidates that Poisson sampling draws, sorted. Each is drawn on its own, with probability
/// `rate` rounded down to a multiple of 2^-64, by the BLAKE3 hash of (round, attempt, name) under
/// the key: it depends on nobody else.
pub fn sample(
    key: &CohortKey,
    rate: f64,
    round: u32,
    attempt: u32,
    candidates: impl IntoIterator<Item = ClientId>,
) -> Vec<ClientId> {
    // Exact: a product with a power of two, cut to an integer.
    let below = (rate * 2f64.powi(64)) as u64;
    let is_drawn = |client: &ClientId| rate >= 1.0 || coin(key, round, attempt, client) < below;
    let mut drawn: Vec<ClientId> = candidates.into_iter().filter(is_drawn).collect();
    drawn.sort();
    drawn
}

fn coin(key: &CohortKey, round: u32, attempt: u32, client: &ClientId) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(key.bytes());
    hasher.update(b"rondo 2026 cohort coin v1");
    hasher.update(&round.to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    hasher.update(client.as_str().as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(count: usize) -> Vec<ClientId> {
        (0..count).map(|index| ClientId::new(format!("c{index}")).unwrap()).collect()
    }

    #[test]
    fn the_draw_depends_on_seed_round_and_attempt_alone() {
        let forward = draw(7, 1, 1, clients(20));
        let backward = draw(7, 1, 1, clients(20).into_iter().rev());
        assert_eq!(forward, backward);
        assert_ne!(forward, draw(8, 1, 1, clients(20)));
        assert_ne!(forward, draw(7, 2, 1, clients(20)));
        assert_ne!(forward, draw(7, 1, 2, clients(20)));
    }

    #[test]
    fn sampling_depends_on_key_round_attempt_and_name_alone() {
        let key = CohortKey::new([1; 32]);
        let drawn = |key: &CohortKey, round, attempt| sample(key, 0.5, round, attempt, clients(60));
        assert_eq!(drawn(&key, 1, 1), sample(&key, 0.5, 1, 1, clients(60).into_iter().rev()));
        assert_ne!(drawn(&key, 1, 1), drawn(&CohortKey::new([2; 32]), 1, 1));
        assert_ne!(drawn(&key, 1, 1), drawn(&key, 2, 1));
        assert_ne!(drawn(&key, 1, 1), drawn(&key, 1, 2));
        let fewer = sample(&key, 0.5, 1, 1, clients(30));
        let whole = drawn(&key, 1, 1);
        assert!(fewer.iter().all(|client| whole.contains(client)), "others change nobody's draw");
        assert_eq!(sample(&key, 1.0, 1, 1, clients(9)).len(), 9);
        assert!(sample(&key, 1e-30, 1, 1, clients(9)).is_empty());
    }

    #[test]
    fn sampling_has_its_rate_and_cohorts_vary() {
        let key = CohortKey::new([3; 32]);
        let sizes: Vec<f64> = (0..2000).map(|round| sample(&key, 0.1, round, 1, clients(50)).len() as f64).collect();
        let mean = sizes.iter().sum::<f64>() / 2000.0;
        let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / 2000.0;
        // Binomial: 5 and 4.5; five standard deviations. Cohorts of one size would have variance 0.
        assert!((mean - 5.0).abs() < 0.25 && (variance - 4.5).abs() < 0.8, "{mean} {variance}");
    }

    #[test]
    fn everybody_gets_a_turn() {
        let mut turns = [0_u32; 10];
        for round in 0..1000 {
            for client in draw(7, round, 1, clients(10)).iter().take(3) {
                turns[client.as_str()[1..].parse::<usize>().unwrap()] += 1;
            }
        }
        // 300 expected, standard deviation 14.5
        assert!(turns.iter().all(|&count| (230..370).contains(&count)), "{turns:?}");
    }
}
