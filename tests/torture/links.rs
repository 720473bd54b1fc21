//! Random statements about links.

use fastrand::Rng;

use crate::changes::{FILMS, GENRES, PERSONS, any};

fn role(rng: &mut Rng) -> &'static str {
    rng.choice(["actor", "writer", "director"]).expect("some roles")
}

/// A link of any film.
pub fn link(rng: &mut Rng) -> String {
    let id = any(rng, "film", FILMS);
    link_film(rng, &id)
}

/// A link of this film.
pub fn link_film(rng: &mut Rng, film: &str) -> String {
    if rng.bool() {
        let genre = any(rng, "genre", GENRES);
        return format!(
            "INSERT INTO content.genre_film_work (id, genre_id, film_work_id) SELECT gen_random_uuid(), g.id, f.id FROM content.genre g, content.film_work f WHERE g.id = {genre} AND f.id = {film} ON CONFLICT DO NOTHING"
        );
    }
    let (person, role) = (any(rng, "person", PERSONS), role(rng));
    format!(
        "INSERT INTO content.person_film_work (id, person_id, film_work_id, role) SELECT gen_random_uuid(), p.id, f.id, '{role}' FROM content.person p, content.film_work f WHERE p.id = {person} AND f.id = {film} ON CONFLICT DO NOTHING"
    )
}

/// One of the two tables of links.
pub fn link_table(rng: &mut Rng) -> &'static str {
    rng.choice(["content.genre_film_work", "content.person_film_work"]).expect("some tables")
}

/// One link of a film, whichever.
fn one_link(table: &str, film: &str) -> String {
    format!("WHERE id = (SELECT id FROM {table} WHERE film_work_id = {film} LIMIT 1)")
}

/// Deletes a link.
pub fn unlink(rng: &mut Rng) -> String {
    let (table, film) = (link_table(rng), any(rng, "film", FILMS));
    format!("DELETE FROM {table} {}", one_link(table, &film))
}

/// Lets a link go from elsewhere, or to elsewhere.
pub fn repoint(rng: &mut Rng) -> Vec<String> {
    let (table, film) = (link_table(rng), any(rng, "film", FILMS));
    let to = match (rng.bool(), table) {
        (true, _) => format!("film_work_id = {}", any(rng, "film", FILMS)),
        (false, "content.genre_film_work") => format!("genre_id = {}", any(rng, "genre", GENRES)),
        (false, _) => format!("person_id = {}", any(rng, "person", PERSONS)),
    };
    vec![format!("UPDATE {table} SET {to} {}", one_link(table, &film))]
}

/// Changes what a person was in a film.
pub fn change_role(rng: &mut Rng) -> Vec<String> {
    let (role, film) = (role(rng), any(rng, "film", FILMS));
    let one = one_link("content.person_film_work", &film);
    vec![format!("UPDATE content.person_film_work SET role = '{role}' {one}")]
}

/// Two changes that may undo each other.
pub fn link_and_unlink(rng: &mut Rng) -> Vec<String> {
    let id = any(rng, "film", FILMS);
    let table = link_table(rng);
    vec![link_film(rng, &id), format!("DELETE FROM {table} {}", one_link(table, &id))]
}
