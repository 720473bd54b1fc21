//! The documents of a new index and the rows that they are of are counted.
//!
//! Both may take seconds, the refresh before it and the reading of the whole table, in which edits of the live index
//! are not to wait. So it is done by a thread with a session of its own.

use std::sync::{Arc, OnceLock};
use std::thread;

use crate::elasticsearch::Elasticsearch;
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::rebuild::{RowCount, count_rows};
use crate::postgres::{DatabaseUrl, connect};

/// What was counted.
#[derive(Debug)]
pub(super) struct Count {
    /// Rows, before the documents were counted.
    pub before: RowCount,
    /// Everything that was acknowledged between the two others at the latest.
    pub documents: i64,
    /// Rows, after it.
    pub after: RowCount,
}

/// A thread that counts. Dropping this does not end it; its session has limits.
#[derive(Debug, Clone)]
pub(super) struct Counting(Arc<OnceLock<Result<Count, Error>>>);

impl Counting {
    /// Begins to count the documents of an index, and the rows of their kind.
    pub fn begin(
        url: DatabaseUrl,
        elasticsearch: Elasticsearch,
        kind: Kind,
        index_name: String,
    ) -> Self {
        let result = Arc::new(OnceLock::new());
        let shared = Arc::clone(&result);
        thread::spawn(move || shared.set(count(&url, &elasticsearch, kind, &index_name)));
        Self(result)
    }

    /// Returns what was counted; nothing as long as it is not done.
    pub fn result(&self) -> Option<&Result<Count, Error>> {
        self.0.get()
    }
}

fn count(
    url: &DatabaseUrl,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    index_name: &str,
) -> Result<Count, Error> {
    let mut conn = connect(url, "etl rebuild: count")?;
    let before = count_rows(&mut conn, kind)?;
    let documents = i64::try_from(elasticsearch.count(index_name)?).unwrap_or(i64::MAX);
    let after = count_rows(&mut conn, kind)?;
    Ok(Count { before, documents, after })
}
