//! What stands between the program and PostgreSQL, and breaks connections on demand.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A forwarder on a port of its own, in front of the server of one URL.
pub struct Forwarder {
    address: SocketAddr,
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Host and port.
    server: String,
    state: Mutex<State>,
}

struct State {
    line: Line,
    /// Both ends of every connection, to be cut.
    ends: Vec<TcpStream>,
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It is forwarded.
    Open,
    /// It is kept, and so is the end of a connection.
    Silent,
    /// Every connection is closed.
    Cut,
    /// The forwarder has ended.
    Gone,
}

impl Forwarder {
    /// Starts a forwarder in front of the server of this database.
    pub fn new(database_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("a bound port");
        let (before, host, after) = split_url(database_url);
        let server = if host.contains(':') { host.to_owned() } else { format!("{host}:5432") };
        let state = Mutex::new(State { line: Line::Open, ends: Vec::new() });
        let shared = Arc::new(Shared { server, state });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.state.lock().unwrap().line == Line::Gone {
                    return;
                }
                if let Ok(server) = TcpStream::connect(&accepting.server) {
                    accepting.join(&client, &server);
                }
            }
        });
        Self { address, url: format!("{before}{address}{after}"), shared }
    }

    /// The URL of the database by way of this forwarder.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes all connections, and every new one at once.
    pub fn cut(&self) {
        self.shared.set(Line::Cut);
    }

    /// Forwards nothing any more, and closes nothing: what a host that went away silently looks like.
    pub fn silence(&self) {
        self.shared.set(Line::Silent);
    }

    /// Forwards again, also what has come in a silence.
    pub fn mend(&self) {
        self.shared.set(Line::Open);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.set(Line::Gone);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn set(&self, line: Line) {
        let mut state = self.state.lock().unwrap();
        state.line = line;
        if matches!(line, Line::Cut | Line::Gone) {
            for end in state.ends.drain(..) {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Forwards both ways, each in a thread of its own, unless all is cut.
    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let ends = || [client, server].map(|end| end.try_clone().expect("another handle"));
        let mut state = self.state.lock().unwrap();
        if matches!(state.line, Line::Cut | Line::Gone) {
            return;
        }
        state.ends.extend(ends());
        let [client, server] = ends();
        let [to_client, to_server] = ends();
        for (from, to) in [(client, to_server), (server, to_client)] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.copy(from, to));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16_384];
        loop {
            // An error is an end, too.
            let count = from.read(&mut buffer).unwrap_or(0);
            while self.state.lock().unwrap().line == Line::Silent {
                thread::sleep(Duration::from_millis(10));
            }
            if count == 0 || to.write_all(&buffer[..count]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// Splits `postgres://user@host:port/database` into what is before, in and behind `host:port`.
fn split_url(url: &str) -> (&str, &str, &str) {
    let start = url.find("://").expect("DATABASE_URL is a URL") + 3;
    let end = url[start..].find(['/', '?']).map_or(url.len(), |end| start + end);
    let start = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    (&url[..start], &url[start..end], &url[end..])
}
