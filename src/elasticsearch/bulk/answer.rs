//! The answer to a bulk request: what became of each operation.

use serde::Deserialize;

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The engine has it, or has removed it, or never had what was to be removed.
    Acknowledged,
    /// The engine holds a higher version: this one.
    Conflict {
        /// As the engine counts: our microseconds, unless somebody else wrote the document.
        engine_version: i64,
    },
    /// The document cannot be stored as it is.
    Rejected {
        /// The engine's word for the kind of error.
        error_type: String,
        /// Its explanation.
        reason: String,
    },
    /// The engine takes no more for the moment.
    Busy(String),
    /// The index takes no writes until a person does something.
    Blocked(String),
    /// The alias that we write through is gone, or not ours alone: somebody else leads now, or the index
    /// was replaced or restored.
    AliasGone,
    /// In no list of ours, so never a success.
    Unknown {
        /// The status of the item.
        status: u16,
        /// What the engine said.
        reason: String,
    },
}

impl Outcome {
    /// Returns what has become of an operation that two indices were to carry out: it is done when both have
    /// done it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Conflict { engine_version: one }, Self::Conflict { engine_version: other }) => {
                Self::Conflict { engine_version: one.max(other) }
            }
            (Self::Acknowledged, other) => other,
            // What is wrong with the request comes before what is wrong with the document.
            (Self::Conflict { .. } | Self::Rejected { .. }, other) if other.concerns_request() => {
                other
            }
            (one, _) => one,
        }
    }

    /// Returns true if it says nothing about the document.
    #[must_use]
    pub fn concerns_request(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Blocked(_) | Self::AliasGone | Self::Unknown { .. })
    }
}

/// The answer to a bulk request.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    items: Vec<AnswerItem>,
}

impl Answer {
    /// Returns how many operations it tells of.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns what became of each operation.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.items.into_iter().map(AnswerItem::into_outcome).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum AnswerItem {
    Index(Item),
    Delete(Item),
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
}

impl AnswerItem {
    fn into_outcome(self) -> Outcome {
        let (item, is_delete) = match self {
            Self::Index(item) => (item, false),
            Self::Delete(item) => (item, true),
        };
        let Some(error) = item.error else {
            return match item.status {
                200 | 201 => Outcome::Acknowledged,
                // Nothing there to be removed. With an `error` it would be the index that is not.
                404 if is_delete => Outcome::Acknowledged,
                status => Outcome::Unknown { status, reason: String::new() },
            };
        };
        let reason = shorten(error.reason.unwrap_or_default());
        let told = || format!("{}: {reason}", error.kind);
        match (item.status, &*error.kind) {
            (409, _) => match current_version(&reason) {
                Some(engine_version) => Outcome::Conflict { engine_version },
                None => Outcome::Unknown { status: 409, reason: told() },
            },
            // A block looks like load (429), or like a bad document (400): its type tells.
            // With 503 it is a cluster that has no master for the moment.
            (..500, "cluster_block_exception") | (_, "index_closed_exception") | (401 | 403, _) => {
                Outcome::Blocked(told())
            }
            // The second is the answer to a delete, see `crate::elasticsearch::index`.
            (404, "index_not_found_exception") | (400, "invalid_index_name_exception") => {
                Outcome::AliasGone
            }
            // A second index has got the alias, as one does that is restored from a snapshot. Neither
            // of them is written to, until the alias is replaced.
            (400, "illegal_argument_exception") if reason.contains(TWO_INDICES) => {
                Outcome::AliasGone
            }
            (429 | 500.., _) => Outcome::Busy(told()),
            (400, _) => Outcome::Rejected { error_type: error.kind, reason },
            (status, _) => Outcome::Unknown { status, reason: told() },
        }
    }
}

/// How all engines say that an alias stands for several indices. The same type of error is given for a
/// text that is too long, so the words must tell.
const TWO_INDICES: &str = "no write index is defined for alias";

/// Cuts an explanation that quotes a whole text.
fn shorten(mut reason: String) -> String {
    const CHARACTERS_MAX: usize = 1_000;
    if let Some((end, _)) = reason.char_indices().nth(CHARACTERS_MAX) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

/// Finds the version that the engine holds in its explanation of a conflict.
///
/// `… version conflict, current version [5] is higher than the one provided [4]`: the same words in
/// all engines (Elasticsearch 7 and 8, OpenSearch 2 and 3), and the only place that tells the
/// version of a deleted document.
fn current_version(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("current version [")?;
    let (digits, _) = rest.split_once(']')?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check_outcome(item: &str, expected: &Outcome) {
        let item: AnswerItem = serde_json::from_str(item).unwrap();
        assert_eq!(item.into_outcome(), *expected);
    }

    #[test]
    fn success_is_acknowledged_and_so_is_the_deletion_of_nothing() {
        check_outcome(r#"{"index":{"status":201}}"#, &Outcome::Acknowledged);
        check_outcome(r#"{"index":{"status":200}}"#, &Outcome::Acknowledged);
        check_outcome(r#"{"delete":{"status":404}}"#, &Outcome::Acknowledged);
    }

    #[test]
    fn a_missing_index_is_no_deletion() {
        let item = r#"{"delete":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index [m] and [require_alias] request flag is [true] and [m] is not an alias"}}}"#;
        check_outcome(item, &Outcome::AliasGone);
    }

    #[test]
    fn a_conflict_tells_the_version_of_the_engine() {
        let item = r#"{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[1]: version conflict, current version [5] is higher than the one provided [4]"}}}"#;
        check_outcome(item, &Outcome::Conflict { engine_version: 5 });
    }

    #[test]
    fn a_block_is_neither_load_nor_a_bad_document() {
        for (status, kind) in [
            (429, "cluster_block_exception"),
            (403, "cluster_block_exception"),
            (400, "index_closed_exception"),
        ] {
            let item = format!(
                r#"{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"r"}}}}}}"#
            );
            check_outcome(&item, &Outcome::Blocked(format!("{kind}: r")));
        }
    }

    #[test]
    fn load_is_not_the_documents_fault_and_a_bad_document_is() {
        let busy = r#"{"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"r"}}}"#;
        check_outcome(busy, &Outcome::Busy("es_rejected_execution_exception: r".to_owned()));
        let bad = r#"{"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"r"}}}"#;
        let rejected = Outcome::Rejected {
            error_type: "document_parsing_exception".to_owned(),
            reason: "r".to_owned(),
        };
        check_outcome(bad, &rejected);
    }

    #[test]
    fn what_is_in_no_list_is_no_success() {
        check_outcome(
            r#"{"index":{"status":202}}"#,
            &Outcome::Unknown { status: 202, reason: String::new() },
        );
        check_outcome(
            r#"{"index":{"status":404}}"#,
            &Outcome::Unknown { status: 404, reason: String::new() },
        );
    }

    /// Answers of an item: such as the engine gives, and such as it never gives.
    fn items() -> impl Strategy<Value = Vec<Value>> {
        let status = prop_oneof![
            prop::sample::select(vec![200_u16, 201, 400, 401, 403, 404, 409, 413, 429, 500, 503]),
            any::<u16>(),
        ];
        let kind = prop::sample::select(vec![
            "version_conflict_engine_exception",
            "cluster_block_exception",
            "index_not_found_exception",
            "illegal_argument_exception",
            "",
        ]);
        let reason = prop_oneof![
            any::<Option<String>>(),
            "current version \\[[0-9-]{0,24}\\]?".prop_map(Some),
            Just(Some(TWO_INDICES.to_owned())),
        ];
        let error =
            (kind, reason).prop_map(|(kind, reason)| json!({ "type": kind, "reason": reason }));
        let action = prop::sample::select(vec!["index", "delete"]);
        let item = (action, status, prop::option::of(error)).prop_map(|(action, status, error)| {
            let mut item = json!({ action: { "status": status } });
            if let Some(error) = error {
                item[action]["error"] = error;
            }
            item
        });
        prop::collection::vec(item, 0..8)
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(json!(200)),
            any::<String>().prop_map(Value::from),
        ];
        let words = ["items", "index", "delete", "create", "status", "error", "type", "reason"];
        leaf.prop_recursive(5, 32, 4, move |inner| {
            let name = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(name, inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    /// Reads an answer as [`Elasticsearch::bulk`] does, if it can be read, and checks that nothing counts
    /// as done that was not. Returns how many outcomes there are.
    ///
    /// Serde reads a list as an object whose fields stand in their order. No engine writes one; that what
    /// is in it is believed no more than in an object is checked all the same.
    fn check_answer(answer: &Value) -> Option<usize> {
        let read: Answer = serde_json::from_str(&answer.to_string()).ok()?;
        let field = |object: &Value, name: &str, place: usize| {
            object.get(name).or_else(|| object.get(place)).cloned().unwrap_or_default()
        };
        let items = field(answer, "items", 0);
        let outcomes = read.into_outcomes();
        for (place, outcome) in outcomes.iter().enumerate() {
            let item = &items[place];
            let is_delete = item.get("delete").is_some();
            let item = &item[if is_delete { "delete" } else { "index" }];
            let status = field(item, "status", 0).as_u64();
            let status = status.expect("without a status nothing is read");
            let is_done = field(item, "error", 1).is_null()
                && (matches!(status, 200 | 201) || status == 404 && is_delete);
            assert_eq!(*outcome == Outcome::Acknowledged, is_done, "{item}");
        }
        Some(outcomes.len())
    }

    proptest! {
        #[test]
        fn each_item_has_its_outcome_and_no_failure_counts_as_done(items in items()) {
            let answer = json!({ "errors": true, "items": items });
            prop_assert_eq!(check_answer(&answer), Some(items.len()));
        }

        #[test]
        fn no_answer_makes_it_panic(answer in any_json(), items in prop::collection::vec(any_json(), 0..4)) {
            check_answer(&answer);
            check_answer(&json!({ "items": items }));
            check_answer(&json!([[{ "index": items }]]));
        }
    }
}
