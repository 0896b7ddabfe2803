//! Who is drawn for a round: the same draw on every machine, from the run's seed alone.

use rondo_proto::ClientId;

/// Sorts candidates into the order in which they are drawn for an attempt at a round. Every candidate's place is the
/// BLAKE3 hash of (seed, round, attempt, name), so that it depends neither on the order of the input nor on who else is
/// there.
pub fn draw(seed: u64, round: u32, attempt: u32, candidates: impl IntoIterator<Item = ClientId>) -> Vec<ClientId> {
    let mut drawn: Vec<([u8; 32], ClientId)> =
        candidates.into_iter().map(|client| (lot(seed, round, attempt, &client), client)).collect();
    drawn.sort();
    drawn.into_iter().map(|(_, client)| client).collect()
}

fn lot(seed: u64, round: u32, attempt: u32, client: &ClientId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("rondo 2026 cohort draw v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    hasher.update(client.as_str().as_bytes());
    *hasher.finalize().as_bytes()
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
