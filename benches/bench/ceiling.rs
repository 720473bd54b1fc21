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
    definition: Value,
    alias: String,
}

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
        let bodies = &self.bodies[..documents.div_ceil(BODY)];
        let connection = Connection::new(engine);
        let index = format!("{}_index", self.alias);
        let mut definition = self.definition.clone();
        definition["aliases"] = json!({ &self.alias: {} });
        connection.send("PUT", &format!("/{index}"), definition.to_string().as_bytes());
        let started = Instant::now();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| self.send(bodies, &Connection::new(engine), &next));
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        connection.send("DELETE", &format!("/{index}"), &[]);
        (bodies.len() * BODY).min(self.documents) as f64 / seconds
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
