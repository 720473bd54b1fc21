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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::LazyLock;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::{Value, json};

    use super::*;

    /// Reads what may be no fixture. Must not panic; if it has an end, every row has its place.
    fn try_to_read(bytes: &[u8]) -> Result<u64, FixtureError> {
        let mut last = 0;
        read("any.json", bytes, |object| {
            assert!(object.number > last, "{} after {last}", object.number);
            last = object.number;
            Ok(())
        })
    }

    /// The first two objects of each model in the fixture that comes with the program.
    static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let whole: Vec<Value> =
            serde_json::from_str(include_str!("../fixtures/movies.json")).expect("JSON");
        let models = ["filmwork", "genre", "person", "genrefilmwork", "personfilmwork"];
        let of = |model: &str| {
            let model = format!("movies.{model}");
            let whole = whole.iter();
            whole.filter(move |object| object["model"] == *model).take(2).cloned()
        };
        models.into_iter().flat_map(of).collect()
    });

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    /// Replaces, in each of the places, up to three bytes by some others.
    fn mutate(mut bytes: Vec<u8>, mutations: &[(Index, Vec<u8>, usize)]) -> Vec<u8> {
        for (at, instead, length) in mutations {
            let start = at.index(bytes.len() + 1);
            let end = bytes.len().min(start + length);
            bytes.splice(start..end, instead.iter().copied());
        }
        bytes
    }

    fn mutations() -> impl Strategy<Value = Vec<(Index, Vec<u8>, usize)>> {
        let structural = prop::sample::select(b"[]{}\",:\\-+.eE09TZu ".to_vec());
        let byte = prop_oneof![any::<u8>(), structural];
        vec((any::<Index>(), vec(byte, 0..4), 0..4_usize), 1..6)
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            // Nearly a time, a date, a UUID, a number.
            "[-+0-9TtZz:. ]{0,30}|[0-9a-fA-F-]{30,40}|[-+0-9.eEinfa]{1,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec(("[a-z_]{0,12}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    #[test]
    fn the_fixture_of_the_program_is_read() {
        let bytes = json!(*OBJECTS).to_string();
        assert!(matches!(try_to_read(bytes.as_bytes()), Ok(0)));
        assert!(matches!(try_to_read(&pack(bytes.as_bytes())), Ok(0)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = try_to_read(&bytes);
            let _ = try_to_read(&[b"[{", &*bytes].concat());
            let _ = try_to_read(&[&[0x1F, 0x8B, 8], &*bytes].concat());
            let _ = try_to_read(&pack(&bytes));
        }

        #[test]
        fn no_slip_of_a_pen_makes_it_panic(mutations in mutations()) {
            let bytes = json!(*OBJECTS).to_string().into_bytes();
            let _ = try_to_read(&mutate(bytes.clone(), &mutations));
            let _ = try_to_read(&mutate(pack(&bytes), &mutations));
        }

        #[test]
        fn no_value_of_a_field_makes_it_panic(
            object in any::<Index>(), field in any::<Index>(), value in any_json()
        ) {
            let mut object = object.get(&OBJECTS).clone();
            let Some(fields) = object["fields"].as_object_mut() else { unreachable!() };
            let name = field.index(fields.len());
            let Some(place) = fields.values_mut().nth(name) else { unreachable!() };
            *place = value.clone();
            let _ = try_to_read(json!([object]).to_string().as_bytes());

            let name = ["model", "pk", "fields"][name % 3];
            object[name] = value;
            let _ = try_to_read(json!([object]).to_string().as_bytes());
        }
    }
}
