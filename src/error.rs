//! The one error of the program, and how it is printed.

use std::{error, fmt, io, iter};

use crate::fixture::FixtureError;
use crate::kind::Kind;
use crate::{elasticsearch, postgres};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Error {
    /// Settings are missing or wrong; one line each. Nothing has been done.
    Usage(Vec<String>),
    /// PostgreSQL failed.
    Postgres(postgres::Error),
    /// The engine failed.
    Elasticsearch(elasticsearch::Error),
    /// A fixture has a mistake. Nothing has been loaded.
    Fixture(FixtureError),
    /// A file or the terminal could not be read or written.
    Io {
        /// The file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The state and the servers do not fit, and a person must say which is right. Nothing is sent.
    State(String),
    /// The index that the state speaks of is gone, or is not what people search. Nothing is sent.
    IndexLost {
        /// Whose it is.
        kind: Kind,
        /// What has become of it.
        what: String,
    },
    /// Somebody else does what we were about to do, or has just begun to.
    Rival(String),
}

impl Error {
    /// Returns true if the same call may succeed later, without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Postgres(err) => err.is_transient(),
            Self::Elasticsearch(err) => err.is_transient(),
            Self::Rival(_) => true,
            Self::Usage(_)
            | Self::Fixture(_)
            | Self::Io { .. }
            | Self::State(_)
            | Self::IndexLost { .. } => false,
        }
    }
}

impl Error {
    /// Returns true if other documents of the same request were taken care of.
    #[must_use]
    pub fn concerns_single_documents(&self) -> bool {
        matches!(self, Self::Elasticsearch(err) if err.concerns_single_documents())
    }

    /// Returns true if the engine is there and has too much to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Elasticsearch(err) if err.is_busy())
    }

    /// Returns true if the engine did not answer in time. It may be at work on the request.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Elasticsearch(err) if err.is_timeout())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(mistakes) => f.write_str(&mistakes.join("; ")),
            // These say themselves what failed; their causes follow.
            Self::Postgres(err) => err.fmt(f),
            Self::Elasticsearch(err) => err.fmt(f),
            Self::Fixture(err) => err.fmt(f),
            Self::Io { what, .. } => write!(f, "could not read {what}"),
            Self::State(what) | Self::Rival(what) => f.write_str(what),
            Self::IndexLost { kind, what } => write!(
                f,
                "{what}: run `etl init-es --kinds {kind}` to make a new index and load everything (or `etl start --rebuild-lost-index`, which does it by itself)"
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Postgres(err) => err.source(),
            Self::Elasticsearch(err) => err.source(),
            Self::Fixture(err) => err.source(),
            Self::Io { source, .. } => Some(source),
            Self::Usage(_) | Self::State(_) | Self::IndexLost { .. } | Self::Rival(_) => None,
        }
    }
}

impl From<postgres::Error> for Error {
    fn from(err: postgres::Error) -> Self {
        Self::Postgres(err)
    }
}

impl From<elasticsearch::Error> for Error {
    fn from(err: elasticsearch::Error) -> Self {
        Self::Elasticsearch(err)
    }
}

impl From<FixtureError> for Error {
    fn from(err: FixtureError) -> Self {
        Self::Fixture(err)
    }
}

/// Writes an error and everything that caused it on one line.
#[must_use]
pub fn chain(err: &dyn error::Error) -> String {
    let causes = iter::successors(Some(err), |&err| err.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    // libpq breaks its messages into lines; ours go into a log.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_printed_with_its_causes_on_one_line() {
        let source = io::Error::other("first line\n\tsecond line");
        let err = Error::Io { what: "`movies.json`".to_owned(), source };
        assert_eq!(chain(&err), "could not read `movies.json`: first line second line");
    }
}
