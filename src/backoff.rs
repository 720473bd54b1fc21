//! Growing pauses between attempts.

use std::time::Duration;

/// Pauses, each about twice as long as the one before.
///
/// A pause is drawn between half of its length and the whole, so that processes which failed
/// together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with 100 ms: quick when the other side only restarts.
    #[must_use]
    pub fn new() -> Self {
        Self { next: Duration::from_millis(100) }
    }

    /// Returns the next pause, which is no longer than the ceiling.
    pub fn pause(&mut self, ceiling: Duration) -> Duration {
        let pause = self.next.min(ceiling);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_grow_from_100_ms_to_the_ceiling_and_stay_there() {
        let full =
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000].map(Duration::from_millis);
        let mut backoff = Backoff::new();
        for full in full {
            let pause = backoff.pause(Duration::from_secs(10));
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_its_ceiling_nor_short(
            ceilings in prop::collection::vec(1..20_000_u64, 1..100)
        ) {
            let mut backoff = Backoff::new();
            for ceiling in ceilings.into_iter().map(Duration::from_millis) {
                let least = backoff.next.min(ceiling) / 2;
                let pause = backoff.pause(ceiling);
                prop_assert!(pause <= ceiling && pause >= least, "{pause:?}");
            }
        }
    }
}
