//! The document of a genre, in the index `genres`.

use serde::Serialize;
use uuid::Uuid;

use crate::postgres::genre::Genre;

/// A genre as people search for it. The shape is that of `elasticsearch/genres.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GenreDocument<'a> {
    id: Uuid,
    name: Option<&'a str>,
    description: Option<&'a str>,
}

impl<'a> From<&'a Genre> for GenreDocument<'a> {
    /// Builds the document of a genre.
    fn from(genre: &'a Genre) -> Self {
        Self {
            id: genre.as_read.id,
            name: genre.name.as_deref(),
            description: genre.description.as_deref(),
        }
    }
}
