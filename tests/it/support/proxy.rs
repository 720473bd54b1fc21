//! What stands between the program and the real engine, and breaks things on demand.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

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
    /// The engine carries it out at once, and the answer comes so much later.
    #[allow(dead_code, reason = "for the torture test")]
    SlowAnswer(Duration),
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
    /// While false, every connection is closed at once.
    is_up: AtomicBool,
    bulk_requests: AtomicUsize,
    /// The last bulk requests as they came, also those that the engine never saw.
    recorded: Mutex<VecDeque<Vec<u8>>>,
    ended: AtomicBool,
}

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
            is_up: AtomicBool::new(true),
            bulk_requests: AtomicUsize::new(0),
            recorded: Mutex::default(),
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

    /// Lets the engine be there, or be away.
    pub fn set_up(&self, is_up: bool) {
        self.shared.is_up.store(is_up, Ordering::SeqCst);
    }

    /// How many bulk requests have come so far.
    pub fn bulk_requests(&self) -> usize {
        self.shared.bulk_requests.load(Ordering::SeqCst)
    }

    /// How many bulk requests of the past are kept.
    #[allow(dead_code, reason = "for the torture test")]
    pub fn recorded(&self) -> usize {
        self.shared.recorded.lock().unwrap().len()
    }

    /// Lets a bulk request of the past arrive at the engine once more, or late if it was dropped.
    /// The last one is 0. Returns whether the engine has answered it.
    #[allow(dead_code, reason = "for the torture test")]
    pub fn replay(&self, age: usize) -> bool {
        let request = self.shared.recorded.lock().unwrap().iter().rev().nth(age).cloned();
        request.is_some_and(|request| {
            self.shared.forward(&request).is_ok_and(|answer| !answer.is_empty())
        })
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
        let Some(request) = read_request(&mut client) else { return };
        let is_bulk = request.windows(6).take(300).any(|word| word == b"/_bulk");
        let fault = if is_bulk {
            self.bulk_requests.fetch_add(1, Ordering::SeqCst);
            self.record(&request);
            self.faults.lock().unwrap().pop_front().unwrap_or(Fault::Pass)
        } else {
            Fault::Pass
        };
        match fault {
            Fault::DropRequest => (),
            Fault::Status(status) => {
                let answer = format!(
                    "HTTP/1.1 {status} Because\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
                );
                let _ = client.write_all(answer.as_bytes());
            }
            Fault::Hang => {
                while !self.ended.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(50));
                }
            }
            Fault::Pass | Fault::DropAnswer | Fault::CutAnswer | Fault::SlowAnswer(_) => {
                let answer = self.forward(&request).unwrap_or_default();
                if let Fault::SlowAnswer(time) = fault {
                    thread::sleep(time);
                }
                let kept = match fault {
                    Fault::DropAnswer => 0,
                    Fault::CutAnswer => answer.len() / 2,
                    _ => answer.len(),
                };
                let _ = client.write_all(&answer[..kept]);
            }
        }
        let _ = client.shutdown(Shutdown::Both);
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
        Ok(answer)
    }
}

/// Reads head and body of one request.
fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        if let Some(head) = request.windows(4).position(|word| word == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let body = text.split("content-length: ").nth(1).map_or(0, |rest| {
                rest.lines().next().and_then(|line| line.trim().parse().ok()).unwrap_or(0)
            });
            if request.len() >= head + 4 + body {
                return Some(request);
            }
        }
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}
