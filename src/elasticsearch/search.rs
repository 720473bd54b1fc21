//! Reading documents back, as far as a sweep needs it: which ids there are, and their versions. And
//! whether there are any.

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

/// Documents that the index holds, in the order of their ids.
#[derive(Debug)]
pub struct HeldPage {
    /// Those whose `_id` is a UUID; no other can be a film's.
    pub held: Vec<Held>,
    /// Where the next page begins. `None`: this was the end.
    pub last: Option<Value>,
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
    id: String,
    #[serde(rename = "_version")]
    version: i64,
    sort: Value,
}

/// An engine gives 10,000 at most unless told otherwise.
const PAGE: usize = 1_000;

impl Elasticsearch {
    /// Makes everything that was acknowledged so far visible to searches.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses.
    pub fn refresh(&self, index: &str) -> Result<(), Error> {
        self.send::<Value>(Method::POST, &format!("/{index}/_refresh"), None).map(drop)
    }

    /// Counts the documents that the index holds.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses.
    pub fn count(&self, index: &str) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
        }
        self.refresh(index)?;
        let answer: Count = self.send(Method::GET, &format!("/{index}/_count"), None)?;
        Ok(answer.count)
    }

    /// Returns whether an index gives its documents back as they were sent: some are made to keep nothing of them, or
    /// parts, or to put them together from what is searched (synthetic and derived sources).
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such index, or if the engine is away.
    pub fn keeps_sources(&self, index: &str) -> Result<bool, Error> {
        let path = format!(
            "/{index}?filter_path=*.mappings._source,*.settings.index.mode,*.settings.index.mapping.source,*.settings.index.derived_source"
        );
        let answer: Value = self.send(Method::GET, &path, None)?;
        let found = answer.as_object().and_then(|indices| indices.values().next());
        let Some(index) = found else { return Ok(true) };
        let source = &index["mappings"]["_source"];
        let settings = &index["settings"]["index"];
        Ok((source.is_null() || *source == json!({ "enabled": true }))
            && (settings["mode"].is_null() || settings["mode"] == "standard")
            && matches!(settings["mapping"]["source"]["mode"].as_str(), None | Some("stored"))
            && settings["derived_source"]["enabled"] != "true")
    }

    /// Loads the documents of these ids, in the same order. `None`: there is none. Sees what was acknowledged,
    /// whether it was refreshed or not.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses.
    pub fn load_sources(&self, index: &str, ids: &[Uuid]) -> Result<Vec<Option<Value>>, Error> {
        #[derive(Deserialize)]
        struct Found {
            docs: Vec<Document>,
        }
        #[derive(Deserialize)]
        struct Document {
            #[serde(rename = "_source")]
            source: Option<Value>,
        }
        let path = format!("/{index}/_mget?filter_path=docs._id,docs._source");
        let query = json!({ "ids": ids });
        let answer: Found = self.send(Method::POST, &path, Some(&query))?;
        Ok(answer.docs.into_iter().map(|document| document.source).collect())
    }

    /// Loads up to 1,000 documents after a place, in the order of the field `id`.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses.
    pub fn load_held(&self, index: &str, after: Option<&Value>) -> Result<HeldPage, Error> {
        let mut query = json!({
            "size": PAGE,
            // Not `_id`, on which Elasticsearch does not sort.
            "sort": [{ "id": "asc" }],
            "version": true,
            "_source": false,
            "track_total_hits": false,
        });
        if let Some(after) = after {
            query["search_after"] = after.clone();
        }
        let path = format!("/{index}/_search?allow_partial_search_results=false");
        let answer: Answer = self.send(Method::POST, &path, Some(&query))?;
        let hits = answer.hits.hits;
        let last = hits.last().map(|hit| hit.sort.clone());
        let held = |hit: Hit| Some(Held { id: hit.id.parse().ok()?, version: hit.version });
        Ok(HeldPage { held: hits.into_iter().filter_map(held).collect(), last })
    }
}
