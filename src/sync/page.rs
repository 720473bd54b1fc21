//! A page of documents: rows of a kind, read and put into the body of a bulk request.
//!
//! The order is what makes it safe. A row is read first and what belongs to it after it, without locks:
//! whatever changes in between touches the row after it can be seen, so the version that was read is
//! never too high for the relations that were.

use serde::Serialize;

use crate::documents::film::FilmDocument;
use crate::documents::genre::GenreDocument;
use crate::documents::person::PersonDocument;
use crate::elasticsearch::bulk::BulkBody;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::film_work::load_films;
use crate::postgres::genre::load_genres;
use crate::postgres::pending::{PageLimits, Selection};
use crate::postgres::person::load_persons;
use crate::postgres::stamp::AsRead;
use crate::postgres::{Connection, flush_wal};

/// Rows, and the operations that index their documents.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows, in the order of the selection.
    pub rows: Vec<AsRead>,
    /// Those of them that have an operation, in the same order.
    pub to_send: Vec<AsRead>,
    /// One operation for each of these.
    pub body: BulkBody,
}

/// Reads rows of a kind, and builds the documents of those that are wanted.
///
/// One statement for each table that a document is made of, and one more that makes sure that what was read
/// survives a crash of PostgreSQL.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails.
pub fn load_page(
    conn: &mut Connection,
    kind: Kind,
    selection: &Selection,
    limits: PageLimits,
    is_wanted: impl Fn(&AsRead) -> bool,
) -> Result<Page, Error> {
    let mut page = Page::default();
    match kind {
        Kind::Movies => {
            for film in &load_films(conn, selection, limits)? {
                page.add(film.film_work.as_read, &is_wanted, || FilmDocument::from(film));
            }
        }
        Kind::Persons => {
            for person in &load_persons(conn, selection, limits)? {
                page.add(person.person.as_read, &is_wanted, || PersonDocument::from(person));
            }
        }
        Kind::Genres => {
            for genre in &load_genres(conn, selection, limits)? {
                page.add(genre.as_read, &is_wanted, || GenreDocument::from(genre));
            }
        }
    }
    if !page.to_send.is_empty() {
        flush_wal(conn)?;
    }
    Ok(page)
}

impl Page {
    fn add<Document: Serialize>(
        &mut self,
        row: AsRead,
        is_wanted: impl Fn(&AsRead) -> bool,
        build: impl FnOnce() -> Document,
    ) {
        self.rows.push(row);
        if is_wanted(&row) {
            self.to_send.push(row);
            self.body.index(row.id, row.version(), &build());
        }
    }
}
