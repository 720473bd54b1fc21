//! The database indexes of ours on the users' tables, which are built without a lock.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Text};

use super::pending::PENDING;
use super::{Connection, Error};
use crate::kind::Kind;

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Drops the indexes of ours whose building was interrupted, which PostgreSQL leaves invalid.
pub(super) fn drop_invalid(conn: &mut Connection) -> Result<(), Error> {
    let names: Vec<Name> = sql_query(
        "SELECT i.indexrelid::regclass::text AS name
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
         WHERE NOT i.indisvalid AND c.relnamespace = to_regnamespace('content')
            AND t.relname = ANY ($1) AND c.relname ~ '_etl_(pending|fan_out)$'",
    )
    .bind::<Array<Text>, _>(Kind::ALL.map(Kind::table).as_slice())
    .load(conn)
    .map_err(Error::query("look for half-built indexes"))?;
    for Name { name } in names {
        sql_query(format!("DROP INDEX CONCURRENTLY {name}"))
            .execute(conn)
            .map_err(Error::query("drop a half-built index"))?;
    }
    Ok(())
}

/// Finds the kinds without the index for the look for work, which need one.
pub(super) fn find_missing(conn: &mut Connection) -> Result<Vec<Kind>, Error> {
    let names: Vec<Name> = sql_query(
        "SELECT t.name FROM unnest($1) AS t (name)
         WHERE NOT EXISTS (
            SELECT FROM pg_index i
            WHERE i.indexrelid = to_regclass(format('content.%I', t.name || '_etl_pending')) AND i.indisvalid)",
    )
    .bind::<Array<Text>, _>(Kind::ALL.map(Kind::table).as_slice())
    .load(conn)
    .map_err(Error::query("look for our indexes"))?;
    Ok(names.iter().filter_map(|table| Kind::of_table(&table.name)).collect())
}

/// Builds the index for the look for work of a kind. Nobody waits for it, and it waits for the transactions of
/// others.
pub(super) fn build(conn: &mut Connection, kind: Kind) -> Result<(), Error> {
    let table = kind.table();
    sql_query(format!(
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS {table}_etl_pending
         ON content.{table} (touched_at, id) WHERE {PENDING}"
    ))
    .execute(conn)
    .map(drop)
    .map_err(Error::query("build an index for the look for work"))
}
