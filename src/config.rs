//! Settings that several commands share, and how settings are checked.
//!
//! Clap takes every setting as text, so that all mistakes can be reported at once instead of one
//! a run. Each group turns its text into values in `check`; the rest of the program sees values.

mod mapping;
mod values;

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use crate::elasticsearch::{Engine, EngineUrl, IndexPrefix};
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::DatabaseUrl;
use crate::sync::limits::Limits;

pub use self::mapping::MappingArgs;
pub use self::values::{Bytes, Count, Pause};

/// How to reach PostgreSQL.
#[derive(Debug, Args)]
pub struct PostgresArgs {
    /// URL of the catalogue's database: `postgres://user:password@host:5432/database`
    // It may hold a password, so help never shows its value.
    #[arg(
        long,
        env,
        value_name = "URL",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    database_url: String,
}

impl PostgresArgs {
    /// Turns the text into a value, or notes what is wrong with it.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<DatabaseUrl> {
        if self.database_url.is_empty() {
            mistakes.add("--database-url (DATABASE_URL) is missing");
            return None;
        }
        if !is_well_formed(&self.database_url) {
            mistakes.add(
                "--database-url (DATABASE_URL) is not well-formed: in a URL, percent-encode special \
                 characters of the password; in `name=value` pairs, put it in single quotes",
            );
            return None;
        }
        mistakes.parse("--database-url (DATABASE_URL)", &self.database_url)
    }
}

/// Returns false for what libpq could not read: it would quote the part that it stumbles over, and
/// that may be a password.
fn is_well_formed(url: &str) -> bool {
    match url.split_once("://") {
        Some((_, rest)) => is_well_formed_url(rest),
        None if url.contains('=') => is_well_formed_list(url),
        // No password is quoted: this is not even tried.
        None => true,
    }
}

/// Reads `user:password@host:port,host:port/database?name=value&name=value`.
fn is_well_formed_url(rest: &str) -> bool {
    let has_broken_escape = rest.split('%').skip(1).any(|after| {
        let digits = after.as_bytes().get(..2).unwrap_or_default();
        digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit)
    });
    let authority = rest.split('/').next().unwrap_or(rest);
    let hosts = authority.split_once('@').map_or(authority, |(_, hosts)| hosts);
    let hosts = hosts.split('?').next().unwrap_or(hosts);
    let is_host = |host: &str| {
        // `[::1]:5432`: the colons inside the brackets begin no port.
        let port = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(_, port)| port),
            None => Some(host.find(':').map_or("", |at| &host[at..])),
        };
        port.is_some_and(|port| {
            port.is_empty()
                || port
                    .strip_prefix(':')
                    .is_some_and(|port| port.bytes().all(|c| c.is_ascii_digit()))
        })
    };
    let parameters =
        rest[authority.len()..].split_once('?').map_or("", |(_, parameters)| parameters);
    !has_broken_escape
        && !rest.contains(char::is_whitespace)
        && !hosts.contains('@')
        && hosts.split(',').all(is_host)
        && parameters.split_terminator('&').all(|parameter| parameter.contains('='))
}

/// Reads `name=value name = 'a value'`.
fn is_well_formed_list(mut rest: &str) -> bool {
    while !rest.trim_start().is_empty() {
        let Some((name, value)) = rest.split_once('=') else { return false };
        let is_name = |name: &str| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        if !is_name(name.trim()) {
            return false;
        }
        match after_value(value.trim_start()) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Returns what follows a value, which is in single quotes or ends at a space. `\` takes the next
/// character as it is.
fn after_value(text: &str) -> Option<&str> {
    let quoted = text.strip_prefix('\'');
    let value = quoted.unwrap_or(text);
    let mut characters = value.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' if quoted.is_some() => return Some(&value[at + 1..]),
            ' ' | '\t' | '\n' if quoted.is_none() => return Some(&value[at..]),
            _ => (),
        }
    }
    quoted.is_none().then_some("")
}

/// Which documents are concerned.
#[derive(Debug, Args)]
pub struct KindsArgs {
    /// Which documents are kept, with commas between them
    #[arg(long, env = "ETL_KINDS", value_name = "KINDS", default_value_t = Kind::all_aliases())]
    kinds: String,
}

impl KindsArgs {
    /// Turns the text into kinds, each once and in their own order, or notes what is wrong with it.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<Vec<Kind>> {
        let parse = |raw: &str| mistakes.parse::<Kind>("--kinds (ETL_KINDS)", raw.trim());
        let named: Vec<Kind> = self.kinds.split(',').map(parse).collect::<Option<_>>()?;
        Some(Kind::ALL.into_iter().filter(|kind| named.contains(kind)).collect())
    }
}

/// How much is sent at a time, and how often is looked for changes.
#[derive(Debug, Args)]
pub struct PaceArgs {
    /// Largest number of documents in one bulk request
    #[arg(long, env = "ETL_BATCH_SIZE", value_name = "COUNT", default_value = "500")]
    batch_size: String,
    /// Size at which a bulk request is full and sent, such as 512KiB or 5MiB
    #[arg(long, env = "ETL_BULK_BYTES", value_name = "SIZE", default_value = "5MiB")]
    bulk_bytes: String,
    /// Largest number of bulk requests that are open at a time
    #[arg(long, env = "ETL_SENDERS", value_name = "COUNT", default_value = "4")]
    senders: String,
    /// Largest number of documents a second, so that a load leaves the engine air; by default there is no limit
    #[arg(
        long,
        env = "ETL_RATE",
        value_name = "COUNT",
        default_value = "",
        hide_default_value = true
    )]
    rate: String,
    /// Compress bulk requests: worth it where the network is slower than the engine
    #[arg(long, env = "ETL_GZIP", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    gzip: bool,
    /// Pause between two looks for changes while there are none, such as 100ms or 2s
    #[arg(long, env = "ETL_POLL_INTERVAL", value_name = "TIME", default_value = "100ms")]
    poll_interval: String,
}

/// More threads than this do not send more.
const SENDERS_MAX: usize = 64;

/// What [`PaceArgs`] mean.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How much is sent at a time.
    pub limits: Limits,
    /// Largest number of documents a second.
    pub rate: Option<usize>,
    /// Bulk requests are compressed.
    pub gzip: bool,
    /// Pause between two looks for changes while there are none.
    pub poll_interval: Duration,
}

impl PaceArgs {
    /// Turns the text into values, or notes what is wrong with it.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<Pace> {
        let rows: Option<Count> = mistakes.parse("--batch-size (ETL_BATCH_SIZE)", &self.batch_size);
        let bytes: Option<Bytes> =
            mistakes.parse("--bulk-bytes (ETL_BULK_BYTES)", &self.bulk_bytes);
        let senders: Option<Count<SENDERS_MAX>> =
            mistakes.parse("--senders (ETL_SENDERS)", &self.senders);
        let rate = match &*self.rate {
            "" => Some(None),
            rate => mistakes.parse("--rate (ETL_RATE)", rate).map(|Count(rate): Count| Some(rate)),
        };
        let pause: Option<Pause> =
            mistakes.parse("--poll-interval (ETL_POLL_INTERVAL)", &self.poll_interval);
        let ((Count(rows), Bytes(bulk_bytes)), (Count(open_requests), rate)) =
            rows.zip(bytes).zip(senders.zip(rate))?;
        // Several requests a second, so that an edit does not wait for its turn for longer.
        let batch_rows = rate.map_or(rows, |rate| rows.min(rate.div_ceil(4)));
        let limits = Limits { batch_rows, bulk_bytes, open_requests, timeout: Limits::TIMEOUT };
        Some(Pace { limits, rate, gzip: self.gzip, poll_interval: pause?.0 })
    }
}

/// How to reach Elasticsearch or OpenSearch.
#[derive(Debug, Args)]
pub struct ElasticsearchArgs {
    /// URL of Elasticsearch or OpenSearch; it may hold a user and a password
    #[arg(
        long,
        env,
        value_name = "URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9200"
    )]
    elasticsearch_url: String,
    /// API key (what the engine calls `encoded`), instead of a user and a password
    #[arg(
        long,
        env,
        value_name = "KEY",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    elasticsearch_api_key: String,
    /// PEM file of the engine's certificate authority, if that is not a public one
    #[arg(long, env, value_name = "FILE", default_value = "", hide_default_value = true)]
    elasticsearch_ca: String,
    /// First part of the name of every index and alias, so that several catalogues can share an engine
    #[arg(
        long,
        env = "ETL_INDEX_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    index_prefix: String,
}

impl ElasticsearchArgs {
    /// Turns the text into values, or notes what is wrong with it.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<Engine> {
        let url: Option<EngineUrl> =
            mistakes.parse("--elasticsearch-url (ELASTICSEARCH_URL)", &self.elasticsearch_url);
        let prefix: Option<IndexPrefix> =
            mistakes.parse("--index-prefix (ETL_INDEX_PREFIX)", &self.index_prefix);
        let authority = match &*self.elasticsearch_ca {
            "" => None,
            path => match fs::read(path) {
                Ok(pem) => Some(pem),
                Err(err) => {
                    let setting = "--elasticsearch-ca (ELASTICSEARCH_CA)";
                    mistakes.add(format!("{setting} `{path}` cannot be read: {err}"));
                    None
                }
            },
        };
        let url = match &*self.elasticsearch_api_key {
            "" => url?,
            key => url?.with_api_key(key),
        };
        Some(Engine { url, prefix: prefix?, authority })
    }
}

/// What is wrong with the settings of a run, one line each.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// Notes a mistake; `what` starts with the name of the setting.
    pub fn add(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    /// Parses the text of a setting, or notes why it cannot be.
    ///
    /// The error of `T` completes the sentence "`--setting` `text` …". The text of a setting that may
    /// hold a password is not repeated.
    pub fn parse<T: FromStr>(&mut self, setting: &str, raw: &str) -> Option<T>
    where
        T::Err: ToString,
    {
        let secret = setting.contains("URL");
        raw.parse()
            .inspect_err(|err: &T::Err| {
                let err = err.to_string();
                self.0.push(if secret {
                    format!("{setting} {err}")
                } else {
                    format!("{setting} `{raw}` {err}")
                });
            })
            .ok()
    }

    /// Returns the values if there was no mistake.
    ///
    /// # Errors
    ///
    /// Returns all mistakes at once.
    pub fn finish<T>(self, values: Option<T>) -> Result<T, Error> {
        match values {
            Some(values) if self.0.is_empty() => Ok(values),
            _ => Err(Error::Usage(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_reported_and_secrets_are_not() {
        let mut mistakes = Mistakes::default();
        let url: Option<DatabaseUrl> = mistakes.parse("--database-url (DATABASE_URL)", "hunter2");
        let count: Option<Count> = mistakes.parse("--batch-size (ETL_BATCH_SIZE)", "many");
        let Err(Error::Usage(lines)) = mistakes.finish(url.zip(count)) else {
            panic!("no mistake")
        };
        assert_eq!(lines.len(), 2);
        assert!(!lines[0].contains("hunter2"));
        assert!(lines[1].contains("`many` is not a whole number"));
    }
    #[test]
    fn a_database_url_may_be_whatever_libpq_takes() {
        for url in [
            "postgres://me:p%40ss@host:5432/movies?sslmode=require&connect_timeout=5",
            "postgresql://me@[::1]:5432,other:5433,third/movies",
            "postgres:///movies?host=/run/postgresql&password=x/y",
            "postgres://me:a?b#c[d@host",
            "postgres://",
            "host=/run dbname = movies  password='it\\'s a \"secret\"' user=",
            "password=a\\ b",
        ] {
            assert!(is_well_formed(url), "{url}");
        }
    }
}
