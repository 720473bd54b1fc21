//! The real engine, spoken to with a client that shares no code with the program.

use std::collections::BTreeMap;
use std::env;

use serde_json::{Value, json};
use uuid::Uuid;

/// A real engine, and a prefix of one test alone.
pub struct Engine {
    pub url: String,
    pub prefix: String,
}

/// Which engine `dev/servers` has started for the tests. `None` if it is the caller's.
#[allow(dead_code, reason = "the torture test asks for none in particular")]
pub fn own_engine() -> Option<String> {
    env::var("ETL_DEV_ENGINE").ok().filter(|name| !name.is_empty())
}

/// A document as it is in the index.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The document.
    pub source: Value,
    /// Moves with every write, also one that changes nothing.
    pub seq_no: u64,
}

impl Engine {
    /// On the engine of `ELASTICSEARCH_URL`.
    pub fn new(name: &str) -> Self {
        let url = env::var("ELASTICSEARCH_URL")
            .expect("ELASTICSEARCH_URL is not set: run `make test`, which starts the servers");
        Self::on_server(url, name)
    }

    /// The prefix is free: what an earlier run has left is removed.
    pub fn on_server(url: String, name: &str) -> Self {
        let engine =
            Self { url, prefix: format!("{}-{}-", name.replace('_', "-"), std::process::id()) };
        engine.delete_all();
        engine
    }

    /// The alias of the films, which people search.
    pub fn alias(&self) -> String {
        self.alias_of("movies")
    }

    /// The alias of a kind of documents.
    pub fn alias_of(&self, kind: &str) -> String {
        format!("{}{kind}", self.prefix)
    }

    /// Sends a request and returns status and answer.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Content-Type", "application/json");
        let answer = match body {
            Some(body) => agent.run(request.body(body.to_string()).unwrap()),
            None => agent.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap_or_else(|err| panic!("{method} {path}: {err}"));
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().expect("read the answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Sends a request that is to succeed.
    #[track_caller]
    pub fn succeed(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// All documents of films.
    pub fn documents(&self) -> BTreeMap<Uuid, Stored> {
        self.documents_of("movies")
    }

    /// All documents of a kind.
    pub fn documents_of(&self, kind: &str) -> BTreeMap<Uuid, Stored> {
        let alias = self.alias_of(kind);
        self.succeed("POST", &format!("/{alias}/_refresh"), None);
        let query = json!({ "size": 10_000, "seq_no_primary_term": true });
        let answer = self.succeed("POST", &format!("/{alias}/_search"), Some(&query));
        let hits = answer["hits"]["hits"].as_array().expect("hits").clone();
        assert!(hits.len() < 10_000, "more documents than one search gives");
        hits.into_iter()
            .map(|mut hit| {
                let id = hit["_id"].as_str().unwrap().parse().unwrap();
                let seq_no = hit["_seq_no"].as_u64().unwrap();
                (id, Stored { source: hit["_source"].take(), seq_no })
            })
            .collect()
    }

    /// The names of the indices under the prefix.
    pub fn indices(&self) -> Vec<String> {
        let (_, answer) = self.request("GET", &format!("/{}*", self.prefix), None);
        answer.as_object().map(|indices| indices.keys().cloned().collect()).unwrap_or_default()
    }

    fn delete_all(&self) {
        for index in self.indices() {
            self.request("DELETE", &format!("/{index}"), None);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.delete_all();
        }
    }
}
