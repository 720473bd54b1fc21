//! The answers to a bulk request of films, by what is to be done about them.

use uuid::Uuid;

use crate::elasticsearch;
use crate::elasticsearch::bulk::Outcome;
use crate::error::Error;
use crate::postgres::stamp::{AsRead, Rejection};
use crate::postgres::{Timestamp, moment_of};

/// The answers to a bulk request, by what is to be done about them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To be stamped.
    pub acknowledged: Vec<AsRead>,
    /// To be recorded.
    pub rejections: Vec<Rejection>,
    /// The version that the engine holds, as a moment to be touched past.
    pub conflicts: Vec<(Uuid, Timestamp)>,
    /// What concerns the request and not the document; the worst of it.
    pub failure: Option<Error>,
}

impl Answers {
    /// Sorts the answers, each with the film that it is about.
    pub fn sort(answers: impl Iterator<Item = (AsRead, Outcome)>) -> Self {
        let mut sorted = Self::default();
        let mut busy = 0;
        for (film, outcome) in answers {
            match outcome {
                Outcome::Acknowledged => sorted.acknowledged.push(film),
                Outcome::Rejected { error_type, reason } => {
                    sorted.rejections.push(Rejection { film, error_type, reason });
                }
                Outcome::Conflict { engine_version } => sorted.conflict(film, engine_version),
                Outcome::Busy(reason) => {
                    busy += 1;
                    let err = elasticsearch::Error::Busy { items: busy, reason };
                    sorted.failure = Some(err.into());
                }
                other => sorted.failure = Some(request_failure(other)),
            }
        }
        sorted
    }

    /// The engine holds a higher version than ours: the clock stepped back, or somebody wrote the
    /// document by hand. The film is touched past it, and goes out again.
    fn conflict(&mut self, film: AsRead, engine_version: i64) {
        if let Some(moment) = moment_of(engine_version) {
            self.conflicts.push((film.id, moment));
            return;
        }
        self.rejections.push(Rejection {
            film,
            error_type: "version_conflict_engine_exception".to_owned(),
            reason: format!("the engine holds version {engine_version}, and there is no higher one: run `etl init-es`"),
        });
    }
}

/// Names the failure of an item that says something about the whole request.
pub(super) fn request_failure(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Busy(reason) => elasticsearch::Error::Busy { items: 1, reason }.into(),
        Outcome::Blocked(reason) => elasticsearch::Error::Blocked { reason }.into(),
        Outcome::AliasGone => Error::Rival(
            "the private write alias was replaced or removed by another process".to_owned(),
        ),
        Outcome::Unknown { status, reason } => elasticsearch::Error::Item { status, reason }.into(),
        Outcome::Acknowledged | Outcome::Conflict { .. } | Outcome::Rejected { .. } => {
            unreachable!("these say something about one document")
        }
    }
}
