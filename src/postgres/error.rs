//! What can go wrong on the PostgreSQL side.

use std::{error, fmt};

use diesel::ConnectionError;
use diesel::result::{DatabaseErrorKind, Error as QueryError};

/// A failure on the PostgreSQL side.
#[derive(Debug)]
pub enum Error {
    /// No connection could be had.
    Connect(ConnectionError),
    /// A statement failed.
    Query {
        /// What the statement was for.
        purpose: &'static str,
        /// What PostgreSQL said.
        source: QueryError,
    },
    /// A migration failed. What it did has been undone.
    Migrate {
        /// The name of the migration.
        migration: String,
        /// What PostgreSQL said.
        reason: String,
    },
    /// The catalogue cannot be followed as it is. Nothing has been changed.
    Catalogue(String),
    /// A row of a fixture cannot be stored. Nothing has been loaded.
    Fixture {
        /// The table that refused it.
        table: &'static str,
        /// What PostgreSQL said.
        source: QueryError,
    },
}

impl Error {
    /// Returns true if the same statement may succeed later, without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // The latter: a transaction cannot go on because its connection has gone.
            Self::Connect(_) | Self::Query { source: QueryError::BrokenTransactionManager, .. } => {
                true
            }
            Self::Query { source: QueryError::DatabaseError(kind, _), .. } => matches!(
                kind,
                DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::SerializationFailure
                    // A server that has just become a standby, or not yet ceased to be one.
                    | DatabaseErrorKind::ReadOnlyTransaction
            ),
            _ => false,
        }
    }

    /// Names what a statement was for: `.map_err(Error::query("load films"))`.
    pub(crate) fn query(purpose: &'static str) -> impl FnOnce(QueryError) -> Self {
        move |source| Self::Query { purpose, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("could not connect to PostgreSQL"),
            Self::Query { purpose, .. } => write!(f, "could not {purpose} in PostgreSQL"),
            Self::Migrate { migration, reason } => {
                write!(f, "could not apply the migration `{migration}`: {reason}")
            }
            Self::Catalogue(what) => f.write_str(what),
            Self::Fixture { table, source } => {
                write!(f, "could not store a row in `content.{table}`")?;
                match source {
                    // The details name the key, which is what a person looks for.
                    QueryError::DatabaseError(_, information) => match information.details() {
                        Some(details) => write!(f, " ({details})"),
                        None => Ok(()),
                    },
                    _ => Ok(()),
                }
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Connect(source) => Some(source),
            Self::Query { source, .. } | Self::Fixture { source, .. } => Some(source),
            Self::Migrate { .. } | Self::Catalogue(_) => None,
        }
    }
}
