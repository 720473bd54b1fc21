//! The engine, by connections that stay open.

use std::time::Duration;

use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::Request;

use crate::support::engine::Engine;

/// Documents of one bulk request.
pub const BODY: usize = 1_000;

/// One connection to the engine.
pub struct Connection {
    agent: Agent,
    url: String,
}

impl Connection {
    /// A connection to this engine.
    pub fn new(engine: &Engine) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(120)));
        Self { agent: config.build().new_agent(), url: engine.url.clone() }
    }

    /// Sends a request that is to succeed.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let (status, text) = self.request(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {text}");
        serde_json::from_str(&text).expect("an answer is JSON")
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Content-Type", "application/json");
        let answer = if body.is_empty() {
            self.agent.run(request.body(()).expect("a request"))
        } else {
            self.agent.run(request.body(body).expect("a request"))
        };
        let mut answer = answer.unwrap_or_else(|err| panic!("{method} {path}: {err}"));
        let text = answer.body_mut().read_to_string().expect("read the answer");
        (answer.status().as_u16(), text)
    }

    /// The title of the document of a film.
    pub fn title(&self, alias: &str, id: &str) -> Option<String> {
        let path = format!("/{alias}/_doc/{id}?_source_includes=title");
        let (status, text) = self.request("GET", &path, &[]);
        let answer: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        Some(answer["_source"]["title"].as_str()?.to_owned())
    }

    /// How many documents have a genre.
    pub fn count_genre(&self, alias: &str, genre: &str) -> u64 {
        self.send("POST", &format!("/{alias}/_refresh"), &[]);
        let query = json!({ "query": { "term": { "genres": genre } } }).to_string();
        let answer = self.send("POST", &format!("/{alias}/_count"), query.as_bytes());
        answer["count"].as_u64().expect("a count")
    }

    /// The settings and mappings of the index behind an alias, for another one.
    pub fn definition(&self, alias: &str) -> Value {
        let answer = self.send("GET", &format!("/{alias}"), &[]);
        let indices = answer.as_object().expect("indices by their names");
        let index = indices.values().next().expect("an index has the alias");
        let mut settings: Map<String, Value> =
            index["settings"]["index"].as_object().expect("settings").clone();
        // What each index has of its own.
        for name in ["uuid", "version", "creation_date", "provided_name"] {
            settings.remove(name);
        }
        json!({ "settings": { "index": settings }, "mappings": index["mappings"] })
    }

    /// All documents behind an alias, as bodies of bulk requests of [`BODY`] each, with their versions.
    pub fn bulk_bodies(&self, alias: &str) -> Vec<Vec<u8>> {
        self.send("POST", &format!("/{alias}/_refresh"), &[]);
        let query = json!({ "size": BODY, "sort": ["_doc"], "version": true }).to_string();
        let path = format!("/{alias}/_search?scroll=2m");
        let mut page = self.send("POST", &path, query.as_bytes());
        let mut bodies = Vec::new();
        loop {
            let hits = page["hits"]["hits"].as_array().expect("hits");
            let next = json!({ "scroll": "2m", "scroll_id": page["_scroll_id"] }).to_string();
            if hits.is_empty() {
                self.send("DELETE", "/_search/scroll", next_id(&page).as_bytes());
                return bodies;
            }
            bodies.push(bulk_body(hits));
            page = self.send("POST", "/_search/scroll", next.as_bytes());
        }
    }
}

fn next_id(page: &Value) -> String {
    json!({ "scroll_id": page["_scroll_id"] }).to_string()
}

fn bulk_body(hits: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    for hit in hits {
        let target = json!({
            "_id": hit["_id"], "version": hit["_version"], "version_type": "external_gte"
        });
        for line in [&json!({ "index": target }), &hit["_source"]] {
            serde_json::to_writer(&mut body, line).expect("write to memory");
            body.push(b'\n');
        }
    }
    body
}
