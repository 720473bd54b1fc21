//! Where the engine is and who we are to it, and the names that it accepts.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use ureq::http::Uri;

/// The URL of an engine. User and password are kept apart, so that printing it shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl {
    /// Without a slash at the end.
    base: String,
    is_loopback: bool,
    authorization: Option<String>,
}

impl EngineUrl {
    /// Sends an API key instead of a user and a password.
    #[must_use]
    pub fn with_api_key(mut self, key: &str) -> Self {
        self.authorization = Some(format!("ApiKey {key}"));
        self
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

impl FromStr for EngineUrl {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        const MISTAKE: &str = "is not a URL such as http://127.0.0.1:9200";
        let uri: Uri = raw.parse().map_err(|_| MISTAKE)?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return Err(MISTAKE);
        };
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(MISTAKE);
        }
        let authorization = user.map(|user| {
            let decoded: Vec<u8> = percent_decode_str(user).collect();
            format!("Basic {}", BASE64_STANDARD.encode(decoded))
        });
        let base = format!("{scheme}://{host}{}", uri.path().trim_end_matches('/'));
        let is_loopback = matches!(authority.host(), "localhost" | "[::1]")
            || authority.host().starts_with("127.");
        Ok(Self { base, is_loopback, authorization })
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// What is put before the names of indices and aliases. May be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPrefix(String);

impl IndexPrefix {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IndexPrefix {
    type Err = &'static str;

    /// Takes what is allowed at the start of an index name, and needs no encoding in a URL.
    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let is_allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let starts_well =
            raw.chars().next().is_none_or(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if raw.len() <= 100 && starts_well && raw.chars().all(is_allowed) {
            Ok(Self(raw.to_owned()))
        } else {
            Err("is not up to 100 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_sent_but_never_printed() {
        let url: EngineUrl = "https://elastic:p%40ss@search.example:9200/es/".parse().unwrap();
        assert_eq!(url.base(), "https://search.example:9200/es");
        assert_eq!(url.authorization(), Some("Basic ZWxhc3RpYzpwQHNz"));
        assert_eq!(
            format!("{url} {url:?}"),
            "https://search.example:9200/es https://search.example:9200/es"
        );
        assert!(!url.is_loopback());
    }

    #[test]
    fn what_is_no_url_of_an_engine_is_refused() {
        for raw in
            ["", "localhost", "localhost:9200", "ftp://localhost", "http://", "http://h/?q=1"]
        {
            assert!(raw.parse::<EngineUrl>().is_err(), "{raw}");
        }
        assert!("http://127.0.0.1:9200".parse::<EngineUrl>().unwrap().is_loopback());
    }

    #[test]
    fn a_prefix_is_a_valid_beginning_of_an_index_name() {
        for raw in ["", "test_", "a-1."] {
            assert!(raw.parse::<IndexPrefix>().is_ok(), "{raw}");
        }
        for raw in ["_x", "-x", "Test", "a*", "a/b", "a b"] {
            assert!(raw.parse::<IndexPrefix>().is_err(), "{raw}");
        }
    }
}
