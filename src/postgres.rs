//! The source: how to reach PostgreSQL, what our sessions are like, and what can go wrong.
//!
//! Only this module and those below it name Diesel. Each of the others has the statements of one
//! noun. All of our writes are single statements that commit by themselves, so no lock of ours
//! outlives a round trip.

pub mod catalogue;
pub mod film_work;
pub mod fixture;
pub mod follow;
pub mod genre;
pub mod lock;
pub mod migrations;
pub mod outbox;
pub mod pending;
pub mod person;
pub mod rebuild;
pub mod rejected;
pub mod related;
pub mod stamp;
pub mod state;
pub mod work;

mod error;
mod indexes;
mod schema;
mod statement;

use std::fmt;
use std::str::FromStr;

use diesel::connection::Connection as _;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;

pub use self::error::Error;

/// A session with PostgreSQL.
pub type Connection = PgConnection;

/// A moment as PostgreSQL stores it: microseconds since 2000-01-01 UTC.
pub type Timestamp = diesel::data_types::PgTimestamp;

/// What is set in each of our sessions, whatever the role or the database has as its default.
///
/// - `synchronous_commit = local`: our commits flush the log (see [`flush_wal`]), but never wait
///   for a standby; a failover is noticed by its timeline.
/// - `enable_bitmapscan = off`: a queue that has just grown from nothing has no statistics; a page of it
///   is to be read in the order of its index, and not by reading and sorting all of it.
/// - `plan_cache_mode`: a plan for these very thousand ids would join them with all of a table.
/// - The timeouts bound what a frozen process of ours can hold, and a statement that goes wrong. A
///   server that is sending rows to a frozen process waits in its socket, where only
///   `tcp_user_timeout` ends it (tried: 5 s, no window, gone).
const SESSION: &str = "
    SET client_encoding = 'UTF8';
    SET timezone = 'UTC';
    SET search_path = pg_catalog;
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off;
    SET synchronous_commit = local;
    SET lock_timeout = '5s';
    SET statement_timeout = '120s';
    SET idle_in_transaction_session_timeout = '30s';
    SET tcp_user_timeout = '10s';
    SET enable_bitmapscan = off;
    SET plan_cache_mode = force_generic_plan;
    SET jit = off;";

/// Connection URL of a database. It may hold a password, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    /// Takes a URL (`postgres://…`) or libpq's words (`host=… dbname=…`). Opens no connection.
    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let is_url = raw.starts_with("postgres://") || raw.starts_with("postgresql://");
        if is_url || raw.contains('=') {
            Ok(Self(raw.to_owned()))
        } else {
            Err("is not a connection URL such as postgres://user@host:5432/database")
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl DatabaseUrl {
    /// Adds the limits that libpq does not set by itself: 5 s to connect, and about 10 s until a
    /// host that went away silently is noticed. What the user has set stands.
    fn with_limits(&self) -> String {
        const LIMITS: [(&str, &str); 5] = [
            ("connect_timeout", "5"),
            ("keepalives_idle", "4"),
            ("keepalives_interval", "2"),
            ("keepalives_count", "3"),
            ("tcp_user_timeout", "10000"),
        ];
        let mut url = self.0.clone();
        let is_url = url.contains("://");
        for (name, value) in LIMITS.into_iter().filter(|(name, _)| !self.0.contains(name)) {
            let separator = match is_url {
                true if url.contains('?') => '&',
                true => '?',
                false => ' ',
            };
            url = format!("{url}{separator}{name}={value}");
        }
        url
    }
}

/// Connects, with our settings for the session.
///
/// `purpose` is seen in `pg_stat_activity`.
///
/// # Errors
///
/// Returns an error if the server is away, refuses us, or has no such database.
pub fn connect(url: &DatabaseUrl, purpose: &str) -> Result<Connection, Error> {
    let mut conn = PgConnection::establish(&url.with_limits()).map_err(Error::Connect)?;
    conn.batch_execute(SESSION).map_err(Error::query("set up the session"))?;
    diesel::sql_query("SELECT set_config('application_name', $1, false)")
        .bind::<diesel::sql_types::Text, _>(purpose)
        .execute(&mut conn)
        .map_err(Error::query("name the session"))?;
    Ok(conn)
}

/// Makes sure that everything this session has read is on disk.
///
/// A writer with `synchronous_commit = off` is seen by others before its commit is durable. If its
/// document were sent and PostgreSQL crashed then, the index would keep what never was. Any commit
/// flushes the log up to itself, so where the log is not flushed we write a few bytes and commit.
///
/// # Errors
///
/// Returns an error if the statement fails; nothing may be sent then.
pub fn flush_wal(conn: &mut Connection) -> Result<(), Error> {
    statement::statement(
        "SELECT CASE WHEN pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()
         THEN pg_logical_emit_message(true, 'etl', '') END",
    )
    .execute(conn)
    .map(drop)
    .map_err(Error::query("flush the write-ahead log"))
}

/// Returns microseconds since 1970, the version of a document that changed at this moment.
#[must_use]
pub fn version_of(touched_at: Timestamp) -> i64 {
    touched_at.0.saturating_add(MICROSECONDS_1970_TO_2000)
}

/// Returns the moment that a document's version stands for; `None` if there is no higher version.
#[must_use]
pub fn moment_of(version: i64) -> Option<Timestamp> {
    let moment = version.checked_sub(MICROSECONDS_1970_TO_2000)?;
    // PostgreSQL's last moment, in the year 294276, has a higher one than this.
    (version < i64::MAX).then_some(diesel::data_types::PgTimestamp(moment))
}

/// PostgreSQL counts from 2000-01-01, the rest of the world from 1970-01-01.
const MICROSECONDS_1970_TO_2000: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_url_gets_limits_unless_it_has_its_own() {
        let url = DatabaseUrl::from_str("postgres://me@host/movies?connect_timeout=60").unwrap();
        let limited = url.with_limits();
        assert!(
            limited.starts_with("postgres://me@host/movies?connect_timeout=60&keepalives_idle=4&")
        );
        assert_eq!(limited.matches("connect_timeout").count(), 1);

        let words = DatabaseUrl::from_str("host=/run dbname=movies").unwrap().with_limits();
        assert!(words.starts_with("host=/run dbname=movies connect_timeout=5 keepalives_idle=4 "));
    }

    #[test]
    fn a_database_url_is_never_printed() {
        let url = DatabaseUrl::from_str("postgres://me:secret@host/movies").unwrap();
        assert_eq!(format!("{url:?}"), "…");
    }

    #[test]
    fn versions_and_moments_are_the_same_thing() {
        let moment = diesel::data_types::PgTimestamp(0);
        assert_eq!(version_of(moment), 946_684_800_000_000);
        assert_eq!(moment_of(version_of(moment)), Some(moment));
        assert_eq!(moment_of(i64::MAX), None);
        assert_eq!(moment_of(i64::MIN), None);
    }
}
