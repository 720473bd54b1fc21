//! A limit on documents a second, so that a load leaves the engine air for searches.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// A limit on documents a second.
#[derive(Debug)]
pub struct Rate {
    /// None: as fast as the engine takes them.
    per_second: Option<usize>,
    /// When what was sent has had its time.
    next: Cell<Instant>,
}

impl Rate {
    /// Begins with nothing sent.
    #[must_use]
    pub fn new(per_second: Option<usize>) -> Self {
        Self { per_second, next: Cell::new(Instant::now()) }
    }

    /// Waits until so many more documents may be sent: for as long as those before them are to take.
    pub(super) fn wait(&self, documents: usize) {
        let Some(per_second) = self.per_second else { return };
        let now = Instant::now();
        let start = self.next.get().max(now);
        #[expect(clippy::cast_precision_loss, reason = "neither comes near 2^52")]
        let seconds = documents as f64 / per_second as f64;
        self.next.set(start + Duration::from_secs_f64(seconds));
        thread::sleep(start - now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_take_the_time_that_the_rate_gives_them() {
        let (rate, started) = (Rate::new(Some(1_000)), Instant::now());
        for _ in 0..5 {
            rate.wait(20);
        }
        // Not the last ones: nothing waits for these.
        assert!(started.elapsed() >= Duration::from_millis(80));
        Rate::new(None).wait(1_000_000);
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
