//! Indices and aliases: how they are named, made, found, switched and removed.
//!
//! Three names for each kind: an index `movies_<UTC time>`; the alias `movies` that people search; and the
//! private write alias `movies_<UTC time>.W<epoch>`, through which alone we write. Whoever takes the lead
//! replaces the last one, so that what is late of the past is refused.
//!
//! The letter is a capital on purpose: an alias may have one, an index may not. A versioned delete that
//! goes through an alias that is gone would otherwise make an index of this name, `require_alias` or not,
//! and be acknowledged by it (seen on OpenSearch 2.19 and Elasticsearch 8.19).

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{Elasticsearch, Error};
use crate::kind::Kind;

/// Settings and mappings of an index, as they come with the program.
fn definition_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Movies => include_str!("movies.json"),
        Kind::Persons => include_str!("persons.json"),
        Kind::Genres => include_str!("genres.json"),
    }
}

/// What the engine knows of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Given by the engine; another one for an index that was deleted and made again.
    pub uuid: String,
    /// The names that stand for it, each with its properties: a filter, a routing.
    pub aliases: BTreeMap<String, Value>,
    /// It carries our mark.
    pub is_ours: bool,
}

#[derive(Deserialize)]
struct IndexAnswer {
    #[serde(default)]
    aliases: BTreeMap<String, Value>,
    #[serde(default)]
    mappings: Value,
    settings: Value,
}

impl Index {
    fn from_answer((name, answer): (String, IndexAnswer)) -> Self {
        Self {
            name,
            uuid: answer.settings["index"]["uuid"].as_str().unwrap_or_default().to_owned(),
            aliases: answer.aliases,
            is_ours: !answer.mappings["_meta"]["etl"].is_null(),
        }
    }

    /// Returns the private write alias of an epoch.
    #[must_use]
    pub fn write_alias(name: &str, epoch: i64) -> String {
        format!("{}{epoch}", Self::write_alias_stem(name))
    }

    /// Returns what the private write aliases of all epochs begin with.
    #[must_use]
    pub fn write_alias_stem(name: &str) -> String {
        format!("{name}.W")
    }
}

/// One change of a request that changes aliases. All of a request happen at once, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasAction {
    /// Lets an alias stand for an index.
    Add {
        /// The index.
        index: String,
        /// The alias.
        alias: String,
        /// A filter, a routing. `Null`: nothing.
        properties: Value,
    },
    /// Takes an alias off an index.
    Remove {
        /// The index.
        index: String,
        /// The alias.
        alias: String,
    },
    /// Deletes an index.
    Delete {
        /// The index.
        index: String,
    },
}

impl AliasAction {
    /// Lets an alias without properties stand for an index.
    #[must_use]
    pub fn add(index: &str, alias: String) -> Self {
        Self::Add { index: index.to_owned(), alias, properties: Value::Null }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Add { index, alias, properties } => {
                let mut add = json!({ "index": index, "alias": alias });
                for (name, value) in properties.as_object().into_iter().flatten() {
                    add[name] = value.clone();
                }
                json!({ "add": add })
            }
            Self::Remove { index, alias } => {
                json!({ "remove": { "index": index, "alias": alias } })
            }
            Self::Delete { index } => json!({ "remove_index": { "index": index } }),
        }
    }
}

/// Returns the definition of a new index: ours, or the given one, with our mark.
///
/// `index.gc_deletes` is set if the definition does not: for as long the engine remembers the versions
/// of deleted documents, and refuses what is late.
///
/// # Panics
///
/// Panics if the replacement is not a JSON object.
#[must_use]
pub fn build_definition(kind: Kind, replacement: Option<Value>) -> Value {
    let ours = || serde_json::from_str(definition_of(kind)).expect("what comes with it is JSON");
    let mut definition = replacement.unwrap_or_else(ours);
    definition["mappings"]["_meta"]["etl"] = json!({ "version": env!("CARGO_PKG_VERSION") });
    let settings = &mut definition["settings"];
    if settings["index"]["gc_deletes"].is_null() && settings["index.gc_deletes"].is_null() {
        settings["index"]["gc_deletes"] = json!("1h");
    }
    definition
}

impl Elasticsearch {
    /// Makes an index.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine refuses the definition, or has an index or alias of this name.
    pub fn create_index(&self, name: &str, definition: &Value) -> Result<(), Error> {
        self.send::<Value>(Method::PUT, &format!("/{name}"), Some(definition)).map(drop)
    }

    /// Deletes an index. That there is none is no failure.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine refuses or is away.
    pub fn delete_index(&self, name: &str) -> Result<(), Error> {
        match self.send::<Value>(Method::DELETE, &format!("/{name}"), None) {
            Err(err) if !err.is_not_found() => Err(err),
            _ => Ok(()),
        }
    }

    /// Finds an index by its own name or by an alias of it.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses to tell.
    pub fn find_index(&self, name: &str) -> Result<Option<Index>, Error> {
        Ok(self.load_indices(&[name])?.into_iter().next())
    }

    /// Loads the indices that names, aliases or patterns stand for, in the order of their names. What is not
    /// there is left out.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away or refuses to tell.
    pub fn load_indices<S: Borrow<str>>(&self, patterns: &[S]) -> Result<Vec<Index>, Error> {
        let path = format!(
            "/{}?ignore_unavailable=true&filter_path=*.aliases,*.mappings._meta,*.settings.index.uuid",
            patterns.join(",")
        );
        match self.send::<BTreeMap<String, IndexAnswer>>(Method::GET, &path, None) {
            Ok(indices) => Ok(indices.into_iter().map(Index::from_answer).collect()),
            Err(err) if err.is_not_found() => Ok(Vec::new()),
            Err(err) => Err(err),
        }
    }

    /// Changes aliases, all at once.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine refuses (nothing has changed then), or if a node may still know the
    /// old aliases.
    pub fn update_aliases(&self, actions: &[AliasAction]) -> Result<(), Error> {
        let actions: Vec<Value> = actions.iter().map(AliasAction::to_json).collect();
        let body = json!({ "actions": actions });
        let answer: Value = self.send(Method::POST, "/_aliases", Some(&body))?;
        if answer["acknowledged"] == true {
            Ok(())
        } else {
            Err(Error::Unacknowledged { request: "POST /_aliases".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_gets_our_mark_and_keeps_its_own_settings() {
        for kind in Kind::ALL {
            let ours = build_definition(kind, None);
            assert_eq!(ours["settings"]["index"]["gc_deletes"], "1h");
            assert_eq!(ours["mappings"]["dynamic"], "strict");
            assert!(!ours["mappings"]["_meta"]["etl"].is_null());
        }

        let theirs = build_definition(
            Kind::Movies,
            Some(json!({ "settings": { "index": { "gc_deletes": "2h" } } })),
        );
        assert_eq!(theirs["settings"]["index"]["gc_deletes"], "2h");
        let flat = build_definition(
            Kind::Movies,
            Some(json!({ "settings": { "index.gc_deletes": "3h" } })),
        );
        assert!(flat["settings"]["index"].is_null());
    }
}
