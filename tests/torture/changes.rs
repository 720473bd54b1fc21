//! Random transactions: every way in which a document can change.

use std::sync::atomic::{AtomicU32, Ordering};

use fastrand::Rng;

use crate::films::{
    DELETE, FUTURE, UPDATE, film, film_edit, film_edit_ahead, film_hold, film_insert, film_new_id,
    film_rating, film_reinsert, films_delete, films_delete_ahead, films_insert,
};
use crate::links::{change_role, link, link_and_unlink, link_table, repoint, unlink};

/// What a writer does in one transaction.
pub struct Change {
    /// Its kind, for the count.
    pub name: &'static str,
    /// The statements.
    pub sql: Vec<String>,
}

pub const FILMS: u32 = 200;
pub const PERSONS: u32 = 30;
pub const GENRES: u32 = 8;

/// The first of the films that everybody works on.
static FOCUS: AtomicU32 = AtomicU32::new(0);
const FOCUS_FILMS: u32 = 6;

type Make = fn(&mut Rng) -> Vec<String>;

/// How often each kind comes, in relation to the others.
const KINDS: [(&str, u32, Make); 32] = [
    ("film inserted", 14, film_insert),
    ("film edited", 10, |rng| vec![film_edit(rng, ", modified = now()")]),
    ("film edited without modified", 10, |rng| vec![film_edit(rng, "")]),
    ("film edited, modified equal", 4, |rng| vec![film_edit(rng, ", modified = '2026-01-01'")]),
    ("film edited, modified past", 4, |rng| vec![film_edit(rng, ", modified = '1999-01-01'")]),
    ("film edited, modified future", 4, |rng| vec![film_edit(rng, FUTURE)]),
    ("film edited by a clock that was ahead", 3, film_edit_ahead),
    ("film rating edited", 5, film_rating),
    ("film held, and left as it is", 6, film_hold),
    ("film saved unchanged", 3, |rng| vec![format!("{} SET title = title {}", UPDATE, film(rng))]),
    ("film deleted", 9, |rng| vec![format!("{DELETE} {}", film(rng))]),
    ("films deleted", 3, |_| vec![films_delete()]),
    ("films deleted by a clock that was ahead", 3, films_delete_ahead),
    ("film deleted and inserted", 5, film_reinsert),
    ("films inserted again", 7, films_insert),
    ("film id changed", 3, film_new_id),
    ("film sent again by hand", 4, |rng| {
        vec![format!("{} SET indexed_at = NULL {}", UPDATE, film(rng))]
    }),
    ("person renamed", 5, |rng| vec![rename(rng, "person", "full_name", PERSONS)]),
    ("genre renamed", 2, |rng| vec![rename(rng, "genre", "name", GENRES)]),
    ("person inserted", 4, |rng| vec![insert_related(rng, "person", "full_name", PERSONS)]),
    ("genre inserted", 2, |rng| vec![insert_related(rng, "genre", "name", GENRES)]),
    ("person deleted", 2, |rng| vec![delete_related(rng, "person", PERSONS)]),
    ("genre deleted", 1, |rng| vec![delete_related(rng, "genre", GENRES)]),
    ("person replaced", 1, person_replace),
    ("link inserted", 16, |rng| vec![link(rng)]),
    ("link deleted", 6, |rng| vec![unlink(rng)]),
    ("link re-pointed", 5, repoint),
    ("role changed", 4, change_role),
    ("link inserted and deleted", 4, link_and_unlink),
    ("several at once", 5, several),
    ("bulk", 1, bulk),
    ("truncated", 1, truncate),
];

/// Draws a transaction.
pub fn draw(rng: &mut Rng) -> Change {
    if rng.u8(..25) == 0 {
        move_focus(rng);
    }
    let total: u32 = KINDS.iter().map(|(_, weight, _)| weight).sum();
    let mut left = rng.u32(..total);
    for (name, weight, make) in KINDS {
        if left < weight {
            // Much rarer than all others: little is left as it was after it.
            if (name == "truncated" && rng.u8(..12) > 0) || (name == "bulk" && rng.u8(..4) > 0) {
                return draw(rng);
            }
            return Change { name, sql: make(rng) };
        }
        left -= weight;
    }
    unreachable!("the weights sum up to their total")
}

/// Lets everybody work on other films from now on.
pub fn move_focus(rng: &mut Rng) {
    FOCUS.store(rng.u32(..FILMS), Ordering::Relaxed);
}

/// A catalogue to begin with.
pub fn fill(rng: &mut Rng) -> Vec<String> {
    let mut sql = Vec::new();
    sql.extend((0..PERSONS).map(|_| insert_related(rng, "person", "full_name", PERSONS)));
    sql.extend((0..GENRES * 2).map(|_| insert_related(rng, "genre", "name", GENRES)));
    for _ in 0..FILMS {
        move_focus(rng);
        sql.extend(film_insert(rng));
    }
    sql.extend((0..FILMS * 3).map(|_| link(rng)));
    sql
}

/// The id of a row by kind and number, the same in every run.
pub fn id(kind: &str, number: u32) -> String {
    let first = match kind {
        "person" => 'a',
        "genre" => 'b',
        _ => 'f',
    };
    format!("'{first}0000000-0000-4000-8000-{number:012}'")
}

/// The id of a row that may be there.
///
/// For a moment all writers work on the same few films, and then on others: so they meet, and what
/// went wrong is not put right by the next change before it can be seen.
pub fn any(rng: &mut Rng, kind: &str, count: u32) -> String {
    let is_anywhere = kind != "film" || rng.u8(..16) == 0;
    let first = if is_anywhere { 0 } else { FOCUS.load(Ordering::Relaxed) };
    let width = if is_anywhere { count } else { FOCUS_FILMS };
    id(kind, (first + rng.u32(..width)) % count)
}

/// The ids of the films that everybody works on.
pub fn focus() -> Vec<String> {
    let first = FOCUS.load(Ordering::Relaxed);
    (first..first + FOCUS_FILMS).map(|number| id("film", number % FILMS)).collect()
}

pub fn word(rng: &mut Rng) -> String {
    let language = rng.choice(["night", "ночь", "naïve", "夜", "''quoted''"]).expect("some words");
    format!("{language} {}", rng.u32(..))
}

fn rename(rng: &mut Rng, table: &str, column: &str, count: u32) -> String {
    let id = any(rng, table, count);
    format!("UPDATE content.{table} SET {column} = '{}' WHERE id = {id}", word(rng))
}

/// Some that have films.
fn rename_linked(rng: &mut Rng, table: &str, column: &str) -> String {
    let linked =
        format!("SELECT {table}_id FROM content.{table}_film_work ORDER BY random() LIMIT 3");
    format!("UPDATE content.{table} SET {column} = '{}' WHERE id IN ({linked})", word(rng))
}

/// Changes of which each leaves something else to be done.
pub fn one_of_each(rng: &mut Rng) -> [String; 5] {
    [
        rename_linked(rng, "person", "full_name"),
        rename_linked(rng, "genre", "name"),
        film_edit(rng, ""),
        unlink(rng),
        format!("{DELETE} {}", film(rng)),
    ]
}

fn insert_related(rng: &mut Rng, table: &str, column: &str, count: u32) -> String {
    let id = any(rng, table, count);
    let name = word(rng);
    format!(
        "INSERT INTO content.{table} (id, {column}) VALUES ({id}, '{name}') ON CONFLICT DO NOTHING"
    )
}

fn delete_related(rng: &mut Rng, table: &str, count: u32) -> String {
    format!("DELETE FROM content.{table} WHERE id = {}", any(rng, table, count))
}

fn person_replace(rng: &mut Rng) -> Vec<String> {
    let (old, new) = (any(rng, "person", PERSONS), any(rng, "person", PERSONS));
    vec![
        format!("DELETE FROM content.person_film_work WHERE person_id = {old}"),
        format!("UPDATE content.person SET id = {new} WHERE id = {old}"),
    ]
}

fn several(rng: &mut Rng) -> Vec<String> {
    let others = &KINDS[..KINDS.len() - 3];
    (0..rng.usize(2..6)).flat_map(|_| others[rng.usize(..others.len())].2(rng)).collect()
}

/// The comment tells the history that any film may be concerned.
fn bulk(rng: &mut Rng) -> Vec<String> {
    let some = format!("WHERE random() < 0.{} /* %WIDE% */", rng.u8(1..10));
    let sql = match rng.u8(..5) {
        0 => format!("{UPDATE} SET description = '{}' {some}", word(rng)),
        1 => format!("{UPDATE} SET title = '{}', modified = now() {some}", word(rng)),
        2 => format!("{UPDATE} SET indexed_at = NULL {some}"),
        3 => format!("UPDATE content.person SET full_name = '{}' {some}", word(rng)),
        _ => format!("DELETE FROM {} {some}", link_table(rng)),
    };
    vec![sql]
}

fn truncate(rng: &mut Rng) -> Vec<String> {
    let mut sql = match rng.u8(..3) {
        0 => vec!["TRUNCATE content.film_work CASCADE".to_owned()],
        _ => vec![format!("TRUNCATE {}", link_table(rng))],
    };
    sql.extend((0..rng.u32(..100)).flat_map(|_| film_insert(rng)));
    sql
}
