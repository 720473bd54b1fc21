//! The bulk protocol: NDJSON up, one item for each operation down, in the same order.
//!
//! Reference: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-bulk.html>. What the
//! answers of an item mean is in [`Outcome`]; HTTP 200 with failures inside is the normal case.

mod answer;
mod body;

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::Method;

use self::answer::Answer;
pub use self::answer::Outcome;
pub use self::body::{BulkBody, BulkPart};
use super::{Body, Elasticsearch, Error};

/// The lowest limit that is usual on the way to an engine. A smaller request is not refused for its size.
const ASKED_FIRST_MIN: usize = 1 << 20;

impl Elasticsearch {
    /// Sends one bulk request through an alias; an index of that name would be refused.
    ///
    /// Returns one outcome for each operation, in the order of the request.
    ///
    /// # Errors
    ///
    /// Returns an error if the request failed as a whole. Some or all of it may have been carried
    /// out, now or later; sending the same again is safe.
    ///
    /// # Panics
    ///
    /// Panics if the body is empty, which the engine would refuse.
    pub fn bulk(
        &self,
        alias: &str,
        body: BulkPart<'_>,
        timeout: Duration,
    ) -> Result<Vec<Outcome>, Error> {
        assert!(!body.is_empty(), "a bulk request has at least one operation");
        let path = format!(
            "/{alias}/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
        );
        let is_compressed = self.is_compressing;
        let packed = if is_compressed { pack(body.ndjson) } else { Cow::Borrowed(body.ndjson) };
        let send = |is_asked_first| {
            let content_type = "application/x-ndjson";
            let bytes = Some(&*packed);
            let upload = Body { content_type, bytes, is_compressed, is_asked_first };
            self.send_bytes::<Answer>(Method::POST, &path, upload, timeout)
        };
        let answer = match send(false) {
            // The engines read all of what they refuse for its size. Not so a proxy before them, or an
            // engine behind one that keeps no connections: the answer is lost, unless we ask first.
            Err(err) if err.is_broken_off() && body.len() > ASKED_FIRST_MIN => send(true)?,
            result => result?,
        };
        let answered = answer.len();
        if answered != body.operations() {
            return Err(Error::ItemCount { sent: body.operations(), answered });
        }
        Ok(answer.into_outcomes())
    }
}

/// Packs bytes by gzip, at the speed of the network rather than for the last byte.
fn pack(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    Cow::Owned(packed.expect("there is room in memory"))
}
