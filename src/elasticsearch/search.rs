//! Reading documents back, as far as a sweep needs it: which ids there are, and their versions.

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;
use uuid::Uuid;

use super::{Elasticsearch, Error};

/// A document that the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its `_id`.
    pub id: Uuid,
    /// Its version.
    pub version: i64,
}

#[derive(Deserialize)]
struct Answer {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: Uuid,
    #[serde(rename = "_version")]
    version: i64,
}

impl Elasticsearch {
    /// Makes everything that was acknowledged so far visible to searches.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses.
    pub fn refresh(&self, index: &str) -> Result<(), Error> {
        self.send::<Value>(Method::POST, &format!("/{index}/_refresh"), None).map(drop)
    }

    /// Loads the documents after an id, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses, or if a document's `_id` is no UUID.
    pub fn load_held(
        &self,
        index: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Held>, Error> {
        let mut query = json!({
            "size": limit,
            // Not `_id`, on which Elasticsearch does not sort.
            "sort": [{ "id": "asc" }],
            "version": true,
            "_source": false,
            "track_total_hits": false,
        });
        if let Some(after) = after {
            query["search_after"] = json!([after]);
        }
        let path = format!("/{index}/_search?allow_partial_search_results=false");
        let answer: Answer = self.send(Method::POST, &path, Some(&query))?;
        Ok(answer
            .hits
            .hits
            .into_iter()
            .map(|hit| Held { id: hit.id, version: hit.version })
            .collect())
    }
}
