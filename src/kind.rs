//! The kinds of documents: which there are, and what is called how.
//!
//! # A fourth kind
//!
//! The protocol is the same for every kind and written once. What a kind is made of are three files and a
//! migration:
//!
//! 1. `postgres/<table>.rs`: the row, as far as the document needs it, how it is read, and the columns that must
//!    be there. A catalogue without the table is refused from then on;
//! 2. `documents/<table>.rs`: the document, made of the row;
//! 3. `elasticsearch/<alias>.json`: settings and mappings; the field `id` is a `keyword`;
//! 4. a migration, `SELECT etl.follow_table('<table>')`, and back, `SELECT etl.unfollow_table('<table>')`;
//!
//! and what names them: the variant of [`Kind`] with its alias and its table, its place in [`Kind::ALL`], a
//! `mod` for each of the first two, an arm for the columns in `postgres/catalogue.rs`, for the definition in
//! `elasticsearch/index.rs`, and in `sync/page.rs`, which brings row and document together. The compiler asks for
//! these. (`README.md`, `.env.example` and the tests repeat the default of `--kinds`.)
//!
//! Where the document shows rows of other tables, or others show these, the migration says so in `etl.link`, too,
//! and the triggers of the link table leave touches in the outbox, as `etl.on_link_change` does. Where others
//! show the rows, the triggers get the argument `fan_out` and `etl.on_row_insert` joins them (or
//! `etl.on_related_change`, where every change is shown, takes the first one's place), and the table is among those
//! of `postgres/related.rs`.

use std::fmt;
use std::str::FromStr;

/// A kind of documents. Each has an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Films, with the names of their people and genres.
    Movies,
    /// Persons, with their roles in films.
    Persons,
    /// Genres.
    Genres,
}

impl Kind {
    /// All kinds, in the order in which they are taken care of.
    pub const ALL: [Self; 3] = [Self::Movies, Self::Persons, Self::Genres];

    /// Returns the alias that people search, without the prefix.
    #[must_use]
    pub fn alias(self) -> &'static str {
        match self {
            Self::Movies => "movies",
            Self::Persons => "persons",
            Self::Genres => "genres",
        }
    }

    /// Returns the table whose rows the documents are made of.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Movies => "film_work",
            Self::Persons => "person",
            Self::Genres => "genre",
        }
    }

    /// Returns the aliases of all kinds, with commas between them.
    #[must_use]
    pub fn all_aliases() -> String {
        Self::ALL.map(Self::alias).join(",")
    }

    /// Finds the kind of a table's rows.
    #[must_use]
    pub fn of_table(table: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table() == table)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alias())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.alias() == raw);
        kind.ok_or_else(|| format!("is not one of {}", Self::ALL.map(Self::alias).join(", ")))
    }
}
