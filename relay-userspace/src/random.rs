//! Randomness of the kernel, for keys, secrets and the engine.

use hairpin_proto::turn::Random;
use ring::rand::{SecureRandom, SystemRandom};

/// The system has no random bytes to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// `N` random bytes, fit for a key.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The source that the engine draws from, once [`bytes`] has been answered.
#[derive(Debug)]
pub struct SystemRandomness(SystemRandom);

impl Default for SystemRandomness {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Random for SystemRandomness {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("getrandom fails only before the kernel has entropy, and start-up has drawn from it");
    }
}
