//! What can go wrong on the side of the engine.

use std::{error, fmt, io};

use serde::Deserialize;
use serde_json::Value;

/// A failure on the side of the engine.
#[derive(Debug)]
pub enum Error {
    /// No answer, or none that could be read to its end. The request may have been carried out.
    Send {
        /// Method and path.
        request: String,
        /// What the network said.
        source: ureq::Error,
    },
    /// The engine refused the request.
    Status {
        /// Method and path.
        request: String,
        /// The status of HTTP.
        status: u16,
        /// The engine's word for the kind of error; empty if it gave none.
        kind: String,
        /// The engine's explanation.
        reason: String,
    },
    /// The answer is not what this request is answered with.
    Decode {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A bulk request was answered with another number of items than it had operations.
    ItemCount {
        /// Operations in the request.
        sent: usize,
        /// Items in the answer.
        answered: usize,
    },
    /// An item of a bulk request was answered with something that is in no list of ours.
    Item {
        /// The status of the item.
        status: u16,
        /// The engine's word for the kind of error, and its explanation.
        reason: String,
    },
    /// The engine takes no more for the moment: items were refused for that alone.
    Busy {
        /// How many.
        items: usize,
        /// The answer to the first of them.
        reason: String,
    },
    /// The engine refuses whatever is sent, for what it is.
    Misfit {
        /// How many documents, of different places in the catalogue.
        documents: usize,
        /// The answer to the first of them.
        example: String,
    },
    /// The index takes no writes until a person does something.
    Blocked {
        /// The answer to the first item.
        reason: String,
    },
    /// The engine has begun what was asked, and does not know yet whether all of it know.
    Unacknowledged {
        /// Method and path.
        request: String,
    },
    /// The engine is still starting.
    Starting,
    /// What answers at the URL is neither Elasticsearch nor OpenSearch.
    NotAnEngine(String),
    /// The certificate of the settings cannot be read.
    Certificate(ureq::Error),
}

/// The `error` of an answer: an object, or a mere string.
///
/// Only these two members: `caused_by` of some engines repeats the whole request, with its
/// password.
#[derive(Debug, Default, Deserialize)]
struct Explanation {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
}

impl Error {
    pub(super) fn from_answer(request: String, status: u16, body: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let explanation = match &answer["error"] {
            Value::String(reason) => {
                Explanation { kind: String::new(), reason: Some(reason.clone()) }
            }
            object => Explanation::deserialize(object).unwrap_or_default(),
        };
        let reason = explanation.reason.unwrap_or_default();
        // A block looks like load (429). With 503 it is a cluster that has no master for the moment.
        if status < 500 && explanation.kind == "cluster_block_exception" {
            return Self::Blocked { reason: format!("{}: {reason}", explanation.kind) };
        }
        Self::Status { request, status, kind: explanation.kind, reason }
    }

    /// Returns true if the same request may succeed later, without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Send { source, .. } => !matches!(source, ureq::Error::BadUri(_)),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Decode { .. }
            | Self::ItemCount { .. }
            | Self::Item { .. }
            | Self::Busy { .. }
            | Self::Unacknowledged { .. }
            | Self::Starting => true,
            Self::Misfit { .. }
            | Self::Blocked { .. }
            | Self::NotAnEngine(_)
            | Self::Certificate(_) => false,
        }
    }

    /// Returns true if other documents of the same request were taken care of.
    #[must_use]
    pub fn concerns_single_documents(&self) -> bool {
        matches!(self, Self::Item { .. } | Self::Busy { .. } | Self::Misfit { .. })
    }

    /// Returns true if the engine is there and has too much to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Status { status: 429, .. })
    }

    /// Returns true if the engine did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Send { source: ureq::Error::Timeout(_), .. })
    }

    /// Returns true if the connection ended before the answer.
    #[must_use]
    pub(super) fn is_broken_off(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let Self::Send { source: ureq::Error::Io(err), .. } = self else { return false };
        matches!(err.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    }

    /// Returns true if the engine knows nothing of what the request named.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Returns true if the request was larger than the engine takes.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { request, .. } => write!(f, "could not send `{request}` to the engine"),
            Self::Status { request, status, kind, reason } => {
                write!(f, "the engine refused `{request}` with status {status}")?;
                match (&**kind, &**reason) {
                    ("", "") => Ok(()),
                    ("", text) | (text, "") => write!(f, " ({text})"),
                    (kind, reason) => write!(f, " ({kind}: {reason})"),
                }
            }
            Self::Decode { request, .. } => {
                write!(f, "could not read the engine's answer to `{request}`")
            }
            Self::ItemCount { sent, answered } => {
                write!(f, "a bulk request of {sent} operations was answered with {answered} items")
            }
            Self::Item { status, reason } => {
                write!(f, "an item of a bulk request was answered with status {status} ({reason})")
            }
            Self::Busy { items, reason } => {
                write!(f, "the engine is busy: it put off {items} documents ({reason})")
            }
            Self::Misfit { documents, example } => write!(
                f,
                "the mapping does not fit: the engine refuses all of {documents} documents ({example}): run `etl init-es` with a mapping that fits, or mend the catalogue; nothing is lost meanwhile"
            ),
            Self::Blocked { reason } => write!(
                f,
                "the index takes no writes ({reason}): lift the block, free disk space, or grant the right to write; nothing is lost meanwhile"
            ),
            Self::Unacknowledged { request } => {
                write!(f, "the nodes of the engine have not all acknowledged `{request}`")
            }
            Self::Starting => f.write_str("the engine is still starting"),
            Self::NotAnEngine(url) => write!(
                f,
                "what answers at {url} is neither Elasticsearch nor OpenSearch: check --elasticsearch-url (ELASTICSEARCH_URL)"
            ),
            Self::Certificate(_) => {
                f.write_str("cannot read the certificate of --elasticsearch-ca (ELASTICSEARCH_CA)")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Send { source, .. } | Self::Certificate(source) => Some(source),
            Self::Decode { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_an_object_or_a_string_and_its_cause_is_left_out() {
        let body =
            br#"{"error":{"type":"t","reason":"r","caused_by":{"reason":"secret"}},"status":400}"#;
        let err = Error::from_answer("PUT /x".to_owned(), 400, body);
        assert_eq!(err.to_string(), "the engine refused `PUT /x` with status 400 (t: r)");

        let err = Error::from_answer("GET /x".to_owned(), 404, br#"{"error":"alias [x] missing"}"#);
        assert_eq!(
            err.to_string(),
            "the engine refused `GET /x` with status 404 (alias [x] missing)"
        );

        let err = Error::from_answer("GET /".to_owned(), 502, b"<html>");
        assert_eq!(err.to_string(), "the engine refused `GET /` with status 502");
        assert!(err.is_transient());
    }
}
