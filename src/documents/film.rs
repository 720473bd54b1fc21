//! The document of a film, in the index `movies`.

use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

use crate::postgres::film_work::{Credit, FilmGenre, FilmWork};

/// A film as people search for it. The shape is that of `elasticsearch/movies.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmDocument {
    id: Uuid,
    imdb_rating: Option<f64>,
    genres: Vec<String>,
    title: Option<String>,
    description: Option<String>,
    directors_names: Vec<String>,
    actors_names: Vec<String>,
    writers_names: Vec<String>,
    directors: Vec<PersonInFilm>,
    actors: Vec<PersonInFilm>,
    writers: Vec<PersonInFilm>,
}

/// A person within the document of a film. The order is by name, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PersonInFilm {
    // The name first: the derived order goes by it.
    name: String,
    id: Uuid,
}

/// Everything that belongs to one film but its own row.
#[derive(Debug, Default)]
pub struct Relations {
    credits: Vec<Credit>,
    genres: Vec<FilmGenre>,
}

/// Sorts the related rows of a page by the film that they belong to.
#[must_use]
pub fn group_relations(credits: Vec<Credit>, genres: Vec<FilmGenre>) -> HashMap<Uuid, Relations> {
    let mut relations: HashMap<Uuid, Relations> = HashMap::new();
    for credit in credits {
        relations.entry(credit.film_work_id).or_default().credits.push(credit);
    }
    for genre in genres {
        relations.entry(genre.film_work_id).or_default().genres.push(genre);
    }
    relations
}

impl FilmDocument {
    /// Builds the document of a film.
    ///
    /// Arrays are ordered by name, then id, by the code points of the name. Each person is once in
    /// each role and each genre once, however often it is linked. A rating that is no finite number
    /// is absent.
    #[must_use]
    pub fn new(film: FilmWork, relations: Relations) -> Self {
        let mut people: HashMap<&str, Vec<PersonInFilm>> = HashMap::new();
        for credit in &relations.credits {
            let person = PersonInFilm { name: credit.full_name.clone(), id: credit.person_id };
            people.entry(&credit.role).or_default().push(person);
        }
        let mut in_role = |role: &str| {
            let mut people = people.remove(role).unwrap_or_default();
            people.sort_unstable();
            people.dedup();
            people
        };
        let (directors, actors, writers) =
            (in_role("director"), in_role("actor"), in_role("writer"));
        Self {
            id: film.id,
            imdb_rating: film
                .rating
                .and_then(|rating| rating.parse().ok())
                .filter(|r: &f64| r.is_finite()),
            genres: genre_names(relations.genres),
            title: film.title,
            description: film.description,
            directors_names: names(&directors),
            actors_names: names(&actors),
            writers_names: names(&writers),
            directors,
            actors,
            writers,
        }
    }
}

fn names(people: &[PersonInFilm]) -> Vec<String> {
    people.iter().map(|person| person.name.clone()).collect()
}

fn genre_names(mut genres: Vec<FilmGenre>) -> Vec<String> {
    genres.sort_unstable_by(|a, b| (&a.name, a.genre_id).cmp(&(&b.name, b.genre_id)));
    genres.dedup_by_key(|genre| genre.genre_id);
    genres.into_iter().map(|genre| genre.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::postgres::film_work::Position;

    fn film(rating: Option<&str>) -> FilmWork {
        FilmWork {
            id: Uuid::nil(),
            title: Some("Brazil".to_owned()),
            description: None,
            rating: rating.map(str::to_owned),
            touched_at: Position::START.touched_at,
            modified: None,
        }
    }

    fn credit(person: u128, full_name: &str, role: &str) -> Credit {
        Credit {
            film_work_id: Uuid::nil(),
            person_id: Uuid::from_u128(person),
            full_name: full_name.to_owned(),
            role: role.to_owned(),
        }
    }

    #[test]
    fn a_film_without_people_and_genres_has_empty_arrays() {
        let document = FilmDocument::new(film(None), Relations::default());
        assert_eq!(
            serde_json::to_value(document).unwrap(),
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
        let credits = vec![
            credit(2, "Jonathan Pryce", "actor"),
            credit(3, "Ian Holm", "actor"),
            credit(1, "Jonathan Pryce", "actor"),
            credit(2, "Jonathan Pryce", "actor"),
            credit(2, "Jonathan Pryce", "writer"),
            credit(4, "Somebody", "producer"),
        ];
        let relations = group_relations(credits, Vec::new()).remove(&Uuid::nil()).unwrap();
        let document = FilmDocument::new(film(None), relations);
        assert_eq!(document.actors_names, ["Ian Holm", "Jonathan Pryce", "Jonathan Pryce"]);
        let ids: Vec<u128> = document.actors.iter().map(|person| person.id.as_u128()).collect();
        assert_eq!(ids, [3, 1, 2]);
        assert_eq!(document.writers_names, ["Jonathan Pryce"]);
        assert!(document.directors.is_empty());
    }

    #[test]
    fn two_genres_of_one_name_are_two_and_one_linked_twice_is_one() {
        let genre = |id, name: &str| FilmGenre {
            film_work_id: Uuid::nil(),
            genre_id: Uuid::from_u128(id),
            name: name.to_owned(),
        };
        let genres =
            vec![genre(1, "Sci-Fi"), genre(2, "Comedy"), genre(1, "Sci-Fi"), genre(3, "Comedy")];
        assert_eq!(genre_names(genres), ["Comedy", "Comedy", "Sci-Fi"]);
    }

    #[test]
    fn a_rating_that_is_no_finite_number_is_absent() {
        let rating = |text| FilmDocument::new(film(Some(text)), Relations::default()).imdb_rating;
        assert_eq!(rating("8.1"), Some(8.1));
        assert_eq!(rating("NaN"), None);
        assert_eq!(rating("Infinity"), None);
        assert_eq!(rating("1e999"), None);
    }

    const ROLES: [&str; 4] = ["director", "actor", "writer", "producer"];

    /// Links of one to three films with a few people of few names, in any order, many of them twice.
    fn credits() -> impl Strategy<Value = Vec<Credit>> {
        let link = (0..3_u128, 0..6_usize, prop::sample::select(ROLES.to_vec()));
        let credit = link.prop_map(|(film, person, role)| {
            // The higher ids come first by name, and two people have the same one.
            let name = ["Ян", "Jon", "Jon", "Ian", "Al", ""][person];
            Credit { film_work_id: Uuid::from_u128(film), ..credit(person as u128, name, role) }
        });
        prop::collection::vec(credit, 0..24)
    }

    fn genres() -> impl Strategy<Value = Vec<FilmGenre>> {
        let link = (0..3_u128, 0..4_usize).prop_map(|(film, genre)| FilmGenre {
            film_work_id: Uuid::from_u128(film),
            genre_id: Uuid::from_u128(genre as u128),
            name: ["Drama", "Comedy", "Comedy", ""][genre].to_owned(),
        });
        prop::collection::vec(link, 0..12)
    }

    fn document(credits: Vec<Credit>, genres: Vec<FilmGenre>) -> FilmDocument {
        let relations = group_relations(credits, genres).remove(&Uuid::nil()).unwrap_or_default();
        FilmDocument::new(film(None), relations)
    }

    /// Who has a role in the film, by name and then id.
    fn expected<'a>(credits: &'a [Credit], role: &str) -> BTreeSet<(&'a str, Uuid)> {
        let ours = credits.iter().filter(|c| c.film_work_id.is_nil() && c.role == role);
        ours.map(|c| (&*c.full_name, c.person_id)).collect()
    }

    proptest! {
        #[test]
        fn every_credit_of_a_known_role_is_there_once_and_in_order(credits in credits()) {
            let document = document(credits.clone(), Vec::new());
            for (role, people, names) in [
                ("director", &document.directors, &document.directors_names),
                ("actor", &document.actors, &document.actors_names),
                ("writer", &document.writers, &document.writers_names),
            ] {
                let expected: Vec<(&str, Uuid)> = expected(&credits, role).into_iter().collect();
                let found: Vec<(&str, Uuid)> = people.iter().map(|p| (&*p.name, p.id)).collect();
                prop_assert_eq!(&found, &expected);
                let expected: Vec<&str> = expected.into_iter().map(|(name, _)| name).collect();
                prop_assert_eq!(names, &expected);
            }
        }

        #[test]
        fn every_genre_is_there_once_and_in_order(genres in genres()) {
            let ours = genres.iter().filter(|genre| genre.film_work_id.is_nil());
            let expected: BTreeSet<(&str, Uuid)> =
                ours.map(|genre| (&*genre.name, genre.genre_id)).collect();
            let expected: Vec<&str> = expected.into_iter().map(|(name, _)| name).collect();
            prop_assert_eq!(document(Vec::new(), genres.clone()).genres, expected);
        }

        #[test]
        fn the_order_of_the_rows_changes_nothing(
            (credits, shuffled) in credits().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
            (genres, mixed) in genres().prop_flat_map(|g| (Just(g.clone()), Just(g).prop_shuffle())),
        ) {
            prop_assert_eq!(document(credits, genres), document(shuffled, mixed));
        }
    }
}
