//! What the stamps speak of: which index, of which engine, of which database, under which epoch.

use std::fmt;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::schema::state;
use super::statement::statement;
use super::{Connection, Error};

/// The kind of documents that this program keeps.
const KIND: &str = "movies";

/// The state of the documents of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Moved by whoever takes the lead or resets.
    pub epoch: i64,
    /// What the stamps speak of. `None` before `etl init-es` is done.
    pub binding: Option<Binding>,
    /// The definition (JSON) of the index, if it is not the one that comes with the program.
    pub mapping: Option<String>,
}

/// The one index and the one database that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The index, by name and by the UUID that the engine gave to it.
    pub index_name: String,
    /// A new one for every index, also for one of the same name.
    pub index_uuid: String,
    /// The setting it was made under.
    pub index_prefix: String,
    /// The engine's own. Empty if we were not allowed to see it.
    pub cluster_uuid: String,
    /// The database.
    pub database: DatabaseIdentity,
}

/// What tells a database from its copies and from its own past.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct DatabaseIdentity {
    /// Given to the cluster by `initdb`; a dump that is restored elsewhere finds another one.
    #[diesel(sql_type = Text)]
    pub system_identifier: String,
    /// Moves when a standby is promoted and after a recovery to a point in time.
    #[diesel(sql_type = Text)]
    pub timeline: String,
    /// The numbers of the database and of the table `film_work` in it: a dump that is restored gets
    /// others, and so does a copy of the database beside it.
    #[diesel(sql_type = Text)]
    pub catalogue_oid: String,
}

impl fmt::Display for DatabaseIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system_identifier, timeline, catalogue_oid } = self;
        write!(f, "{system_identifier}, timeline {timeline}, catalogue {catalogue_oid}")
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = state)]
struct Row {
    epoch: i64,
    index_name: Option<String>,
    index_uuid: Option<String>,
    index_prefix: Option<String>,
    cluster_uuid: Option<String>,
    system_identifier: Option<String>,
    timeline: Option<String>,
    catalogue_oid: Option<String>,
    mapping: Option<String>,
}

impl From<Row> for State {
    fn from(row: Row) -> Self {
        let binding = row.index_name.map(|index_name| Binding {
            index_name,
            index_uuid: row.index_uuid.unwrap_or_default(),
            index_prefix: row.index_prefix.unwrap_or_default(),
            cluster_uuid: row.cluster_uuid.unwrap_or_default(),
            database: DatabaseIdentity {
                system_identifier: row.system_identifier.unwrap_or_default(),
                timeline: row.timeline.unwrap_or_default(),
                catalogue_oid: row.catalogue_oid.unwrap_or_default(),
            },
        });
        Self { epoch: row.epoch, binding, mapping: row.mapping }
    }
}

/// Loads the state.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_state(conn: &mut Connection) -> Result<State, Error> {
    state::table
        .find(KIND)
        .select(Row::as_select())
        .get_result(conn)
        .map(State::from)
        .map_err(Error::query("load the state"))
}

/// Moves the epoch: what was read before can no longer be stamped or forgotten.
///
/// Waits for stamps that are being written. Returns the new state.
///
/// # Errors
///
/// Returns an error if the statement fails; the epoch may have moved, which does no harm.
pub fn move_epoch(conn: &mut Connection) -> Result<State, Error> {
    diesel::update(state::table.find(KIND))
        .set(state::epoch.eq(state::epoch + 1))
        .returning(Row::as_returning())
        .get_result(conn)
        .map(State::from)
        .map_err(Error::query("move the epoch"))
}

/// Moves the epoch and forgets the index, so that nothing is sent or stamped until [`bind`].
///
/// `mapping` is the definition (JSON) of the index to come, if it is not to be the one that comes with
/// the program.
///
/// # Errors
///
/// Returns an error if the statement fails; the state is as it was, or unbound.
pub fn unbind(conn: &mut Connection, mapping: Option<&str>) -> Result<(), Error> {
    diesel::update(state::table.find(KIND))
        .set((
            state::epoch.eq(state::epoch + 1),
            state::index_name.eq(None::<String>),
            state::mapping.eq(mapping),
        ))
        .execute(conn)
        .map(drop)
        .map_err(Error::query("unbind the state"))
}

/// Binds the state to an index. From now on it is filled and followed.
///
/// # Errors
///
/// Returns an error if the statement fails; the state is unbound, or bound.
pub fn bind(conn: &mut Connection, binding: &Binding) -> Result<(), Error> {
    diesel::update(state::table.find(KIND))
        .set((
            state::epoch.eq(state::epoch + 1),
            state::index_name.eq(&binding.index_name),
            state::index_uuid.eq(&binding.index_uuid),
            state::index_prefix.eq(&binding.index_prefix),
            state::cluster_uuid.eq(&binding.cluster_uuid),
            state::system_identifier.eq(&binding.database.system_identifier),
            state::timeline.eq(&binding.database.timeline),
            state::catalogue_oid.eq(&binding.database.catalogue_oid),
        ))
        .execute(conn)
        .map(drop)
        .map_err(Error::query("bind the state to an index"))
}

/// Loads the identity of the database that we are connected to.
///
/// # Errors
///
/// Returns an error if the statement fails, as it does on a standby.
pub fn load_identity(conn: &mut Connection) -> Result<DatabaseIdentity, Error> {
    // The control file knows the timeline of the last checkpoint only; the name of the file that
    // is written now begins with the one that counts.
    statement(
        "SELECT s.system_identifier::text,
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline,
            (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' ||
                to_regclass('content.film_work')::oid AS catalogue_oid
         FROM pg_control_system() AS s",
    )
    .get_result(conn)
    .map_err(Error::query("load the identity of the database"))
}

/// Forgets the stamps and rejections of films, a chunk at a time, so that all are pending.
///
/// Gives the number of films that it has looked at so far to `progress` after each chunk. A film
/// that a writer holds is left out and tried again in another pass. Returns how many are left
/// for such a pass.
///
/// # Errors
///
/// Returns an error if a statement fails; some films are pending then, which does no harm.
pub fn reset_films(conn: &mut Connection, mut progress: impl FnMut(u64)) -> Result<i64, Error> {
    #[derive(QueryableByName)]
    struct Chunk {
        #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Uuid>)]
        next_id: Option<uuid::Uuid>,
        #[diesel(sql_type = BigInt)]
        locked_by_others: i64,
    }
    /// Some 20 ms a chunk: nobody notices that its rows are locked.
    const CHUNK: i32 = 2_000;

    let mut first_id = Some(uuid::Uuid::nil());
    let mut locked_by_others = 0;
    let mut looked_at = 0;
    while let Some(id) = first_id {
        let chunk: Chunk = statement("SELECT * FROM etl.reset_film_works($1, $2)")
            .bind::<diesel::sql_types::Uuid, _>(id)
            .bind::<diesel::sql_types::Integer, _>(CHUNK)
            .get_result(conn)
            .map_err(Error::query("reset the stamps of films"))?;
        locked_by_others += chunk.locked_by_others;
        first_id = chunk.next_id;
        looked_at += u64::from(CHUNK.unsigned_abs());
        progress(looked_at);
    }
    Ok(locked_by_others)
}

/// Forgets what a full load does anyhow: rejections, the outbox, and the fan-outs of persons and
/// genres, these a chunk at a time.
///
/// To be called after [`unbind`] and before [`reset_films`]: what is forgotten here has been committed,
/// and every film is made pending and read after that. A new index holds nothing to be deleted.
///
/// # Errors
///
/// Returns an error if a statement fails. Some is forgotten then, so all films must be made pending
/// all the same.
pub fn forget_changes(conn: &mut Connection) -> Result<(), Error> {
    #[derive(QueryableByName)]
    struct Stamped {
        #[diesel(sql_type = BigInt)]
        stamped: i64,
    }
    const CHUNK: i64 = 2_000;
    for table in ["DELETE FROM etl.outbox", "DELETE FROM etl.rejected"] {
        statement(table).execute(conn).map_err(Error::query("empty the outbox"))?;
    }
    for kind in ["person", "genre"] {
        loop {
            let row: Stamped = statement("SELECT etl.reset_fan_outs($1, $2::integer) AS stamped")
                .bind::<Text, _>(kind)
                .bind::<BigInt, _>(CHUNK)
                .get_result(conn)
                .map_err(Error::query("reset the fan-outs"))?;
            // Not until there is none: others may change as fast as we mark.
            if row.stamped < CHUNK {
                break;
            }
        }
    }
    Ok(())
}
