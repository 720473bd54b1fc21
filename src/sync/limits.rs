//! How much is sent at a time, and what a slow engine makes of it.

use std::time::Duration;

use crate::postgres::pending::PageLimits;

/// How much is sent at a time, and how long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations of a bulk request.
    pub batch_rows: usize,
    /// Bytes of a bulk request; one document alone may be larger.
    pub bulk_bytes: usize,
    /// Bulk requests of a load that are open at a time.
    pub open_requests: usize,
    /// The deadline of a bulk request.
    pub timeout: Duration,
}

impl Limits {
    /// An engine on a busy machine may well take half a minute for a bulk request.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// A request that takes longer than this will not do with more time.
    const TIMEOUT_MAX: Duration = Duration::from_secs(600);

    /// Returns how many requests may be open in all: those of a load, as many of a rebuild beside it, and one for
    /// edits.
    #[must_use]
    pub fn requests_in_all(self) -> usize {
        2 * self.open_requests + 1
    }

    /// Returns how many requests a page is read for: the larger the page, the less a row costs PostgreSQL; the
    /// smaller the request, the less an edit waits in the engine.
    #[must_use]
    pub fn requests_of_page(self) -> usize {
        self.open_requests.min(2)
    }

    /// Returns how much a page holds.
    #[must_use]
    pub fn page(self) -> PageLimits {
        self.part_of_page(self.requests_of_page())
    }

    /// Returns how much so many requests hold.
    #[must_use]
    pub fn part_of_page(self, requests: usize) -> PageLimits {
        PageLimits {
            rows: self.batch_rows.saturating_mul(requests),
            bytes: self.bulk_bytes.saturating_mul(requests),
        }
    }

    /// Returns what to begin with: little at a time, so that a process that is killed soon has done something, and the
    /// first documents are not waited for. It is as much as the settings say after a few requests.
    #[must_use]
    pub fn at_first(self) -> Self {
        Self { batch_rows: self.batch_rows.min(256), open_requests: 1, ..self }
    }

    /// Returns what to try after a request that took too long: half as much, in twice the time. Slow is
    /// not a failure.
    #[must_use]
    pub fn after_timeout(self) -> Self {
        Self { timeout: (self.timeout * 2).min(Self::TIMEOUT_MAX), ..self.after_busy() }
    }

    /// Returns what to try after the engine had too much to do: half as much in half as many requests.
    #[must_use]
    pub fn after_busy(self) -> Self {
        Self {
            batch_rows: self.batch_rows.div_ceil(2),
            bulk_bytes: self.bulk_bytes.div_ceil(2),
            open_requests: self.open_requests.div_ceil(2),
            timeout: self.timeout,
        }
    }

    /// Returns what to try after a request that was answered well: twice as much, and one more at a time, until it
    /// is as much as the settings say. The time goes back only then.
    #[must_use]
    pub fn after_success(self, settings: Self) -> Self {
        let grown = Self {
            batch_rows: (self.batch_rows * 2).min(settings.batch_rows),
            bulk_bytes: (self.bulk_bytes * 2).min(settings.bulk_bytes),
            open_requests: (self.open_requests + 1).min(settings.open_requests),
            timeout: settings.timeout,
        };
        if self == (Self { timeout: self.timeout, ..grown }) {
            return settings;
        }
        Self { timeout: self.timeout, ..grown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_takes_too_long_is_tried_smaller_and_longer_until_it_is_in_time() {
        let once = SETTINGS.after_timeout();
        assert_eq!((once.batch_rows, once.bulk_bytes, once.timeout.as_secs()), (500, 2_048, 120));
        let often = (0..20).fold(SETTINGS, |limits, _| limits.after_timeout());
        assert_eq!((often.batch_rows, often.bulk_bytes, often.timeout.as_secs()), (1, 1, 600));

        let better = once.after_success(SETTINGS);
        assert_eq!((better.batch_rows, better.open_requests), (1_000, 3));
        assert_eq!(better.timeout.as_secs(), 120);
        let best = better.after_success(SETTINGS);
        assert_eq!((best.open_requests, best.timeout.as_secs()), (4, 120));
        assert_eq!(best.after_success(SETTINGS), SETTINGS);
    }

    #[test]
    fn an_engine_that_is_busy_gets_less_at_a_time_and_more_again_when_it_takes_it() {
        let often = (0..20).fold(SETTINGS, |limits, _| limits.after_busy());
        assert_eq!((often.batch_rows, often.open_requests, often.timeout), (1, 1, Limits::TIMEOUT));
        let again = (0..20).fold(often, |limits, _| limits.after_success(SETTINGS));
        assert_eq!(again, SETTINGS);
    }

    #[test]
    fn a_page_is_read_for_two_requests_or_for_the_only_one() {
        let rows_and_bytes = |limits: Limits| (limits.page().rows, limits.page().bytes);
        assert_eq!(rows_and_bytes(SETTINGS), (2_000, 8_192));
        assert_eq!(rows_and_bytes(SETTINGS.at_first()), (256, 4_096));
    }

    const SETTINGS: Limits =
        Limits { batch_rows: 1_000, bulk_bytes: 4_096, open_requests: 4, timeout: Limits::TIMEOUT };
}
