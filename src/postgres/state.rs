//! What the stamps speak of: which index, of which engine, of which database, under which epoch.

use std::fmt;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::related::NOTED;
use super::schema::{state, term};
use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// The state of the documents of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the stamps speak of. `None` before `etl init-es` is done.
    pub binding: Option<Binding>,
    /// The definition (JSON) of the index, if it is not the one that comes with the program.
    pub mapping: Option<String>,
    /// The settings (JSON) that the index was made with, if that is known.
    pub settings: Option<String>,
    /// The index is filled for the first time, and does not have these settings yet.
    pub is_loading: bool,
    /// The index that was live before a rebuild, if it is still to be deleted.
    pub former_index: Option<String>,
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
    index_name: Option<String>,
    index_uuid: Option<String>,
    index_prefix: Option<String>,
    cluster_uuid: Option<String>,
    system_identifier: Option<String>,
    timeline: Option<String>,
    catalogue_oid: Option<String>,
    mapping: Option<String>,
    settings: Option<String>,
    is_loading: bool,
    former_index: Option<String>,
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
        let Row { mapping, settings, is_loading, former_index, .. } = row;
        Self { binding, mapping, settings, is_loading, former_index }
    }
}

/// Loads the state of a kind.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_state(conn: &mut Connection, kind: Kind) -> Result<State, Error> {
    state::table
        .find(kind.table())
        .select(Row::as_select())
        .get_result(conn)
        .map(State::from)
        .map_err(Error::query("load the state"))
}

/// Loads the kinds that have an index.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_bound_kinds(conn: &mut Connection) -> Result<Vec<Kind>, Error> {
    let tables: Vec<String> = state::table
        .filter(state::index_name.is_not_null())
        .select(state::kind)
        .load(conn)
        .map_err(Error::query("load the kinds that have an index"))?;
    Ok(Kind::ALL.into_iter().filter(|kind| tables.iter().any(|t| t == kind.table())).collect())
}

/// Loads the epoch.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_epoch(conn: &mut Connection) -> Result<i64, Error> {
    term::table.select(term::epoch).get_result(conn).map_err(Error::query("load the epoch"))
}

/// Moves the epoch: what was read before can no longer be stamped or forgotten.
///
/// Waits for stamps that are being written. Returns the new epoch.
///
/// # Errors
///
/// Returns an error if the statement fails; the epoch may have moved, which does no harm.
pub fn move_epoch(conn: &mut Connection) -> Result<i64, Error> {
    diesel::update(term::table)
        .set(term::epoch.eq(term::epoch + 1))
        .returning(term::epoch)
        .get_result(conn)
        .map_err(Error::query("move the epoch"))
}

/// Moves the epoch and forgets the index of a kind, so that nothing of it is sent or stamped until [`bind`].
///
/// `mapping` is the definition (JSON) of the index to come, if it is not to be the one that comes with
/// the program.
///
/// # Errors
///
/// Returns an error if the statement fails; the state is as it was, or unbound.
pub fn unbind(conn: &mut Connection, kind: Kind, mapping: Option<&str>) -> Result<(), Error> {
    statement(
        "WITH moved AS (
            UPDATE etl.term SET epoch = epoch + 1
         ), superseded AS (
            DELETE FROM etl.rebuild WHERE kind = $1
         )
         UPDATE etl.state SET index_name = NULL, mapping = $2 WHERE kind = $1",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Nullable<Text>, _>(mapping)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("unbind the state"))
}

/// Binds the state of a kind to an index that was made with these settings (JSON). From the next term on it is
/// filled and followed.
///
/// # Errors
///
/// Returns an error if the statement fails; the state is unbound, or bound.
pub fn bind(
    conn: &mut Connection,
    kind: Kind,
    binding: &Binding,
    settings: &str,
) -> Result<(), Error> {
    statement(
        "WITH moved AS (UPDATE etl.term SET epoch = epoch + 1)
         UPDATE etl.state SET index_name = $2, index_uuid = $3, index_prefix = $4, cluster_uuid = $5,
            system_identifier = $6, timeline = $7, catalogue_oid = $8, settings = $9, is_loading = true
         WHERE kind = $1",
    )
    .bind::<Text, _>(kind.table())
    .bind::<Text, _>(&binding.index_name)
    .bind::<Text, _>(&binding.index_uuid)
    .bind::<Text, _>(&binding.index_prefix)
    .bind::<Text, _>(&binding.cluster_uuid)
    .bind::<Text, _>(&binding.database.system_identifier)
    .bind::<Text, _>(&binding.database.timeline)
    .bind::<Text, _>(&binding.database.catalogue_oid)
    .bind::<Text, _>(settings)
    .execute(conn)
    .map(drop)
    .map_err(Error::query("bind the state to an index"))
}

/// Notes that this index of a kind was filled and has its settings.
///
/// # Errors
///
/// Returns an error if the statement fails; it gets them once more then.
pub fn end_loading(conn: &mut Connection, kind: Kind, index_name: &str) -> Result<(), Error> {
    diesel::update(state::table.find(kind.table()).filter(state::index_name.eq(index_name)))
        .set(state::is_loading.eq(false))
        .execute(conn)
        .map(drop)
        .map_err(Error::query("note that an index was filled"))
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

/// How many rows a statement of a reset takes. Some 20 ms: nobody notices that they are locked.
const RESET_CHUNK: i32 = 2_000;

/// Forgets the stamps and rejections of rows, a chunk at a time, so that all are pending.
///
/// Gives the number of rows that it has looked at so far to `progress` after each chunk. A row
/// that a writer holds is left out and tried again in another pass. Returns how many are left
/// for such a pass.
///
/// # Errors
///
/// Returns an error if a statement fails; some rows are pending then, which does no harm.
pub fn reset_rows(
    conn: &mut Connection,
    kind: Kind,
    mut progress: impl FnMut(u64),
) -> Result<i64, Error> {
    #[derive(QueryableByName)]
    struct Chunk {
        #[diesel(sql_type = Nullable<SqlUuid>)]
        next_id: Option<Uuid>,
        #[diesel(sql_type = BigInt)]
        locked_by_others: i64,
    }
    let mut first_id = Some(Uuid::nil());
    let mut locked_by_others = 0;
    let mut looked_at = 0;
    while let Some(id) = first_id {
        let chunk: Chunk = statement("SELECT * FROM etl.reset_rows($1, $2, $3)")
            .bind::<Text, _>(kind.table())
            .bind::<SqlUuid, _>(id)
            .bind::<Integer, _>(RESET_CHUNK)
            .get_result(conn)
            .map_err(Error::query("reset the stamps of rows"))?;
        locked_by_others += chunk.locked_by_others;
        first_id = chunk.next_id;
        looked_at += u64::from(RESET_CHUNK.unsigned_abs());
        progress(looked_at);
    }
    Ok(locked_by_others)
}

/// Forgets what a full load of these kinds does anyhow: rejections, entries of the outbox, and, where
/// films are among them, the fan-outs of persons and genres, a chunk at a time.
///
/// To be called after [`unbind`] and before [`reset_rows`]: what is forgotten here has been committed,
/// and every row is made pending and read after that. A new index holds nothing to be deleted.
///
/// # Errors
///
/// Returns an error if a statement fails. Some is forgotten then, so all rows must be made pending
/// all the same.
pub fn forget_changes(conn: &mut Connection, kinds: &[Kind]) -> Result<(), Error> {
    let tables: Vec<&str> = kinds.iter().map(|kind| kind.table()).collect();
    // Where no other kind has an index, nobody needs what concerns several.
    for forget in [
        "DELETE FROM etl.outbox
         WHERE op IN ('touch', 'touch_later', 'tombstone', 'purge') AND kind = ANY ($1)
            OR NOT EXISTS (SELECT FROM etl.state WHERE index_name IS NOT NULL)",
        "DELETE FROM etl.rejected WHERE kind = ANY ($1)",
    ] {
        statement(forget)
            .bind::<Array<Text>, _>(&tables)
            .execute(conn)
            .map_err(Error::query("empty the outbox"))?;
    }
    if kinds.contains(&Kind::Movies) {
        for table in NOTED {
            reset_fan_outs(conn, table)?;
        }
    }
    Ok(())
}

fn reset_fan_outs(conn: &mut Connection, table: &str) -> Result<(), Error> {
    #[derive(QueryableByName)]
    struct Stamped {
        #[diesel(sql_type = BigInt)]
        stamped: i64,
    }
    loop {
        let row: Stamped = statement("SELECT etl.reset_fan_outs($1, $2) AS stamped")
            .bind::<Text, _>(table)
            .bind::<Integer, _>(RESET_CHUNK)
            .get_result(conn)
            .map_err(Error::query("reset the fan-outs"))?;
        // Not until there is none: others may change as fast as we mark.
        if row.stamped < i64::from(RESET_CHUNK) {
            return Ok(());
        }
    }
}
