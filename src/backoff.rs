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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_grow_from_100_ms_to_10_s_and_stay_there() {
        let full =
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000].map(Duration::from_millis);
        for (pause, full) in Backoff::new().zip(full) {
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_the_ceiling_nor_short(
            first in 1..20_000_u64, ceiling in 1..20_000_u64, attempts in 1..200_usize
        ) {
            let (first, ceiling) = (Duration::from_millis(first), Duration::from_millis(ceiling));
            let pauses: Vec<Duration> = Backoff { next: first, ceiling }.take(attempts).collect();
            prop_assert_eq!(pauses.len(), attempts);
            for pause in pauses {
                prop_assert!(pause <= first.max(ceiling), "{pause:?}");
                prop_assert!(pause >= first.min(ceiling) / 2, "{pause:?}");
            }
        }
    }
}
