//! Randomness as a parameter: what secrets are made of, and the jitter of retries.

use ring::rand::SecureRandom;

/// The system's generator gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator gives nothing")]
pub struct NoRandom;

/// Where random bytes come from.
pub trait Random: Send + Sync {
    /// Fills a buffer with random bytes.
    ///
    /// # Errors
    /// [`NoRandom`]; then the buffer must not be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandom>;
}

/// The generator of the operating system, fit for keys.
#[derive(Debug, Clone)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl Default for SystemRandom {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        self.0.fill(bytes).map_err(|_| NoRandom)
    }
}

/// A random number of 16 bits; 0 where there is none, since less jitter harms nobody.
pub fn jitter(random: &dyn Random) -> u16 {
    let mut bytes = [0; 2];
    if random.fill(&mut bytes).is_err() {
        return 0;
    }
    u16::from_be_bytes(bytes)
}
