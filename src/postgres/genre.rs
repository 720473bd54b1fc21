//! The genres.

use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

use super::catalogue::Expected;
use super::pending::{PageLimits, Selection, Source, load_page};
use super::stamp::AsRead;
use super::{Connection, Error};
use crate::kind::Kind;

/// The columns that the document needs, beside those that every kind has.
pub(super) const COLUMNS: &[(&str, Expected)] =
    &[("name", Expected::Text), ("description", Expected::Text)];

const SOURCE: Source = Source {
    kind: Kind::Genres,
    texts: &["name", "description"],
    columns: "name::text AS name, description::text AS description",
};

/// A row of `genre`, as far as the document needs it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Genre {
    /// The key and the version.
    #[diesel(embed)]
    pub as_read: AsRead,
    /// The name.
    #[diesel(sql_type = Nullable<Text>)]
    pub name: Option<String>,
    /// The description.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
}

/// Loads a page of genres. One statement.
///
/// # Errors
///
/// Returns an error if the statement fails.
pub fn load_genres(
    conn: &mut Connection,
    selection: &Selection,
    limits: PageLimits,
) -> Result<Vec<Genre>, Error> {
    load_page(conn, SOURCE, selection, limits)
}
