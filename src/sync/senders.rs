//! The threads that send bulk requests, while the thread of the steps reads rows and writes stamps.
//!
//! They know nothing of rows or terms: a request goes out through the aliases that it names, for as long as the
//! lead is held, and its answers come back in the order in which the engine gives them. Each request ends, by its
//! timeout at the latest; what nobody waits for any more is dropped.

use std::cell::Cell;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::bulk::{BulkBody, BulkPart, Outcome};
use crate::error::Error;
use crate::sync::leader::Pulse;
use crate::sync::page::Page;
use crate::sync::rate::Rate;

/// How a request goes out.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The private write alias of the index.
    pub alias: String,
    /// How long the answer may take.
    pub timeout: Duration,
    /// The lead under which it is sent.
    pub lead: Pulse,
}

impl Way {
    /// Sends operations. Returns an outcome for each.
    pub fn send(
        &self,
        elasticsearch: &Elasticsearch,
        body: BulkPart<'_>,
    ) -> Result<Vec<Outcome>, Error> {
        // Last, right before sending: a process that was frozen must not send when it wakes up.
        self.lead.check()?;
        Ok(elasticsearch.bulk(&self.alias, body, self.timeout)?)
    }

    /// Sends some operations, in halves if they are too many for the engine. Returns an outcome for each, in the
    /// same order. One that is too large by itself is rejected.
    pub fn send_all(
        &self,
        elasticsearch: &Elasticsearch,
        body: &BulkBody,
        range: Range<usize>,
    ) -> Result<Vec<Outcome>, Error> {
        let part = body.part(range.clone());
        match self.send(elasticsearch, part) {
            Err(Error::Elasticsearch(err)) if err.is_too_large() => (),
            // None of them was carried out, and no other request need suffer for it.
            Err(Error::Elasticsearch(err)) if err.is_busy() => {
                return Ok(vec![Outcome::Busy(err.to_string()); range.len()]);
            }
            result => return result,
        }
        if range.len() == 1 {
            let bytes = part.len();
            return Ok(vec![Outcome::Rejected {
                error_type: "content_too_long".to_owned(),
                reason: format!("the document of {bytes} bytes is larger than the engine takes"),
            }]);
        }
        let middle = range.start + range.len() / 2;
        let mut outcomes = self.send_all(elasticsearch, body, range.start..middle)?;
        outcomes.extend(self.send_all(elasticsearch, body, middle..range.end)?);
        Ok(outcomes)
    }
}

/// Operations that are to be sent.
#[derive(Debug)]
pub(super) struct Request {
    /// One way for each index, see [`send_each_way`].
    pub ways: Vec<Way>,
    /// Where they are.
    pub page: Arc<Page>,
    /// Which of them.
    pub range: Range<usize>,
}

/// What has become of a request, on each of its ways.
pub(super) type Answer = Vec<Result<Vec<Outcome>, Error>>;

/// Threads that send.
#[derive(Debug)]
pub struct Senders {
    elasticsearch: Elasticsearch,
    requests: Sender<(u64, Request)>,
    answers: Receiver<(u64, Answer)>,
    threads: Vec<JoinHandle<()>>,
    last_number: Cell<u64>,
    rate: Rate,
}

impl Senders {
    /// Starts so many threads. They end when this is dropped, and when their requests have.
    #[must_use]
    pub fn start(elasticsearch: &Elasticsearch, count: usize, rate: Rate) -> Self {
        let (requests, to_send) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let to_send = Arc::new(Mutex::new(to_send));
        let start = |_| {
            let (elasticsearch, answered) = (elasticsearch.clone(), answered.clone());
            let to_send = Arc::clone(&to_send);
            thread::spawn(move || send_each(&elasticsearch, &to_send, &answered))
        };
        let threads = (0..count).map(start).collect();
        let (elasticsearch, last_number) = (elasticsearch.clone(), Cell::new(0));
        Self { elasticsearch, requests, answers, threads, last_number, rate }
    }

    /// Returns the engine that they send to, for all other requests.
    pub(super) fn elasticsearch(&self) -> &Elasticsearch {
        &self.elasticsearch
    }

    /// Waits until so many more operations may be sent.
    pub(super) fn wait_for_turn(&self, operations: usize) {
        self.rate.wait(operations);
    }

    /// Hands a request out when it is its turn. Returns a number that its answer will have.
    pub(super) fn hand_out(&self, request: Request) -> u64 {
        self.wait_for_turn(request.range.len());
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        // Without a thread that takes it there is none that answers, either: see `next_answer`.
        let _ = self.requests.send((number, request));
        number
    }

    /// Waits so long for an answer to any request.
    ///
    /// # Panics
    ///
    /// Panics if a thread has: its request would be waited for in vain.
    pub(super) fn next_answer(&self, patience: Duration) -> Option<(u64, Answer)> {
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                assert!(!self.threads.iter().any(JoinHandle::is_finished), "a sender has ended");
                None
            }
        }
    }
}

fn send_each(
    elasticsearch: &Elasticsearch,
    to_send: &Mutex<Receiver<(u64, Request)>>,
    answered: &Sender<(u64, Answer)>,
) {
    loop {
        let next = to_send.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, request)) = next else { return };
        if answered.send((number, request.carry_out(elasticsearch))).is_err() {
            return;
        }
    }
}

impl Request {
    fn carry_out(self, elasticsearch: &Elasticsearch) -> Answer {
        send_each_way(&self.ways, |way| {
            way.send_all(elasticsearch, &self.page.body, self.range.clone())
        })
    }
}

/// Sends by one way after the other, the next one only if this one has answered.
pub(super) fn send_each_way(
    ways: &[Way],
    send: impl Fn(&Way) -> Result<Vec<Outcome>, Error>,
) -> Answer {
    let mut answer = Answer::new();
    for way in ways {
        answer.push(send(way));
        if answer.last().is_some_and(Result::is_err) {
            break;
        }
    }
    answer
}
