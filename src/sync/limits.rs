//! How much is sent at a time, and what a slow engine makes of it.

use std::time::Duration;

/// How much is sent at a time, and how long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a page, and operations of a bulk request.
    pub batch_rows: usize,
    /// Bytes of a bulk request; one document alone may be larger.
    pub bulk_bytes: usize,
    /// The deadline of a bulk request.
    pub timeout: Duration,
}

impl Limits {
    /// An engine on a busy machine may well take half a minute for a bulk request.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// A request that takes longer than this will not do with more time.
    const TIMEOUT_MAX: Duration = Duration::from_secs(600);

    /// Returns what to try after a request that took too long: half as much, in twice the time. Slow is
    /// not a failure.
    #[must_use]
    pub fn after_timeout(self) -> Self {
        Self {
            batch_rows: self.batch_rows.div_ceil(2),
            bulk_bytes: self.bulk_bytes.div_ceil(2),
            timeout: (self.timeout * 2).min(Self::TIMEOUT_MAX),
        }
    }

    /// Returns what to try after a request that was in time: twice as much, until it is as much as the
    /// settings say. The time goes back only then.
    #[must_use]
    pub fn after_success(self, settings: Self) -> Self {
        if (self.batch_rows, self.bulk_bytes) == (settings.batch_rows, settings.bulk_bytes) {
            return settings;
        }
        Self {
            batch_rows: (self.batch_rows * 2).min(settings.batch_rows),
            bulk_bytes: (self.bulk_bytes * 2).min(settings.bulk_bytes),
            timeout: self.timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_takes_too_long_is_tried_smaller_and_longer_until_it_is_in_time() {
        let settings = Limits { batch_rows: 1_000, bulk_bytes: 4_096, timeout: Limits::TIMEOUT };
        let once = settings.after_timeout();
        assert_eq!((once.batch_rows, once.bulk_bytes, once.timeout.as_secs()), (500, 2_048, 120));
        let often = (0..20).fold(settings, |limits, _| limits.after_timeout());
        assert_eq!((often.batch_rows, often.bulk_bytes, often.timeout.as_secs()), (1, 1, 600));

        let better = once.after_success(settings);
        assert_eq!((better.batch_rows, better.timeout.as_secs()), (1_000, 120));
        assert_eq!(better.after_success(settings), settings);
    }
}
