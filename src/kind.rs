//! The kinds of documents: which there are, and what is called how.
//!
//! # A fourth kind
//!
//! The protocol is the same for every kind and written once. What a kind is made of are:
//!
//! 1. a variant of [`Kind`], with its alias and its table, its place in [`Kind::ALL`], and its name in what is
//!    said of a wrong one;
//! 2. `postgres/<table>.rs`: the row, as far as the document needs it, and how it is read
//!    ([`crate::postgres::pending::Source`]);
//! 3. `documents/<table>.rs`: the document, made of the row;
//! 4. `elasticsearch/<alias>.json`: settings and mappings, named in `elasticsearch/index.rs`; the field `id`
//!    is a `keyword`;
//! 5. an arm in `sync/page.rs`, which brings row and document together;
//! 6. in `postgres/catalogue.rs`: the columns that must be there, those that we add, and the name of the table
//!    among those whose half-built database indexes are dropped. A catalogue without the table is refused
//!    from then on;
//! 7. in `postgres/queries/grants.sql`: the right to read the table and to write our columns;
//! 8. in `config.rs`: its alias in the default of `--kinds`, without which it is only kept where it is named
//!    (and what repeats that: `README.md`, `.env.example`, `tests/it/help`, `ALL_KINDS` of the tests);
//! 9. a migration: the columns `touched_at` (`DEFAULT now()` first and `clock_timestamp()` after it, so that no
//!    row is rewritten), `indexed_at` and `rejected_at`; the triggers `etl.on_row_change`, `etl.on_row_delete`
//!    and `etl.on_truncate` on the table, all of them `ENABLE ALWAYS`; a row in `etl.state`;
//! 10. a migration of its own, outside of a transaction: the database index for the look for work.
//!
//! Where the document shows rows of other tables, their triggers leave a touch of this one in the outbox, as
//! `etl.on_link_change` does, and `sweep_links.sql` has one for all rows when a link table is truncated. Where
//! other documents show the rows, the triggers get the argument `fan_out` and `etl.on_row_insert` joins them
//! (or `etl.on_related_change`, where every change is shown, takes the first one's place); `etl.expand_fan_outs`,
//! `postgres/related.rs` and `sweep_rows.sql` say what is linked to the rows.

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
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.alias() == raw);
        kind.ok_or("is not one of movies, persons, genres")
    }
}
