//! The films, with the people and genres that their documents show.

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
pub(super) const COLUMNS: &[(&str, Expected)] =
    &[("title", Expected::Text), ("description", Expected::Text), ("rating", Expected::Number)];

const SOURCE: Source = Source {
    kind: Kind::Movies,
    texts: &["title", "description"],
    columns: "title::text AS title, description::text AS description, rating::text AS rating",
};

/// A film, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Film {
    /// The row of `film_work`.
    pub film_work: FilmWork,
    /// Who took part, with the roles that a document shows. In no order; a link that is there twice comes
    /// twice. Persons without a name are left out.
    pub credits: Vec<Credit>,
    /// The genres. In no order; a link that is there twice comes twice. Genres without a name are left out.
    pub genres: Vec<FilmGenre>,
}

/// A row of `film_work`, as far as the document needs it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct FilmWork {
    /// The key and the version.
    #[diesel(embed)]
    pub as_read: AsRead,
    /// The title.
    #[diesel(sql_type = Nullable<Text>)]
    pub title: Option<String>,
    /// The description.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// As PostgreSQL writes it: the users' column may be of any numeric type, and hold a NaN.
    #[diesel(sql_type = Nullable<Text>)]
    pub rating: Option<String>,
}

/// A person in a film.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Credit {
    #[diesel(sql_type = SqlUuid)]
    film_work_id: Uuid,
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
    #[diesel(sql_type = SqlUuid)]
    film_work_id: Uuid,
    /// The genre.
    #[diesel(sql_type = SqlUuid)]
    pub genre_id: Uuid,
    /// The genre's name.
    #[diesel(sql_type = Text)]
    pub name: String,
}

/// Loads a page of films. Three statements, of which the first one reads the rows.
///
/// # Errors
///
/// Returns an error if a statement fails.
pub fn load_films(
    conn: &mut Connection,
    selection: &Selection,
    limits: PageLimits,
) -> Result<Vec<Film>, Error> {
    let rows: Vec<FilmWork> = load_page(conn, SOURCE, selection, limits)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let places: HashMap<Uuid, usize> =
        rows.iter().enumerate().map(|(place, film_work)| (film_work.as_read.id, place)).collect();
    let ids: Vec<Uuid> = rows.iter().map(|film_work| film_work.as_read.id).collect();
    let with_nothing = |film_work| Film { film_work, credits: Vec::new(), genres: Vec::new() };
    let mut films: Vec<Film> = rows.into_iter().map(with_nothing).collect();
    for credit in load_credits(conn, &ids)? {
        films[places[&credit.film_work_id]].credits.push(credit);
    }
    for genre in load_genres(conn, &ids)? {
        films[places[&genre.film_work_id]].genres.push(genre);
    }
    Ok(films)
}

fn load_credits(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<Credit>, Error> {
    // The links by person, so that persons are looked up in the order of their database index: a sixth
    // less to do. OFFSET 0 keeps the order below the join.
    statement(
        "SELECT l.film_work_id, l.person_id, p.full_name::text AS full_name, l.role
         FROM (
            SELECT film_work_id, person_id, role::text AS role FROM content.person_film_work
            WHERE film_work_id = ANY ($1) AND role::text IN ('actor', 'writer', 'director')
            ORDER BY person_id OFFSET 0
         ) AS l
         JOIN content.person p ON p.id = l.person_id
         WHERE p.full_name IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map_err(Error::query("load the people of films"))
}

fn load_genres(conn: &mut Connection, ids: &[Uuid]) -> Result<Vec<FilmGenre>, Error> {
    statement(
        "SELECT l.film_work_id, l.genre_id, g.name::text AS name
         FROM content.genre_film_work l JOIN content.genre g ON g.id = l.genre_id
         WHERE l.film_work_id = ANY ($1) AND g.name IS NOT NULL",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .load(conn)
    .map_err(Error::query("load the genres of films"))
}

#[cfg(test)]
impl Film {
    /// A film of these persons (id, name, role) and genres (id, name).
    pub(crate) fn of(credits: &[(u128, &str, &str)], genres: &[(u128, &str)]) -> Self {
        let as_read = AsRead::nil();
        let film_work_id = as_read.id;
        Self {
            film_work: FilmWork {
                as_read,
                title: Some("Brazil".to_owned()),
                description: None,
                rating: None,
            },
            credits: credits
                .iter()
                .map(|(person, name, role)| Credit {
                    film_work_id,
                    person_id: Uuid::from_u128(*person),
                    full_name: (*name).to_owned(),
                    role: (*role).to_owned(),
                })
                .collect(),
            genres: genres
                .iter()
                .map(|(genre, name)| FilmGenre {
                    film_work_id,
                    genre_id: Uuid::from_u128(*genre),
                    name: (*name).to_owned(),
                })
                .collect(),
        }
    }
}
