//! The body of a bulk request: NDJSON, an action line for each operation, and a line for its document.

use std::io::Write;
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// Operations for bulk requests, one after the other.
#[derive(Debug, Default)]
pub struct BulkBody {
    /// For each operation an action line, then the document if it has one.
    ndjson: Vec<u8>,
    /// Where each operation ends.
    ends: Vec<usize>,
}

/// Consecutive operations of a [`BulkBody`]: the body of one bulk request.
#[derive(Debug, Clone, Copy)]
pub struct BulkPart<'a> {
    pub(super) ndjson: &'a [u8],
    operations: usize,
}

impl BulkBody {
    /// Adds or replaces a document, unless the engine has a higher version of it.
    ///
    /// # Panics
    ///
    /// Panics if the document cannot be written as JSON: all of its keys must be strings.
    pub fn index(&mut self, id: Uuid, version: i64, document: &impl Serialize) {
        self.push_action("index", id, version);
        serde_json::to_writer(&mut self.ndjson, document).expect("all keys are strings");
        self.ndjson.push(b'\n');
        self.ends.push(self.ndjson.len());
    }

    /// Removes a document, unless the engine has a higher version of it. That there is none is no
    /// failure: the engine remembers the version all the same, for as long as `index.gc_deletes`.
    pub fn delete(&mut self, id: Uuid, version: i64) {
        self.push_action("delete", id, version);
        self.ends.push(self.ndjson.len());
    }

    /// Returns true if there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns how many operations there are.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.ends.len()
    }

    /// Returns all operations as one request.
    #[must_use]
    pub fn whole(&self) -> BulkPart<'_> {
        self.part(0..self.operations())
    }

    /// Returns some operations as one request.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many.
    #[must_use]
    pub fn part(&self, operations: Range<usize>) -> BulkPart<'_> {
        let start_of = |place: usize| if place == 0 { 0 } else { self.ends[place - 1] };
        let bytes = start_of(operations.start)..start_of(operations.end);
        BulkPart { ndjson: &self.ndjson[bytes], operations: operations.len() }
    }

    /// Returns the document of an operation.
    ///
    /// # Panics
    ///
    /// Panics if there is no such operation, or if it is a delete.
    #[must_use]
    pub fn document(&self, place: usize) -> Value {
        let BulkPart { ndjson, .. } = self.part(place..place + 1);
        let line = ndjson.split(|byte| *byte == b'\n').nth(1).expect("it has an action line");
        serde_json::from_slice(line).expect("it was written as JSON")
    }

    /// Returns where a request ends that begins with this operation and is full when it has come to so
    /// many bytes. It has one operation at least.
    ///
    /// # Panics
    ///
    /// Panics if there is no such operation.
    #[must_use]
    pub fn end_of_part(&self, first: usize, byte_limit: usize) -> usize {
        let start = if first == 0 { 0 } else { self.ends[first - 1] };
        let is_full = |end: &usize| end - start >= byte_limit;
        let full = self.ends[first..].iter().position(is_full);
        full.map_or(self.operations(), |place| first + place + 1)
    }

    fn push_action(&mut self, action: &str, id: Uuid, version: i64) {
        // `external_gte`: the same version again is accepted, so that a request whose answer was
        // lost can be sent again. Nothing here needs to be escaped.
        let line = writeln!(
            self.ndjson,
            r#"{{"{action}":{{"_id":"{id}","version":{version},"version_type":"external_gte"}}}}"#
        );
        line.expect("there is room in memory");
    }
}

impl BulkPart<'_> {
    /// Returns how many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ndjson.len()
    }

    /// Returns how many operations there are.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Returns true if there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_has_an_action_line_and_a_document_line() {
        let mut body = BulkBody::default();
        body.index(Uuid::nil(), 7, &json!({ "title": "Brazil" }));
        body.delete(Uuid::nil(), 8);
        assert_eq!(body.operations(), 2);
        assert_eq!(
            String::from_utf8(body.ndjson).unwrap(),
            "{\"index\":{\"_id\":\"00000000-0000-0000-0000-000000000000\",\"version\":7,\"version_type\":\"external_gte\"}}\n\
             {\"title\":\"Brazil\"}\n\
             {\"delete\":{\"_id\":\"00000000-0000-0000-0000-000000000000\",\"version\":8,\"version_type\":\"external_gte\"}}\n"
        );
    }

    /// What is asked for: an index with a document, or a delete.
    type Operation = (Uuid, i64, Option<String>);

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let id = any::<u128>().prop_map(Uuid::from_u128);
        prop::collection::vec((id, any::<i64>(), any::<Option<String>>()), 0..20)
    }

    proptest! {
        #[test]
        fn a_body_has_the_operations_in_their_order(operations in operations()) {
            let mut body = BulkBody::default();
            let mut expected = Vec::new();
            for (id, version, document) in &operations {
                let target = json!({ "_id": id, "version": version, "version_type": "external_gte" });
                if let Some(text) = document {
                    let document = json!({ "title": text });
                    body.index(*id, *version, &document);
                    expected.extend([json!({ "index": target }), document]);
                } else {
                    body.delete(*id, *version);
                    expected.push(json!({ "delete": target }));
                }
            }
            prop_assert_eq!((body.operations(), body.whole().len()), (operations.len(), body.ndjson.len()));
            prop_assert_eq!(body.is_empty(), operations.is_empty());
            prop_assert!(body.ndjson.is_empty() || body.ndjson.ends_with(b"\n"));
            let lines = body.ndjson.split_inclusive(|byte| *byte == b'\n');
            let lines: Vec<Value> = lines.map(|l| serde_json::from_slice(l).unwrap()).collect();
            prop_assert_eq!(lines, expected);
        }

        #[test]
        fn parts_are_the_whole_and_end_with_the_operation_that_fills_them(
            operations in operations(), byte_limit in 1..500_usize
        ) {
            let mut body = BulkBody::default();
            for (id, version, document) in &operations {
                body.index(*id, *version, document);
            }
            let (mut first, mut together) = (0, Vec::new());
            while first < body.operations() {
                let end = body.end_of_part(first, byte_limit);
                let part = body.part(first..end);
                prop_assert_eq!(part.operations, end - first);
                prop_assert!(end - first == 1 || body.part(first..end - 1).len() < byte_limit);
                prop_assert!(end == body.operations() || part.len() >= byte_limit);
                together.extend_from_slice(part.ndjson);
                first = end;
            }
            prop_assert_eq!(together, body.ndjson);
        }
    }
}
