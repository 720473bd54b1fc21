//! The document of a film, in the index `movies`.

use serde::Serialize;
use uuid::Uuid;

use crate::postgres::film_work::{Film, FilmWork};

/// A film as people search for it. The shape is that of `elasticsearch/movies.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmDocument<'a> {
    id: Uuid,
    imdb_rating: Option<f64>,
    genres: Vec<&'a str>,
    title: Option<&'a str>,
    description: Option<&'a str>,
    directors_names: Vec<&'a str>,
    actors_names: Vec<&'a str>,
    writers_names: Vec<&'a str>,
    directors: Vec<PersonInFilm<'a>>,
    actors: Vec<PersonInFilm<'a>>,
    writers: Vec<PersonInFilm<'a>>,
}

/// A person within the document of a film. The order is by name, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PersonInFilm<'a> {
    // The name first: the derived order goes by it.
    name: &'a str,
    id: Uuid,
}

impl<'a> From<&'a Film> for FilmDocument<'a> {
    /// Builds the document of a film.
    ///
    /// Arrays are ordered by name, then id, by the code points of the name. Each person is once in
    /// each role and each genre once, however often it is linked. A rating that is no finite number
    /// is absent.
    fn from(film: &'a Film) -> Self {
        let FilmWork { as_read, title, description, rating } = &film.film_work;
        let rating = rating.as_ref().and_then(|rating| rating.parse().ok());
        let [directors, actors, writers] =
            ["director", "actor", "writer"].map(|role| people_in_role(film, role));
        Self {
            id: as_read.id,
            imdb_rating: rating.filter(|rating: &f64| rating.is_finite()),
            genres: genre_names(film),
            title: title.as_deref(),
            description: description.as_deref(),
            directors_names: names(&directors),
            actors_names: names(&actors),
            writers_names: names(&writers),
            directors,
            actors,
            writers,
        }
    }
}

fn people_in_role<'a>(film: &'a Film, role: &str) -> Vec<PersonInFilm<'a>> {
    let mut people: Vec<PersonInFilm> = film
        .credits
        .iter()
        .filter(|credit| credit.role == role)
        .map(|credit| PersonInFilm { name: &credit.full_name, id: credit.person_id })
        .collect();
    people.sort_unstable();
    people.dedup();
    people
}

fn names<'a>(people: &[PersonInFilm<'a>]) -> Vec<&'a str> {
    people.iter().map(|person| person.name).collect()
}

fn genre_names(film: &Film) -> Vec<&str> {
    let mut genres: Vec<(&str, Uuid)> =
        film.genres.iter().map(|genre| (&*genre.name, genre.genre_id)).collect();
    genres.sort_unstable();
    genres.dedup();
    genres.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Person, name and role.
    type Credit = (u128, &'static str, &'static str);
    /// Genre and name.
    type Genre = (u128, &'static str);

    #[test]
    fn a_film_without_people_and_genres_has_empty_arrays() {
        assert_eq!(
            serde_json::to_value(FilmDocument::from(&Film::of(&[], &[]))).unwrap(),
            json!({
                "id": "00000000-0000-0000-0000-000000000000", "imdb_rating": null, "genres": [],
                "title": "Brazil", "description": null,
                "directors_names": [], "actors_names": [], "writers_names": [],
                "directors": [], "actors": [], "writers": []
            })
        );
    }

    #[test]
    fn people_are_ordered_by_name_then_id_and_are_once_in_each_role() {
        let film = Film::of(
            &[
                (2, "Jonathan Pryce", "actor"),
                (3, "Ian Holm", "actor"),
                (1, "Jonathan Pryce", "actor"),
                (2, "Jonathan Pryce", "actor"),
                (2, "Jonathan Pryce", "writer"),
                (4, "Somebody", "producer"),
            ],
            &[],
        );
        let document = FilmDocument::from(&film);
        assert_eq!(document.actors_names, ["Ian Holm", "Jonathan Pryce", "Jonathan Pryce"]);
        let ids: Vec<u128> = document.actors.iter().map(|person| person.id.as_u128()).collect();
        assert_eq!(ids, [3, 1, 2]);
        assert_eq!(document.writers_names, ["Jonathan Pryce"]);
        assert!(document.directors.is_empty());
    }

    #[test]
    fn two_genres_of_one_name_are_two_and_one_linked_twice_is_one() {
        let film = Film::of(&[], &[(1, "Sci-Fi"), (2, "Comedy"), (1, "Sci-Fi"), (3, "Comedy")]);
        assert_eq!(FilmDocument::from(&film).genres, ["Comedy", "Comedy", "Sci-Fi"]);
    }

    #[test]
    fn a_rating_that_is_no_finite_number_is_absent() {
        let rating = |text: &str| {
            let mut film = Film::of(&[], &[]);
            film.film_work.rating = Some(text.to_owned());
            FilmDocument::from(&film).imdb_rating
        };
        assert_eq!(rating("8.1"), Some(8.1));
        assert_eq!(rating("NaN"), None);
        assert_eq!(rating("Infinity"), None);
        assert_eq!(rating("1e999"), None);
    }

    const ROLES: [&str; 4] = ["director", "actor", "writer", "producer"];

    /// Links with a few people of few names, in any order, many of them twice.
    fn credits() -> impl Strategy<Value = Vec<Credit>> {
        let link = (0..6_usize, prop::sample::select(ROLES.to_vec()));
        // The higher ids come first by name, and two people have the same one.
        let name = |person: usize| ["Ян", "Jon", "Jon", "Ian", "Al", ""][person];
        let credit = link.prop_map(move |(person, role)| (person as u128, name(person), role));
        prop::collection::vec(credit, 0..24)
    }

    fn genres() -> impl Strategy<Value = Vec<Genre>> {
        let name = |genre: usize| ["Drama", "Comedy", "Comedy", ""][genre];
        prop::collection::vec((0..4_usize).prop_map(move |g| (g as u128, name(g))), 0..12)
    }

    proptest! {
        #[test]
        fn every_credit_of_a_known_role_is_there_once_and_in_order(credits in credits()) {
            let film = Film::of(&credits, &[]);
            let document = FilmDocument::from(&film);
            for (role, people, names) in [
                ("director", &document.directors, &document.directors_names),
                ("actor", &document.actors, &document.actors_names),
                ("writer", &document.writers, &document.writers_names),
            ] {
                let expected: BTreeSet<(&str, u128)> =
                    credits.iter().filter(|c| c.2 == role).map(|c| (c.1, c.0)).collect();
                let expected: Vec<(&str, u128)> = expected.into_iter().collect();
                let found: Vec<(&str, u128)> =
                    people.iter().map(|p| (p.name, p.id.as_u128())).collect();
                prop_assert_eq!(&found, &expected);
                let expected: Vec<&str> = expected.into_iter().map(|(name, _)| name).collect();
                prop_assert_eq!(names, &expected);
            }
        }

        #[test]
        fn every_genre_is_there_once_and_in_order(genres in genres()) {
            let expected: BTreeSet<(&str, u128)> =
                genres.iter().map(|(id, name)| (*name, *id)).collect();
            let expected: Vec<&str> = expected.into_iter().map(|(name, _)| name).collect();
            let film = Film::of(&[], &genres);
            prop_assert_eq!(FilmDocument::from(&film).genres, expected);
        }

        #[test]
        fn the_order_of_the_rows_changes_nothing(
            (credits, shuffled) in credits().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
            (genres, mixed) in genres().prop_flat_map(|g| (Just(g.clone()), Just(g).prop_shuffle())),
        ) {
            let (one, other) = (Film::of(&credits, &genres), Film::of(&shuffled, &mixed));
            prop_assert_eq!(FilmDocument::from(&one), FilmDocument::from(&other));
        }
    }
}
