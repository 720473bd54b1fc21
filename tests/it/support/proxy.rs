//! What stands between the program and the real engine, and breaks things on demand.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What happens to a bulk request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: it goes through.
    Pass,
    /// The connection ends before the engine sees the request.
    DropRequest,
    /// The engine carries it out, and the connection ends before the answer.
    DropAnswer,
    /// The engine carries it out, and the answer ends in its middle.
    CutAnswer,
    /// The proxy answers with this status itself.
    Status(u16),
    /// There is never an answer.
    Hang,
    /// The engine sees the request only when [`Proxy::release`] is called.
    HoldRequest,
    /// The engine carries it out at once, and the answer comes only when [`Proxy::release`] is called.
    HoldAnswer,
    /// The engine carries it out at once, and the answer comes so much later.
    SlowAnswer(Duration),
    /// The engine carries it out, and the answer has an item too few.
    TooFewItems,
    /// The engine carries it out, and the answer is not JSON.
    NotJson,
    /// The engine never sees every second operation, from the first on: it is answered with this
    /// status and this type of error. The others pass.
    HalfOfItems(u16, &'static str),
    /// The same for every document. Deletions pass.
    Documents(u16, &'static str),
}

/// A proxy on a port of its own, in front of one engine.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// What happens to the next bulk requests, one each; afterwards they pass.
    faults: Mutex<VecDeque<Fault>>,
    /// What happens to the next of those that go to one of these indices.
    faults_at: Mutex<(Vec<String>, VecDeque<Fault>)>,
    /// While false, every connection is closed at once.
    is_up: AtomicBool,
    /// A larger body is refused.
    bytes_max: AtomicUsize,
    bulk_requests: AtomicUsize,
    /// The last bulk requests as they came, also those that the engine never saw.
    recorded: Mutex<VecDeque<Vec<u8>>>,
    /// What is done to every bulk request on its way to the engine.
    rewrite: Mutex<Option<Rewrite>>,
    /// Held while a bulk request is recorded and its fault drawn.
    order: Mutex<()>,
    /// Requests and answers are not held any more.
    released: AtomicBool,
    ended: AtomicBool,
}

/// Makes another request of a request, head and body.
pub type Rewrite = fn(&[u8]) -> Vec<u8>;

/// How many bulk requests are kept, to arrive once more.
const RECORDED_MAX: usize = 500;

impl Proxy {
    /// Starts a proxy in front of the engine at this URL.
    pub fn new(engine_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("a bound port");
        let upstream =
            engine_url.strip_prefix("http://").expect("an engine without TLS").to_owned();
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            faults_at: Mutex::default(),
            is_up: AtomicBool::new(true),
            bytes_max: AtomicUsize::new(usize::MAX),
            bulk_requests: AtomicUsize::new(0),
            recorded: Mutex::default(),
            rewrite: Mutex::default(),
            order: Mutex::default(),
            released: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { url: format!("http://{address}"), shared }
    }

    /// Sets what happens to the next bulk requests.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.shared.faults.lock().unwrap() = faults.into_iter().collect();
    }

    /// Sets what happens to the next bulk requests to one of these indices. The others pass meanwhile, or
    /// what else is planned happens to them.
    #[allow(dead_code, reason = "for the torture test")]
    pub fn plan_at(&self, indices: &[String], faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().collect();
        *self.shared.faults_at.lock().unwrap() = (indices.to_vec(), faults);
    }

    /// Whether all has happened that was planned for some indices.
    #[allow(dead_code, reason = "for the torture test")]
    pub fn has_broken_all_at(&self) -> bool {
        self.shared.faults_at.lock().unwrap().1.is_empty()
    }

    /// Lets the engine be there, or be away.
    pub fn set_up(&self, is_up: bool) {
        self.shared.is_up.store(is_up, Ordering::SeqCst);
    }

    /// Refuses every larger body, and closes the connection while it is still being sent, as some
    /// servers do.
    #[allow(dead_code, reason = "the torture test has small documents")]
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.shared.bytes_max.store(bytes_max, Ordering::SeqCst);
    }

    /// How many bulk requests have come so far.
    pub fn bulk_requests(&self) -> usize {
        self.shared.bulk_requests.load(Ordering::SeqCst)
    }

    /// Sets what is done to every bulk request on its way to the engine, before anything of a fault.
    pub fn rewrite(&self, rewrite: Rewrite) {
        *self.shared.rewrite.lock().unwrap() = Some(rewrite);
    }

    /// Lets the requests and answers go on that are held.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// The bulk requests of the past that are kept, the oldest first; also those that the engine never
    /// saw.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.recorded.lock().unwrap().iter().cloned().collect()
    }

    /// Forgets the bulk requests of the past.
    pub fn forget_recorded(&self) {
        self.shared.recorded.lock().unwrap().clear();
    }

    /// Lets a bulk request of the past arrive at the engine once more, or late if it was dropped.
    /// Returns the engine's answer, head and body, if there is one.
    pub fn deliver(&self, request: &[u8]) -> Option<String> {
        let answer = self.shared.forward(request).ok().filter(|answer| !answer.is_empty())?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shared {
    /// Serves one request and ends the connection, as the engine is asked to do, too.
    fn serve(&self, mut client: TcpStream) {
        if !self.is_up.load(Ordering::SeqCst) {
            return;
        }
        let Some(request) = read_head(&mut client) else { return };
        if self.refuses(&mut client, &request) {
            return;
        }
        let Some(request) = read_body(&mut client, request) else { return };
        let is_bulk = request.windows(6).take(300).any(|word| word == b"/_bulk");
        let answer = if is_bulk {
            let rewrite = *self.rewrite.lock().unwrap();
            let rewritten = rewrite.map_or(request.clone(), |rewrite| rewrite(&request));
            let fault = {
                // The first fault is that of the first one recorded.
                let _alone = self.order.lock().unwrap();
                self.bulk_requests.fetch_add(1, Ordering::SeqCst);
                self.record(&request);
                self.next_fault(&rewritten)
            };
            self.answer(&rewritten, fault)
        } else {
            self.forward(&request).unwrap_or_default()
        };
        let _ = client.write_all(&answer);
        let _ = client.shutdown(Shutdown::Both);
    }

    /// What happens to a bulk request.
    fn next_fault(&self, request: &[u8]) -> Fault {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let (indices, faults_at) = &mut *self.faults_at.lock().unwrap();
        let is_at = |index: &String| line.windows(index.len()).any(|part| part == index.as_bytes());
        let fault = if indices.iter().any(is_at) { faults_at.pop_front() } else { None };
        fault.or_else(|| self.faults.lock().unwrap().pop_front()).unwrap_or(Fault::Pass)
    }

    /// Returns true if the request is too large. A client that asks before it sends the body is told so; the
    /// connection of any other ends before it could read an answer.
    fn refuses(&self, client: &mut TcpStream, request: &[u8]) -> bool {
        let head = head_of(request).expect("a head");
        if content_length(&head) <= self.bytes_max.load(Ordering::SeqCst) {
            return false;
        }
        self.bulk_requests.fetch_add(1, Ordering::SeqCst);
        if head.contains("expect: 100-continue") {
            let _ = client.write_all(&answer_of(413, ""));
        }
        true
    }

    /// Breaks one bulk request. Returns what is answered: nothing, where the connection is to end.
    fn answer(&self, request: &[u8], fault: Fault) -> Vec<u8> {
        let forward = |request: &[u8]| self.forward(request).unwrap_or_default();
        match fault {
            Fault::DropRequest => Vec::new(),
            Fault::Status(status) => answer_of(status, "{}"),
            Fault::Hang => {
                self.wait_for(&self.ended);
                Vec::new()
            }
            Fault::HoldRequest => {
                self.wait_for(&self.released);
                forward(request)
            }
            Fault::HoldAnswer => {
                let answer = forward(request);
                self.wait_for(&self.released);
                answer
            }
            Fault::Pass => forward(request),
            Fault::DropAnswer => {
                forward(request);
                Vec::new()
            }
            Fault::CutAnswer => {
                let mut answer = forward(request);
                answer.truncate(answer.len() / 2);
                answer
            }
            Fault::SlowAnswer(time) => {
                let answer = forward(request);
                thread::sleep(time);
                answer
            }
            Fault::NotJson => {
                forward(request);
                answer_of(200, "{\"errors\": false, \"items\": [")
            }
            Fault::TooFewItems => change_items(&forward(request), |items| {
                items.pop();
            }),
            Fault::HalfOfItems(status, kind) => {
                self.refuse(request, status, kind, |place, _| place % 2 == 0)
            }
            Fault::Documents(status, kind) => {
                self.refuse(request, status, kind, |_, action| action == "index")
            }
        }
    }

    /// Waits until this is true, or the proxy has ended.
    fn wait_for(&self, condition: &AtomicBool) {
        while !condition.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Keeps some operations from the engine, and puts the refusals between its answers.
    fn refuse(
        &self,
        request: &[u8],
        status: u16,
        kind: &str,
        is_refused: impl Fn(usize, &str) -> bool,
    ) -> Vec<u8> {
        let (head, operations) = split_operations(request);
        let refusal = json!({ "status": status, "error": { "type": kind, "reason": "because" } });
        let mut refused = Vec::new();
        let mut passed = Vec::new();
        for (place, operation) in operations.iter().enumerate() {
            let action = if operation.starts_with(b"{\"delete\"") { "delete" } else { "index" };
            if is_refused(place, action) {
                refused.push((place, action));
            } else {
                passed.extend_from_slice(operation);
            }
        }
        let answer = if passed.is_empty() {
            answer_of(200, "{\"errors\": true, \"items\": []}")
        } else {
            self.forward(&with_body(&head, &passed)).unwrap_or_default()
        };
        change_items(&answer, |items| {
            for (place, action) in refused {
                items.insert(place, json!({ action: refusal.clone() }));
            }
        })
    }

    fn record(&self, request: &[u8]) {
        let mut recorded = self.recorded.lock().unwrap();
        if recorded.len() == RECORDED_MAX {
            recorded.pop_front();
        }
        recorded.push_back(request.to_owned());
    }

    fn forward(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut engine = TcpStream::connect(&self.upstream)?;
        // The first line, then a header that lets us read to the end.
        let line = request.windows(2).position(|word| word == b"\r\n").expect("a first line") + 2;
        engine.write_all(&request[..line])?;
        engine.write_all(b"connection: close\r\n")?;
        engine.write_all(&request[line..])?;
        let mut answer = Vec::new();
        engine.read_to_end(&mut answer)?;
        // The engine does not say that the connection ends, and it would be used once more.
        if let Some(line) = answer.windows(2).position(|word| word == b"\r\n") {
            answer.splice(line..line, *b"\r\nconnection: close");
        }
        Ok(answer)
    }
}

/// Reads the head of one request, and what comes with it.
fn read_head(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while head_of(&request).is_none() {
        read_more(client, &mut request)?;
    }
    Some(request)
}

/// Reads the rest of a request.
fn read_body(client: &mut TcpStream, mut request: Vec<u8>) -> Option<Vec<u8>> {
    let head = head_of(&request)?;
    let length = head.len() + content_length(&head);
    // A POST without a body comes as one of no chunks, whose end may come late.
    let is_chunked = head.contains("transfer-encoding: chunked");
    while request.len() < length || (is_chunked && !request.ends_with(b"0\r\n\r\n")) {
        read_more(client, &mut request)?;
    }
    Some(request)
}

fn read_more(client: &mut TcpStream, request: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16_384];
    let count = client.read(&mut buffer).ok().filter(|count| *count > 0)?;
    request.extend_from_slice(&buffer[..count]);
    Some(())
}

/// The head of a request, if it is all there, in small letters.
fn head_of(request: &[u8]) -> Option<String> {
    let end = request.windows(4).position(|word| word == b"\r\n\r\n")? + 4;
    Some(String::from_utf8_lossy(&request[..end]).to_ascii_lowercase())
}

fn content_length(head: &str) -> usize {
    let value = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Splits a bulk request into its head and its operations, each with its document.
pub fn split_operations(request: &[u8]) -> (String, Vec<Vec<u8>>) {
    let end = request.windows(4).position(|word| word == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(request[..end].to_owned()).expect("a head of text");
    let mut lines = request[end..].split_inclusive(|byte| *byte == b'\n');
    let mut operations = Vec::new();
    while let Some(action) = lines.next() {
        let mut operation = action.to_owned();
        if !action.starts_with(b"{\"delete\"") {
            operation.extend(lines.next().unwrap_or_default());
        }
        operations.push(operation);
    }
    (head, operations)
}

/// Puts another body behind the head of a request.
pub fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    let is_length = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
    let lines = head.trim_end().split("\r\n").filter(|line| !is_length(line));
    let head: Vec<&str> = lines.collect();
    let head = format!("{}\r\ncontent-length: {}\r\n\r\n", head.join("\r\n"), body.len());
    [head.as_bytes(), body].concat()
}

/// Changes the items of an answer with status 200; another one is left as it is.
fn change_items(answer: &[u8], change: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
    let body = body_of(answer).and_then(|body| serde_json::from_slice::<Value>(&body).ok());
    match body {
        Some(mut body) if body["items"].is_array() => {
            change(body["items"].as_array_mut().expect("items"));
            answer_of(200, &body.to_string())
        }
        _ => answer.to_owned(),
    }
}

/// The body of an answer, which some engines send in chunks.
fn body_of(answer: &[u8]) -> Option<Vec<u8>> {
    let end = answer.windows(4).position(|word| word == b"\r\n\r\n")? + 4;
    let (head, mut rest) = answer.split_at(end);
    if !String::from_utf8_lossy(head).to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Some(rest.to_owned());
    }
    let mut body = Vec::new();
    loop {
        let start = rest.windows(2).position(|word| word == b"\r\n")? + 2;
        let size = std::str::from_utf8(&rest[..start - 2]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(start..start + size)?);
        rest = rest.get(start + size + 2..)?;
    }
}

fn answer_of(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Because\r\ncontent-length: {length}\r\nconnection: close");
    format!("{head}\r\ncontent-type: application/json\r\n\r\n{body}").into_bytes()
}
