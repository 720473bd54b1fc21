//! What the engine takes at best: the same documents, rendered beforehand, and nothing else to do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::engine::{BODY, Connection};
use crate::support::engine::Engine;

/// Documents as bodies of bulk requests, and the index that they go into.
pub struct Ceiling {
    bodies: Vec<Vec<u8>>,
    documents: usize,
    /// Of an index that is searched.
    definition: Value,
    alias: String,
}

/// What an index has while it is loaded and not searched yet, as in a full load of the program.
const LOADING: [(&str, &str); 2] = [("refresh_interval", "-1"), ("number_of_replicas", "0")];

impl Ceiling {
    /// Takes the documents from the index behind our alias.
    pub fn new(engine: &Engine) -> Self {
        let connection = Connection::new(engine);
        let bodies = connection.bulk_bodies(&engine.alias());
        let lines = bodies.iter().flatten().filter(|byte| **byte == b'\n').count();
        Self {
            bodies,
            documents: lines / 2,
            definition: connection.definition(&engine.alias()),
            alias: format!("{}ceiling", engine.prefix),
        }
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Bytes of a document, with its line of metadata.
    pub fn document_bytes(&self) -> f64 {
        self.bodies.iter().map(Vec::len).sum::<usize>() as f64 / self.documents as f64
    }

    /// Sends so many documents, in whole bodies, into a fresh index by so many connections. Returns documents
    /// a second.
    pub fn measure(&self, engine: &Engine, connections: usize, documents: usize) -> f64 {
        let mut definition = self.definition.clone();
        for (name, value) in LOADING {
            definition["settings"]["index"][name] = value.into();
        }
        let bodies = &self.bodies[..documents.div_ceil(BODY)];
        self.in_index(engine, definition, || self.send_all(engine, connections, bodies))
    }

    /// Sends so many documents, in whole bodies, into an index that is searched and has all documents already.
    /// Returns documents a second.
    pub fn measure_again(&self, engine: &Engine, connections: usize, documents: usize) -> f64 {
        let bodies = &self.bodies[..documents.div_ceil(BODY)];
        self.in_index(engine, self.definition.clone(), || {
            self.send_all(engine, connections, &self.bodies);
            Connection::new(engine).send("POST", &format!("/{}/_refresh", self.alias), &[]);
            self.send_all(engine, connections, bodies)
        })
    }

    fn in_index(&self, engine: &Engine, mut definition: Value, send: impl FnOnce() -> f64) -> f64 {
        let connection = Connection::new(engine);
        let index = format!("{}_index", self.alias);
        definition["aliases"] = json!({ &self.alias: {} });
        connection.send("PUT", &format!("/{index}"), definition.to_string().as_bytes());
        let rate = send();
        connection.send("DELETE", &format!("/{index}"), &[]);
        rate
    }

    /// Returns documents a second.
    fn send_all(&self, engine: &Engine, connections: usize, bodies: &[Vec<u8>]) -> f64 {
        let started = Instant::now();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| self.send(bodies, &Connection::new(engine), &next));
            }
        });
        let documents = (bodies.len() * BODY).min(self.documents);
        documents as f64 / started.elapsed().as_secs_f64()
    }

    /// Sends what no other connection has taken.
    fn send(&self, bodies: &[Vec<u8>], connection: &Connection, next: &AtomicUsize) {
        // The same request as the program's, so that the answer costs the same, too.
        let path = format!(
            "/{}/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason",
            self.alias
        );
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = connection.send("POST", &path, body);
            assert_eq!(answer["errors"], false, "the engine refuses documents that it had");
        }
    }
}
