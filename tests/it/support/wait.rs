//! Waiting for what is to happen soon.

use std::thread;
use std::time::{Duration, Instant};

/// Waits until the condition is true, for 30 s at most.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for 30 s until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
