//! The document of a person, in the index `persons`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uuid::Uuid;

use crate::postgres::person::{Person, RoleInFilm};

/// A person as people search for it. The shape is that of `elasticsearch/persons.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PersonDocument<'a> {
    id: Uuid,
    full_name: Option<&'a str>,
    films: Vec<FilmOfPerson<'a>>,
}

/// What a person did in a film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FilmOfPerson<'a> {
    id: Uuid,
    roles: BTreeSet<&'a str>,
}

impl<'a> From<&'a Person> for PersonDocument<'a> {
    /// Builds the document of a person.
    ///
    /// Films are ordered by id, the roles in each by name. Each film is there once and each role in it,
    /// however often it is linked.
    fn from(person: &'a Person) -> Self {
        let mut films: BTreeMap<Uuid, BTreeSet<&str>> = BTreeMap::new();
        for RoleInFilm { film_work_id, role, .. } in &person.roles {
            films.entry(*film_work_id).or_default().extend(role.as_deref());
        }
        Self {
            id: person.person.as_read.id,
            full_name: person.person.full_name.as_deref(),
            films: films.into_iter().map(|(id, roles)| FilmOfPerson { id, roles }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::postgres::person::PersonRow;
    use crate::postgres::stamp::AsRead;

    fn person(links: &[(u128, Option<&str>)]) -> Person {
        let as_read = AsRead::nil();
        let role_in = |(film, role): &(u128, Option<&str>)| RoleInFilm {
            person_id: as_read.id,
            film_work_id: Uuid::from_u128(*film),
            role: role.map(str::to_owned),
        };
        Person {
            person: PersonRow { as_read, full_name: Some("Terry Gilliam".to_owned()) },
            roles: links.iter().map(role_in).collect(),
        }
    }

    #[test]
    fn films_are_ordered_by_id_and_roles_by_name_and_each_is_there_once() {
        let links = [
            (2, Some("writer")),
            (1, Some("actor")),
            (2, Some("director")),
            (2, Some("writer")),
            (3, None),
        ];
        assert_eq!(
            serde_json::to_value(PersonDocument::from(&person(&links))).unwrap(),
            json!({
                "id": "00000000-0000-0000-0000-000000000000",
                "full_name": "Terry Gilliam",
                "films": [
                    { "id": Uuid::from_u128(1), "roles": ["actor"] },
                    { "id": Uuid::from_u128(2), "roles": ["director", "writer"] },
                    { "id": Uuid::from_u128(3), "roles": [] },
                ],
            })
        );
    }

    #[test]
    fn a_person_without_films_has_an_empty_array() {
        let document = serde_json::to_value(PersonDocument::from(&person(&[]))).unwrap();
        assert_eq!(document["films"], json!([]));
    }

    proptest! {
        #[test]
        fn the_order_of_the_links_changes_nothing(
            (links, shuffled) in prop::collection::vec(
                (0..4_u128, prop::sample::select(vec![Some("actor"), Some("writer"), None])), 0..16,
            ).prop_flat_map(|links| (Just(links.clone()), Just(links).prop_shuffle()))
        ) {
            let (one, other) = (person(&links), person(&shuffled));
            prop_assert_eq!(PersonDocument::from(&one), PersonDocument::from(&other));
        }
    }
}
