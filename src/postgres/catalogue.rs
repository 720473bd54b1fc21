//! The users' catalogue: whether it can be followed at all. Looks only.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Integer, Text};

use super::related::NOTED;
use super::{Connection, Error, film_work, genre, person};
use crate::kind::Kind;

/// What a column must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Uuid,
    Text,
    Number,
    Moment,
}

/// The tables of links, and the columns that documents need.
const LINKS: [(&str, &[(&str, Expected)]); 2] = [
    ("genre_film_work", &[("genre_id", Expected::Uuid), ("film_work_id", Expected::Uuid)]),
    (
        "person_film_work",
        &[
            ("person_id", Expected::Uuid),
            ("film_work_id", Expected::Uuid),
            ("role", Expected::Text),
        ],
    ),
];

/// The columns that the documents of a kind need, beside those that stamps need.
fn columns_of(kind: Kind) -> &'static [(&'static str, Expected)] {
    match kind {
        Kind::Movies => film_work::COLUMNS,
        Kind::Persons => person::COLUMNS,
        Kind::Genres => genre::COLUMNS,
    }
}

/// Returns the names of all tables that are read.
pub(super) fn tables() -> Vec<&'static str> {
    Kind::ALL.map(Kind::table).into_iter().chain(LINKS.map(|(name, _)| name)).collect()
}

/// The tables, and the columns that must be there.
fn expected() -> Vec<(&'static str, Vec<(&'static str, Expected)>)> {
    let of_kind = |kind: Kind| {
        let (id, modified) = (("id", Expected::Uuid), ("modified", Expected::Moment));
        (kind.table(), [&[id], columns_of(kind), &[modified]].concat())
    };
    let of_links = LINKS.map(|(name, columns)| (name, columns.to_vec()));
    Kind::ALL.map(of_kind).into_iter().chain(of_links).collect()
}

/// Returns whether we add a column of this name to a table of the catalogue.
fn is_ours(table: &str, column: &str) -> bool {
    match column {
        "touched_at" | "indexed_at" | "rejected_at" => Kind::of_table(table).is_some(),
        "fanned_out_at" => NOTED.contains(&table),
        _ => false,
    }
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    /// Our columns and tables are there.
    #[diesel(sql_type = Bool)]
    is_prepared: bool,
    /// There are tables in a schema with the name of ours, but not our list of migrations.
    #[diesel(sql_type = Bool)]
    has_foreign_schema: bool,
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    relkind: String,
    /// A partition, a child or a parent.
    #[diesel(sql_type = Bool)]
    is_related: bool,
    #[diesel(sql_type = Bool)]
    has_unique_id: bool,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table: String,
    #[diesel(sql_type = Text)]
    name: String,
    /// `uuid`, `timestamp with time zone`, … of the base type if it is a domain.
    #[diesel(sql_type = Text)]
    base_type: String,
    /// `S` text, `E` enum, `N` number, …; see `pg_type.typcategory`.
    #[diesel(sql_type = Text)]
    category: String,
}

/// Makes sure that the catalogue can be followed, or that there is none yet.
///
/// # Errors
///
/// Returns an error that names everything that is in the way.
pub fn check(conn: &mut Connection) -> Result<(), Error> {
    let server: Server = sql_query(
        "SELECT current_setting('server_version_num')::integer AS version,
            current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS is_standby,
            coalesce(bool_or(relname = 'state'), false) AS is_prepared,
            count(*) > 0 AND NOT bool_or(relname = '__diesel_schema_migrations') AS has_foreign_schema
         FROM pg_class WHERE relnamespace = to_regnamespace('etl')",
    )
    .get_result(conn)
    .map_err(Error::query("ask for the version"))?;
    let tables = load_tables(conn)?;
    let columns = load_columns(conn)?;

    let mut obstacles = server_obstacles(&server);
    // Without any of the tables, the first migration makes them all.
    if !tables.is_empty() {
        for (name, expected) in expected() {
            match tables.iter().find(|table| table.name == name) {
                None => obstacles.push(format!("the table content.{name} is missing")),
                Some(table) => {
                    obstacles.extend(table_obstacle(table));
                    let columns = columns.iter().filter(|column| column.table == name);
                    obstacles.extend(column_obstacles(
                        name,
                        &expected,
                        &columns.collect::<Vec<_>>(),
                    ));
                }
            }
        }
    }
    if !server.is_prepared {
        obstacles.extend(columns.iter().filter_map(name_obstacle));
    }
    if obstacles.is_empty() {
        Ok(())
    } else {
        Err(Error::Catalogue(format!("cannot follow this catalogue: {}", obstacles.join("; "))))
    }
}

fn load_tables(conn: &mut Connection) -> Result<Vec<Table>, Error> {
    sql_query(
        "SELECT c.relname::text AS name, c.relkind::text AS relkind,
            c.relispartition OR EXISTS (
                SELECT FROM pg_inherits h WHERE c.oid IN (h.inhrelid, h.inhparent)) AS is_related,
            EXISTS (
                SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                    AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS has_unique_id
         FROM pg_class c
         WHERE c.relnamespace = to_regnamespace('content') AND c.relname = ANY ($1)
            AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    .bind::<Array<Text>, _>(tables())
    .load(conn)
    .map_err(Error::query("look at the tables of the catalogue"))
}

fn load_columns(conn: &mut Connection) -> Result<Vec<Column>, Error> {
    sql_query(
        "SELECT c.relname::text AS table, a.attname::text AS name, t.typcategory::text AS category,
            format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, NULL) AS base_type
         FROM pg_class c
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.relnamespace = to_regnamespace('content') AND c.relname = ANY ($1)",
    )
    .bind::<Array<Text>, _>(tables())
    .load(conn)
    .map_err(Error::query("look at the columns of the catalogue"))
}

fn server_obstacles(server: &Server) -> Vec<String> {
    let mut obstacles = Vec::new();
    if server.version < 140_000 {
        let major = server.version / 10_000;
        obstacles.push(format!("PostgreSQL {major} is too old, 14 is the oldest that will do"));
    }
    if server.encoding == "SQL_ASCII" {
        obstacles.push(
            "the encoding of the database is SQL_ASCII, so its texts may be anything".to_owned(),
        );
    }
    if server.is_standby {
        obstacles.push("this server is a standby: connect to the primary".to_owned());
    }
    if server.has_foreign_schema {
        obstacles.push("there is a schema etl that another program made".to_owned());
    }
    obstacles
}

fn table_obstacle(table: &Table) -> Option<String> {
    let Table { name, relkind, is_related, has_unique_id } = table;
    let kind = match (&**relkind, is_related) {
        ("v" | "m", _) => "a view",
        ("f", _) => "a foreign table",
        ("p", _) => "a partitioned table",
        (_, true) => "a partition, or part of an inheritance",
        _ if !has_unique_id && !name.ends_with("_film_work") => {
            return Some(format!("content.{name} has no primary key or unique index on id"));
        }
        _ => return None,
    };
    Some(format!("content.{name} is {kind}, whose triggers do not see every change"))
}

fn column_obstacles(
    table: &str,
    expected: &[(&str, Expected)],
    columns: &[&Column],
) -> Vec<String> {
    let check = |&(name, expected): &(&str, Expected)| {
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            return Some(format!("the column content.{table}.{name} is missing"));
        };
        let (fits, needed) = match expected {
            Expected::Uuid => (column.base_type == "uuid", "uuid"),
            Expected::Text => (matches!(&*column.category, "S" | "E"), "text"),
            Expected::Number => (column.category == "N", "a number"),
            Expected::Moment => {
                (column.base_type == "timestamp with time zone", "timestamp with time zone")
            }
        };
        let base_type = &column.base_type;
        (!fits).then(|| format!("content.{table}.{name} is {base_type}, but must be {needed}"))
    };
    expected.iter().filter_map(check).collect()
}

fn name_obstacle(column: &Column) -> Option<String> {
    let Column { table, name, .. } = column;
    is_ours(table, name).then(|| {
        format!("content.{table} has a column {name}, a name that etl needs for one of its own")
    })
}
