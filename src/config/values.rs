//! Numbers with units, as people write them.

use std::str::FromStr;
use std::time::Duration;

/// A whole number from 1 to `MAX`, or why it is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MAX: usize = 1_000_000>(pub usize);

impl<const MAX: usize> FromStr for Count<MAX> {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        match raw.parse() {
            Ok(count) if (1..=MAX).contains(&count) => Ok(Self(count)),
            _ => Err(format!("is not a whole number from 1 to {MAX}")),
        }
    }
}

/// A number of bytes: `5242880`, `512KiB`, `5MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, usize); 2] = [("KiB", 1 << 10), ("MiB", 1 << 20)];
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(name, unit)| Some((raw.strip_suffix(name)?, unit)))
            .unwrap_or((raw, 1));
        match number.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(unit)) {
            // An engine takes 100 MB at most, unless told otherwise.
            Some(bytes @ 1_024..=104_857_600) => Ok(Self(bytes)),
            _ => Err("is not a size from 1KiB to 100MiB, such as 5MiB"),
        }
    }
}

/// A length of time: `100ms`, `2s`, `1m`, or a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause(pub Duration);

impl FromStr for Pause {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(name, unit)| Some((raw.strip_suffix(name)?, unit)))
            .unwrap_or((raw, 1));
        match number.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
            Some(pause_ms @ 1..=3_600_000) => Ok(Self(Duration::from_millis(pause_ms))),
            _ => Err("is not a time from 1ms to 60m, such as 100ms or 2s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units_and_limits() {
        assert_eq!("5MiB".parse(), Ok(Bytes(5_242_880)));
        assert_eq!("2048".parse(), Ok(Bytes(2_048)));
        assert!("0".parse::<Bytes>().is_err());
        assert!("99999999999999999999MiB".parse::<Bytes>().is_err());
        assert_eq!("100ms".parse(), Ok(Pause(Duration::from_millis(100))));
        assert_eq!("250".parse(), Ok(Pause(Duration::from_millis(250))));
        assert_eq!("2 s".parse(), Ok(Pause(Duration::from_secs(2))));
        assert!("-1s".parse::<Pause>().is_err());
        assert!("0".parse::<Count>().is_err());
    }
}
