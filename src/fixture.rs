//! The format of a fixture: what Django's `dumpdata` writes of a film catalogue.
//!
//! Bytes in, rows out, one at a time and in the order of the file; no I/O of its own, and no
//! database. Catalogues differ in how they spell the same thing. The rest of the program sees the
//! names of the catalogue's tables and columns alone.

mod error;
mod fields;
mod model;
mod reader;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Serialize, Serializer};
use uuid::Uuid;

pub use self::error::FixtureError;
pub use self::reader::read;

/// A row of the catalogue, and where in a fixture it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its place in the file. Counted from 1, objects of other models included.
    pub number: u64,
    /// The model, as the file spells it.
    pub model: String,
    /// The primary key.
    pub id: Uuid,
    /// The other columns.
    pub row: Row,
}

/// A row of one of the catalogue's tables, without its primary key.
///
/// Serialized, its names are those of the columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of `film_work`.
    FilmWork(FilmWork),
    /// Of `genre`.
    Genre(Genre),
    /// Of `person`.
    Person(Person),
    /// Of `genre_film_work`.
    GenreFilmWork(GenreFilmWork),
    /// Of `person_film_work`.
    PersonFilmWork(PersonFilmWork),
}

/// A film.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmWork {
    /// May be empty.
    pub title: String,
    /// What it is about.
    pub description: Option<String>,
    /// The day of its release.
    #[serde(serialize_with = "as_text")]
    pub creation_date: Option<Date>,
    /// Finite.
    pub rating: Option<f64>,
    /// `movie` where the fixture does not say.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the row was made, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
    /// When it last changed, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub modified: Option<Timestamp>,
}

/// A genre.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Genre {
    /// May be empty.
    pub name: String,
    /// What belongs to it.
    pub description: Option<String>,
    /// When the row was made, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
    /// When it last changed, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub modified: Option<Timestamp>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Person {
    /// May be empty.
    pub full_name: String,
    /// When the row was made, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
    /// When it last changed, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub modified: Option<Timestamp>,
}

/// A link: the film is of the genre.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenreFilmWork {
    /// One end.
    pub genre_id: Uuid,
    /// The other end.
    pub film_work_id: Uuid,
    /// When the row was made, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
}

/// A link: the person had a part in the film.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PersonFilmWork {
    /// One end.
    pub person_id: Uuid,
    /// The other end.
    pub film_work_id: Uuid,
    /// `actor`, `director`, `writer`, or what else the catalogue knows.
    pub role: String,
    /// When the row was made, if the fixture says so.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
}

/// Writes dates and times in the one spelling that PostgreSQL reads the same under any setting.
#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
fn as_text<S: Serializer>(value: &Option<impl ToString>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(serializer)
}
