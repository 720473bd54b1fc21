//! The answers to a bulk request, by what is to be done about them.

use crate::elasticsearch;
use crate::elasticsearch::bulk::Outcome;
use crate::error::Error;
use crate::postgres::rejected::Rejection;
use crate::postgres::stamp::AsRead;
use crate::postgres::{Timestamp, moment_of};

/// The answers to a bulk request, by what is to be done about them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To be stamped.
    pub acknowledged: Vec<AsRead>,
    /// To be recorded.
    pub rejections: Vec<Rejection>,
    /// To be touched past what the engine holds.
    pub conflicts: Vec<(AsRead, Timestamp)>,
    /// What concerns the request and not the document.
    pub failure: Option<Error>,
}

/// What the engine has answered for one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answered {
    /// It has the document.
    Acknowledged(AsRead),
    /// It refuses the document.
    Rejected(Rejection),
    /// It holds a version of this moment, higher than ours.
    Conflict(AsRead, Timestamp),
}

impl Answered {
    /// Returns the row, as it was when its document was built.
    pub fn row(&self) -> AsRead {
        match self {
            Self::Acknowledged(row) | Self::Conflict(row, _) => *row,
            Self::Rejected(rejection) => rejection.row,
        }
    }
}

impl Answers {
    /// Sorts the answers, each with the row that it is about.
    pub fn sort(answers: impl Iterator<Item = (AsRead, Outcome)>) -> Self {
        let mut sorted = Self::default();
        for (row, outcome) in answers {
            match outcome {
                Outcome::Acknowledged => sorted.push(Answered::Acknowledged(row)),
                Outcome::Rejected { error_type, reason } => {
                    sorted.push(Answered::Rejected(Rejection { row, error_type, reason }));
                }
                Outcome::Conflict { engine_version } => {
                    sorted.push(conflict(row, engine_version));
                }
                other => add_failure(&mut sorted.failure, other),
            }
        }
        sorted
    }

    /// Returns true if these are many, and the engine refuses every one of them for what it is.
    pub fn are_all_rejected(&self) -> bool {
        /// Fewer may be bad by chance.
        const MANY: usize = 10;
        self.rejections.len() >= MANY
            && self.acknowledged.is_empty()
            && self.conflicts.is_empty()
            && self.failure.is_none()
    }

    /// Adds an answer.
    pub fn push(&mut self, answered: Answered) {
        match answered {
            Answered::Acknowledged(row) => self.acknowledged.push(row),
            Answered::Rejected(rejection) => self.rejections.push(rejection),
            Answered::Conflict(row, past) => self.conflicts.push((row, past)),
        }
    }

    /// Returns each answer by itself.
    pub fn each(&self) -> impl Iterator<Item = Answered> {
        let acknowledged = self.acknowledged.iter().copied().map(Answered::Acknowledged);
        let rejected = self.rejections.iter().cloned().map(Answered::Rejected);
        let conflicts = self.conflicts.iter().map(|(row, past)| Answered::Conflict(*row, *past));
        acknowledged.chain(rejected).chain(conflicts)
    }
}

/// The engine holds a higher version than ours: the clock stepped back, or somebody wrote the document
/// by hand. The row is to be touched past it, and goes out again.
fn conflict(row: AsRead, engine_version: i64) -> Answered {
    match moment_of(engine_version) {
        Some(past) => Answered::Conflict(row, past),
        None => Answered::Rejected(Rejection {
            row,
            error_type: "version_conflict_engine_exception".to_owned(),
            reason: format!(
                "the engine holds version {engine_version}, and there is no higher one: run `etl init-es`"
            ),
        }),
    }
}

/// Notes an item that says something about the whole request, and not about its document. The last one is
/// told, and how many were put off.
pub(super) fn add_failure(failure: &mut Option<Error>, outcome: Outcome) {
    let err = match outcome {
        Outcome::Busy(reason) => {
            let before = match failure {
                Some(Error::Elasticsearch(elasticsearch::Error::Busy { items, .. })) => *items,
                _ => 0,
            };
            elasticsearch::Error::Busy { items: before + 1, reason }.into()
        }
        Outcome::Blocked(reason) => elasticsearch::Error::Blocked { reason }.into(),
        Outcome::AliasGone => Error::Rival(
            "the private write alias was replaced or removed by another process".to_owned(),
        ),
        Outcome::Unknown { status, reason } => elasticsearch::Error::Item { status, reason }.into(),
        Outcome::Acknowledged | Outcome::Conflict { .. } | Outcome::Rejected { .. } => {
            unreachable!("these say something about one document")
        }
    };
    // What ends the term is not to be hidden by what concerns a document.
    if failure.as_ref().is_none_or(Error::concerns_single_documents) {
        *failure = Some(err);
    }
}
