//! The films: which are pending, and what goes into their documents.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::stamp::AsRead;
use super::statement::statement;
use super::{Connection, Error, Timestamp};

/// What makes a film pending. The one place of this condition in the program; the database index
/// `film_work_etl_pending` is made of the same words.
///
/// The second half is a safety net for triggers that were disabled: with them, every change leaves
/// a NULL.
pub(super) const PENDING: &str =
    "(indexed_at IS NULL OR modified > indexed_at) AND rejected_at IS NULL";

/// A place in the order in which pending films are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
pub struct Position {
    /// When the film was last touched.
    #[diesel(sql_type = Timestamptz)]
    pub touched_at: Timestamp,
    /// Tells those apart that were touched in the same microsecond.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

impl Position {
    /// Before all films.
    pub const START: Self =
        Self { touched_at: diesel::data_types::PgTimestamp(i64::MIN), id: Uuid::nil() };
}

/// The columns of a [`FilmWork`]. The users' are cast, so that an ALTER TYPE of theirs does not change what
/// a statement returns.
const COLUMNS: &str =
    "id, title::text AS title, description::text AS description, rating::text AS rating,
    touched_at, modified";

/// A row of `film_work`, as far as the document and the stamp need it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct FilmWork {
    /// Its key, and the `_id` of its document.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The title.
    #[diesel(sql_type = Nullable<Text>)]
    pub title: Option<String>,
    /// The description.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// As PostgreSQL writes it: the users' column may be of any numeric type, and hold a NaN.
    #[diesel(sql_type = Nullable<Text>)]
    pub rating: Option<String>,
    /// Its last touch, which gives the version of its document.
    #[diesel(sql_type = Timestamptz)]
    pub touched_at: Timestamp,
    /// The users' own time of change.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub modified: Option<Timestamp>,
}

impl FilmWork {
    /// Returns the place of this row in the order of reading.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { touched_at: self.touched_at, id: self.id }
    }

    /// Returns what a stamp is compared with.
    #[must_use]
    pub fn as_read(&self) -> AsRead {
        AsRead { id: self.id, touched_at: self.touched_at, modified: self.modified }
    }
}

/// A person in a film.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Credit {
    /// The film.
    #[diesel(sql_type = SqlUuid)]
    pub film_work_id: Uuid,
    /// The person.
    #[diesel(sql_type = SqlUuid)]
    pub person_id: Uuid,
    /// The person's name.
    #[diesel(sql_type = Text)]
    pub full_name: String,
    /// What the person did: `actor`, `writer`, `director`.
    #[diesel(sql_type = Text)]
    pub role: String,
}

/// A genre of a film.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct FilmGenre {
    /// The film.
    #[diesel(sql_type = SqlUuid)]
    pub film_work_id: Uuid,
    /// The genre.
    #[diesel(sql_type = SqlUuid)]
    pub genre_id: Uuid,
    /// The genre's name.
    #[diesel(sql_type = Text)]
    pub name: String,
}

/// Loads the pending films after a place, in the order of reading.
///
/// At most `row_limit`, and no more once their texts have come to `byte_limit`; one at least, if
/// there is one. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_pending(
    conn: &mut Connection,
    after: Position,
    row_limit: usize,
    byte_limit: usize,
) -> Result<Vec<FilmWork>, Error> {
    // A row comparison: spelt with AND and OR it reads every row of a tie.
    statement(format!(
        "SELECT id, title, description, rating, touched_at, modified
         FROM (
            SELECT {COLUMNS},
                sum(coalesce(octet_length(title::text), 0)
                    + coalesce(octet_length(description::text), 0))
                    OVER (ORDER BY touched_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                    AS bytes_before
            FROM (
                SELECT * FROM content.film_work
                WHERE {PENDING} AND (touched_at, id) > ($1, $2)
                ORDER BY touched_at, id
                LIMIT $3
            ) AS page
         ) AS measured
         WHERE bytes_before IS NULL OR bytes_before < $4
         ORDER BY touched_at, id"
    ))
    .bind::<Timestamptz, _>(after.touched_at)
    .bind::<SqlUuid, _>(after.id)
    .bind::<BigInt, _>(i64::try_from(row_limit).unwrap_or(i64::MAX))
    .bind::<BigInt, _>(i64::try_from(byte_limit).unwrap_or(i64::MAX))
    .load(conn)
    .map_err(Error::query("load pending films"))
}

/// Loads some pending films: half of them the last ones, and half of them from anywhere. At most
/// `row_limit`, none twice. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_sample(conn: &mut Connection, row_limit: i64) -> Result<Vec<FilmWork>, Error> {
    // A random moment between the first and the last, as the database index has them in that order.
    statement(format!(
        "WITH ends AS (
            SELECT min(touched_at) AS first, max(touched_at) AS last
            FROM content.film_work WHERE {PENDING}
         ), last AS (
            SELECT id FROM content.film_work WHERE {PENDING}
            ORDER BY touched_at DESC, id DESC LIMIT $1 / 2
         ), anywhere AS (
            SELECT id FROM content.film_work
            WHERE {PENDING} AND touched_at >= (SELECT first + random() * (last - first) FROM ends)
            ORDER BY touched_at, id LIMIT $1 / 2
         )
         SELECT {COLUMNS} FROM content.film_work
         WHERE id IN (SELECT id FROM last UNION SELECT id FROM anywhere) AND {PENDING}"
    ))
    .bind::<BigInt, _>(row_limit)
    .load(conn)
    .map_err(Error::query("load some of the pending films"))
}

/// Finds the last place of the pending films. One statement, one entry of the database index.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn find_last_pending(conn: &mut Connection) -> Result<Option<Position>, Error> {
    statement(format!(
        "SELECT touched_at, id FROM content.film_work WHERE {PENDING}
         ORDER BY touched_at DESC, id DESC LIMIT 1"
    ))
    .get_result(conn)
    .optional()
    .map_err(Error::query("find the last pending film"))
}

/// Counts the pending films: reads the whole of their database index.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn count_pending(conn: &mut Connection) -> Result<u64, Error> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        films: i64,
    }
    statement(format!("SELECT count(*) AS films FROM content.film_work WHERE {PENDING}"))
        .get_result(conn)
        .map(|row: Row| row.films.unsigned_abs())
        .map_err(Error::query("count the pending films"))
}

/// Loads who took part in the given films, with the roles that a document shows.
///
/// In no order; a link that is there twice comes twice. Persons without a name are left out. One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_credits(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<Credit>, Error> {
    statement(
        "SELECT l.film_work_id, l.person_id, p.full_name::text AS full_name, l.role::text AS role
         FROM content.person_film_work l JOIN content.person p ON p.id = l.person_id
         WHERE l.film_work_id = ANY ($1) AND l.role::text IN ('actor', 'writer', 'director')
            AND p.full_name IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map_err(Error::query("load the people of films"))
}

/// Loads the genres of the given films.
///
/// In no order; a link that is there twice comes twice. Genres without a name are left out. One
/// statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_genres(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<FilmGenre>, Error> {
    statement(
        "SELECT l.film_work_id, l.genre_id, g.name::text AS name
         FROM content.genre_film_work l JOIN content.genre g ON g.id = l.genre_id
         WHERE l.film_work_id = ANY ($1) AND g.name IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map_err(Error::query("load the genres of films"))
}
