//! Random statements about films.

use fastrand::Rng;
use postgres::Client;

use crate::changes::{FILMS, any, focus, id, word};
use crate::links::link_film;

pub const UPDATE: &str = "UPDATE content.film_work";
pub const DELETE: &str = "DELETE FROM content.film_work";
pub const FUTURE: &str = ", modified = now() + interval '1 hour'";

pub fn film(rng: &mut Rng) -> String {
    format!("WHERE id = {}", any(rng, "film", FILMS))
}

pub fn film_insert(rng: &mut Rng) -> Vec<String> {
    let id = any(rng, "film", FILMS);
    let mut sql = vec![insert_film(rng, &id)];
    sql.extend((0..rng.u32(..4)).map(|_| link_film(rng, &id)));
    sql
}

fn insert_film(rng: &mut Rng, id: &str) -> String {
    format!(
        "INSERT INTO content.film_work (id, title, description, rating) VALUES ({id}, '{}', '{}', {}) ON CONFLICT DO NOTHING",
        word(rng),
        word(rng),
        rating(rng)
    )
}

/// A film is deleted or inserted that others are hardly at work on.
pub fn film_anywhere(rng: &mut Rng) -> String {
    let id = id("film", rng.u32(..FILMS));
    if rng.bool() { format!("{DELETE} WHERE id = {id}") } else { insert_film(rng, &id) }
}

fn rating(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => "NULL".to_owned(),
        1 => "'NaN'".to_owned(),
        _ => format!("{}.{}", rng.u8(..10), rng.u8(..10)),
    }
}

pub fn film_edit(rng: &mut Rng, modified: &str) -> String {
    format!("{UPDATE} SET title = '{}'{modified} {}", word(rng), film(rng))
}

/// As by Django's `select_for_update`.
pub fn film_hold(rng: &mut Rng) -> Vec<String> {
    vec![
        format!("SELECT FROM content.film_work {} FOR UPDATE", film(rng)),
        format!("SELECT pg_sleep({})", rng.choice(["0.05", "0.2", "0.8"]).expect("some times")),
    ]
}

/// As if it had been done while the clock was ahead: for everybody after, the clock has stepped back.
pub fn film_edit_ahead(rng: &mut Rng) -> Vec<String> {
    let ahead = rng.choice(["1 second", "1 minute", "1 hour", "1 year"]).expect("some times");
    let film = film(rng);
    edit_ahead(rng, &film, ahead)
}

fn edit_ahead(rng: &mut Rng, films: &str, ahead: &str) -> Vec<String> {
    vec![
        format!("{UPDATE} SET title = '{}' {films}", word(rng)),
        "SELECT set_config('etl.syncing', 'on', true)".to_owned(),
        format!("{UPDATE} SET touched_at = touched_at + interval '{ahead}' {films}"),
        "SELECT set_config('etl.syncing', 'off', true)".to_owned(),
    ]
}

/// Those that everybody works on. Where they come back at once, their rows are older than their
/// deletion. A moment later they are not any more: whoever takes the time of sending for a version would
/// else never have the highest one.
pub fn films_delete_ahead(rng: &mut Rng) -> Vec<String> {
    let mut sql = edit_ahead(rng, &films(), "10 seconds");
    sql.push(films_delete());
    sql
}

/// Those that everybody works on.
pub fn films_delete() -> String {
    format!("{DELETE} {}", films())
}

fn films() -> String {
    format!("WHERE id IN ({})", focus().join(", "))
}

/// Those of the films that everybody works on which are not there.
pub fn films_insert(rng: &mut Rng) -> Vec<String> {
    focus().iter().map(|id| insert_film(rng, id)).collect()
}

pub fn film_rating(rng: &mut Rng) -> Vec<String> {
    vec![format!("{UPDATE} SET rating = {}, description = NULL {}", rating(rng), film(rng))]
}

pub fn film_reinsert(rng: &mut Rng) -> Vec<String> {
    let id = any(rng, "film", FILMS);
    let mut sql = vec![format!("{DELETE} WHERE id = {id}"), insert_film(rng, &id)];
    sql.extend((0..rng.u32(..3)).map(|_| link_film(rng, &id)));
    sql
}

pub fn film_new_id(rng: &mut Rng) -> Vec<String> {
    let (old, new) = (any(rng, "film", FILMS), any(rng, "film", FILMS));
    vec![
        format!("DELETE FROM content.genre_film_work WHERE film_work_id = {old}"),
        format!("DELETE FROM content.person_film_work WHERE film_work_id = {old}"),
        format!("{UPDATE} SET id = {new} WHERE id = {old}"),
    ]
}

/// Whether nothing is left to be done for films, given by their quoted ids.
pub fn are_settled(client: &mut Client, films: &[String]) -> bool {
    let ids = format!("ANY (ARRAY[{}]::uuid[])", films.join(", "));
    let is_left = format!(
        "SELECT FROM content.film_work WHERE id = {ids} AND indexed_at IS NULL
        UNION ALL SELECT FROM etl.outbox WHERE row_id = {ids} LIMIT 1"
    );
    client.query_opt(&is_left, &[]).is_ok_and(|row| row.is_none())
}
