//! The advisory locks of the program, all in this file, and who holds them.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Text};

use super::statement::statement;
use super::{Connection, Error};

/// A lock of a session. PostgreSQL keeps it apart for each database, and gives it back when the
/// session ends, however it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Lock {
    /// Held by the one process that reads, sends and stamps.
    Leader = 1,
    /// Held by `init-es` and `migrate`, which must not run twice at the same time.
    Setup = 2,
}

/// The first half of the key of our locks, so that they meet nobody else's: "etl" in ASCII.
const KEY: i32 = 0x65_74_6C;

/// The session that holds a lock.
#[derive(Debug, QueryableByName)]
pub struct Holder {
    /// The server's process of that session.
    #[diesel(sql_type = Integer)]
    pub pid: i32,
    /// As given to [`super::connect`]. Empty if we may not see it.
    #[diesel(sql_type = Text)]
    pub application_name: String,
    /// How long ago the session began, in seconds.
    #[diesel(sql_type = BigInt)]
    pub seconds: i64,
}

/// Takes a lock if nobody has it. Returns whether this session has it now.
///
/// # Errors
///
/// Returns an error if the statement fails; the lock may be held until the session ends.
pub fn try_lock(conn: &mut Connection, lock: Lock) -> Result<bool, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        taken: bool,
    }
    statement("SELECT pg_try_advisory_lock($1, $2) AS taken")
        .bind::<Integer, _>(KEY)
        .bind::<Integer, _>(lock as i32)
        .get_result(conn)
        .map(|row: Row| row.taken)
        .map_err(Error::query("take an advisory lock"))
}

/// Takes [`Lock::Setup`] if nobody has it, in a session that the server ends, with its lock, when the
/// process is frozen. Returns whether this session has it now.
///
/// # Errors
///
/// Returns an error if a statement fails; the lock may be held until the session ends.
pub fn try_lock_setup(conn: &mut Connection) -> Result<bool, Error> {
    /// Longer than two requests to the engine take at most, one after the other.
    const SILENCE_MAX_S: u32 = 75;
    limit_silence(conn, SILENCE_MAX_S)?;
    try_lock(conn, Lock::Setup)
}

/// Finds the session that holds a lock.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_holder(conn: &mut Connection, lock: Lock) -> Result<Option<Holder>, Error> {
    statement(
        "SELECT l.pid, coalesce(a.application_name, '') AS application_name,
            coalesce(extract(epoch FROM clock_timestamp() - a.backend_start), 0)::bigint AS seconds
         FROM pg_locks l
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.classid = $1::oid AND l.objid = $2::oid AND l.objsubid = 2
         LIMIT 1",
    )
    .bind::<Integer, _>(KEY)
    .bind::<Integer, _>(lock as i32)
    .get_result(conn)
    .optional()
    .map_err(Error::query("look who holds a lock"))
}

/// Shows the server that this session is alive, before it is ended for being idle.
///
/// # Errors
///
/// Returns an error if the session has ended, and its locks with it.
pub fn ping(conn: &mut Connection) -> Result<(), Error> {
    statement("SELECT").execute(conn).map(drop).map_err(Error::query("ping"))
}

/// Has the server end this session when nothing is heard of it for that long.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn limit_silence(conn: &mut Connection, seconds: u32) -> Result<(), Error> {
    statement("SELECT set_config('idle_session_timeout', $1, false)")
        .bind::<Text, _>(format!("{seconds}s"))
        .execute(conn)
        .map(drop)
        .map_err(Error::query("limit the silence of the session"))
}
