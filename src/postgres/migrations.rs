//! The migrations, embedded in the program: applying, reverting, and what must be granted then.

use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::lock::try_lock_setup;
use super::related::NOTED;
use super::schema::__diesel_schema_migrations::dsl as applied;
use super::{Connection, Error, SESSION, catalogue, indexes};
use crate::kind::Kind;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The rights that the role of `etl start` needs, and `etl init-es` beside it. The name of the role is
/// put in for `ROLE`, and tables for the words in braces.
const GRANTS: &str = include_str!("queries/grants.sql");

/// How long to wait for another process that applies migrations or sets up an index.
const SETUP_WAIT: Duration = Duration::from_secs(60);

/// Returns the statements that grant a role what the sync needs, and no more.
#[must_use]
pub fn build_grants(role: &str) -> String {
    let list = |tables: &[&str]| {
        tables.iter().map(|table| format!("content.{table}")).collect::<Vec<_>>().join(", ")
    };
    GRANTS
        .replace("{tables}", &list(&catalogue::tables()))
        .replace("{kinds}", &list(&Kind::ALL.map(Kind::table)))
        .replace("{noted}", &list(&NOTED))
        .replace("ROLE", &format!("\"{}\"", role.replace('"', "\"\"")))
}

/// Makes sure that nobody else applies migrations or sets up an index, until the session ends.
///
/// # Errors
///
/// Returns an error if somebody else still does after a minute.
pub fn lock_setup(conn: &mut Connection) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(200);
    for _ in 0..SETUP_WAIT.as_millis() / PAUSE.as_millis() {
        if try_lock_setup(conn)? {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Err(Error::Catalogue(
        "another `etl init-es` or `etl migrate` is at work on this database: wait for it"
            .to_owned(),
    ))
}

/// Applies the migrations that are missing, after a look whether the catalogue can be followed.
///
/// Gives the name of each to `progress` before it is applied. To be called under [`lock_setup`].
///
/// # Errors
///
/// Returns an error if the catalogue cannot be followed (nothing is changed then), or if a migration
/// fails: those before it stand, it itself is undone, and a second try goes on from there.
pub fn apply(conn: &mut Connection, mut progress: impl FnMut(&str)) -> Result<(), Error> {
    let applied = check_not_newer(conn)?;
    catalogue::check(conn)?;
    if applied.len() == known_versions().len() && indexes::find_missing(conn)?.is_empty() {
        // Diesel would create its list if it is not there, which needs a right even if it is.
        return Ok(());
    }
    conn.batch_execute(
        "DO $$ BEGIN IF to_regnamespace('etl') IS NULL THEN CREATE SCHEMA etl; END IF; END $$",
    )
    .map_err(Error::query("create the schema `etl`"))?;
    prepare_session(conn)?;
    indexes::drop_invalid(conn)?;
    let pending =
        conn.pending_migrations(MIGRATIONS).map_err(|err| failure("all", err.as_ref()))?;
    for migration in pending {
        let name = migration.name().to_string();
        progress(&name);
        conn.run_migration(&migration).map_err(|err| failure(&name, err.as_ref()))?;
    }
    for kind in indexes::find_missing(conn)? {
        indexes::build(conn, kind)?;
    }
    conn.batch_execute(SESSION).map_err(Error::query("set up the session again"))
}

/// Removes everything that is ours from the database. The catalogue stays.
///
/// To be called under [`lock_setup`].
///
/// # Errors
///
/// Returns an error if a step fails; a second try goes on from there.
pub fn revert(conn: &mut Connection) -> Result<(), Error> {
    if !has_list(conn)? {
        return Ok(());
    }
    check_not_newer(conn)?;
    prepare_session(conn)?;
    conn.revert_all_migrations(MIGRATIONS).map_err(|err| failure("all", err.as_ref()))?;
    // What others have put into the schema is not ours to drop.
    conn.batch_execute(
        "DROP TABLE __diesel_schema_migrations;
         DO $$ BEGIN DROP SCHEMA etl; EXCEPTION WHEN dependent_objects_still_exist THEN END $$",
    )
    .map_err(Error::query("drop the schema `etl`"))
}

/// Makes the session ready for migrations.
///
/// Diesel keeps its list in the first schema of the path: in ours, not in the users'. An index is built
/// for as long as it takes; it waits for the transactions of others, while nobody waits for it. The
/// migration that does make others wait limits that itself.
fn prepare_session(conn: &mut Connection) -> Result<(), Error> {
    conn.batch_execute("SET search_path = etl; SET statement_timeout = 0; SET lock_timeout = 0")
        .map_err(Error::query("set up the session for migrations"))
}

/// Makes sure that the database is as this program expects it. Changes nothing.
///
/// # Errors
///
/// Returns an error if migrations are missing, or if there are some that this program does not know.
pub fn check_current(conn: &mut Connection) -> Result<(), Error> {
    let known = known_versions();
    let applied = check_not_newer(conn)?;
    let missing = known.iter().filter(|version| !applied.contains(version)).count();
    match (missing, applied.len()) {
        (0, _) => Ok(()),
        (_, 0) => Err(Error::Catalogue(
            "the database is not prepared: run `etl migrate` (or `etl init-es`, which does it, too)"
                .to_owned(),
        )),
        (missing, _) => Err(Error::Catalogue(format!(
            "the database lacks {missing} migrations of this version of etl: run `etl migrate`"
        ))),
    }
}

/// Makes sure that our role may read all tables of ours and write our columns: a new version may have added some.
///
/// # Errors
///
/// Returns an error that names what it may not.
pub fn check_rights(conn: &mut Connection) -> Result<(), Error> {
    #[derive(QueryableByName)]
    struct Denied {
        #[diesel(sql_type = Text)]
        role: String,
        #[diesel(sql_type = Text)]
        name: String,
    }
    let denied: Vec<Denied> = sql_query(
        "SELECT current_user::text AS role, format('%I.%I', n.nspname, c.relname) AS name
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'etl' AND c.relkind IN ('r', 'v') AND NOT has_table_privilege(c.oid, 'SELECT')
            OR n.nspname = 'content' AND c.relname = ANY ($1) AND NOT has_column_privilege(c.oid, 'indexed_at', 'UPDATE')
         ORDER BY 2",
    )
    .bind::<Array<Text>, _>(Kind::ALL.map(Kind::table).as_slice())
    .load(conn)
    .map_err(Error::query("look at our rights"))?;
    let names: Vec<&str> = denied.iter().map(|denied| &*denied.name).collect();
    let Some(Denied { role, .. }) = denied.first() else { return Ok(()) };
    Err(Error::Catalogue(format!(
        "the role {role} lacks rights on {}: have the owner of the tables run what `etl migrate --print-grants {role}` prints",
        names.join(", ")
    )))
}

/// Returns the applied versions, all of which this program knows.
fn check_not_newer(conn: &mut Connection) -> Result<Vec<String>, Error> {
    if !has_list(conn)? {
        return Ok(Vec::new());
    }
    let versions: Vec<String> = applied::__diesel_schema_migrations
        .select(applied::version)
        .order(applied::version)
        .load(conn)
        .map_err(Error::query("load the applied migrations"))?;
    let known = known_versions();
    match versions.iter().find(|version| !known.contains(version)) {
        Some(version) => Err(Error::Catalogue(format!(
            "the database has migration {version}, which this version of etl ({}) does not know: use the newer etl",
            env!("CARGO_PKG_VERSION")
        ))),
        None => Ok(versions),
    }
}

fn has_list(conn: &mut Connection) -> Result<bool, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_there: bool,
    }
    sql_query("SELECT to_regclass($1) IS NOT NULL AS is_there")
        .bind::<Text, _>("etl.__diesel_schema_migrations")
        .get_result(conn)
        .map(|row: Row| row.is_there)
        .map_err(Error::query("look for the applied migrations"))
}

fn known_versions() -> Vec<String> {
    let migrations: Vec<Box<dyn Migration<Pg>>> =
        MIGRATIONS.migrations().expect("embedded migrations have valid names");
    migrations.iter().map(|migration| migration.name().version().to_string()).collect()
}

fn failure(migration: &str, err: &(dyn std::error::Error + 'static)) -> Error {
    Error::Migrate { migration: migration.to_owned(), reason: err.to_string() }
}
