//! Growing pauses between attempts.

use std::time::Duration;

/// An endless series of pauses, each about twice as long as the one before.
///
/// A pause is drawn between half of its length and the whole, so that processes which failed
/// together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// From 100 ms to 10 s: quick when the other side only restarts, and no burden on one that is
    /// away for long.
    #[must_use]
    pub fn new() -> Self {
        Self { next: Duration::from_millis(100), ceiling: Duration::from_secs(10) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.ceiling);
        Some(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_100_ms_to_10_s_and_stay_there() {
        let full =
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000].map(Duration::from_millis);
        for (pause, full) in Backoff::new().zip(full) {
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }
}
