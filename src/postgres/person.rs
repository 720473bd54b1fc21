//! The persons, with their roles in films.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{Array, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::catalogue::Expected;
use super::pending::{PageLimits, Selection, Source, load_page};
use super::stamp::AsRead;
use super::statement::statement;
use super::{Connection, Error};
use crate::kind::Kind;

/// The columns that the document needs, beside those that every kind has.
pub(super) const COLUMNS: &[(&str, Expected)] = &[("full_name", Expected::Text)];

const SOURCE: Source =
    Source { kind: Kind::Persons, texts: &["full_name"], columns: "full_name::text AS full_name" };

/// A person, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The row of `person`.
    pub person: PersonRow,
    /// The links to films that are there, in no order.
    pub roles: Vec<RoleInFilm>,
}

/// A row of `person`, as far as the document needs it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct PersonRow {
    /// The key and the version.
    #[diesel(embed)]
    pub as_read: AsRead,
    /// The name.
    #[diesel(sql_type = Nullable<Text>)]
    pub full_name: Option<String>,
}

/// A link to a film.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct RoleInFilm {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) person_id: Uuid,
    /// The film.
    #[diesel(sql_type = SqlUuid)]
    pub film_work_id: Uuid,
    /// What the person did in it.
    #[diesel(sql_type = Nullable<Text>)]
    pub role: Option<String>,
}

/// Loads a page of persons. Two statements, of which the first one reads the rows.
///
/// # Errors
///
/// Returns an error if a statement fails.
pub fn load_persons(
    conn: &mut Connection,
    selection: &Selection,
    limits: PageLimits,
) -> Result<Vec<Person>, Error> {
    let rows: Vec<PersonRow> = load_page(conn, SOURCE, selection, limits)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let places: HashMap<Uuid, usize> =
        rows.iter().enumerate().map(|(place, person)| (person.as_read.id, place)).collect();
    let ids: Vec<Uuid> = rows.iter().map(|person| person.as_read.id).collect();
    let mut persons: Vec<Person> =
        rows.into_iter().map(|person| Person { person, roles: Vec::new() }).collect();
    for role in load_roles(conn, &ids)? {
        persons[places[&role.person_id]].roles.push(role);
    }
    Ok(persons)
}

fn load_roles(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<RoleInFilm>, Error> {
    // Films in the order of their database index, as for the people of films.
    statement(
        "SELECT l.person_id, l.film_work_id, l.role
         FROM (
            SELECT person_id, film_work_id, role::text AS role FROM content.person_film_work
            WHERE person_id = ANY ($1) ORDER BY film_work_id OFFSET 0
         ) AS l
         JOIN content.film_work f ON f.id = l.film_work_id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map_err(Error::query("load the films of persons"))
}
