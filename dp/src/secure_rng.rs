//! Where the randomness of noise comes from.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, RngCore, SeedableRng};

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct EntropyError(getrandom::Error);

/// ChaCha20, keyed with 256 bits from the operating system.
///
/// Whoever knows the key can subtract the noise, so it is not stored, printed, copied (no
/// `Clone`) or derived from anything else. Take a new one for every release: then a
/// snapshot of a virtual machine that is started twice, or a forked process, does not
/// repeat noise that has already been published.
pub struct SecureRng(ChaCha20Rng);

impl SecureRng {
    /// A generator with a fresh key.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn new() -> Result<Self, EntropyError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(EntropyError)?;
        Ok(Self(ChaCha20Rng::from_seed(key)))
    }

    /// A generator that repeats itself, for tests of statistics: its noise protects nobody, so
    /// nothing that is released can have it.
    #[cfg(test)]
    pub(crate) fn repeatable_for_tests(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }
}

impl fmt::Debug for SecureRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureRng { .. }")
    }
}

impl RngCore for SecureRng {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

impl CryptoRng for SecureRng {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generators_differ_and_print_nothing() {
        let mut a = SecureRng::new().unwrap();
        let mut b = SecureRng::new().unwrap();
        assert_ne!([a.next_u64(), a.next_u64()], [b.next_u64(), b.next_u64()]);
        assert_eq!(format!("{a:?}"), "SecureRng { .. }");
    }
}
