//! What stands between a process and PostgreSQL: it holds the process back right before it sends, and
//! lets the session of its lead end without telling it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::statements::{Reading, Session, contains};

/// A relay on a port of its own, in front of PostgreSQL.
pub struct Relay {
    /// The URL of the database, through the relay.
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    upstream: String,
    /// After which reading the next last statement before sending is held back.
    planned: Mutex<Option<Reading>>,
    /// The next statement with this word is held back.
    planned_word: Mutex<Option<&'static str>>,
    is_holding: AtomicBool,
    /// To the server, of the sessions that lead or want to.
    leads: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// Nothing is held back for longer, and no end is kept secret for longer.
const HELD_MAX: Duration = Duration::from_secs(10);

impl Relay {
    /// Starts a relay in front of the server of this URL. Without a host (a socket in a folder) there is
    /// none, and nothing is held back.
    pub fn new(database_url: &str) -> Self {
        let (scheme, rest) = database_url.split_once("://").expect("DATABASE_URL is a URL");
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if host.is_empty() {
            return Self { url: database_url.to_owned(), shared: Arc::default() };
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("a bound port");
        let upstream = if host.contains(':') { host.to_owned() } else { format!("{host}:5432") };
        let shared = Arc::new(Shared { upstream, ..Shared::default() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connect(client);
            }
        });
        let at = if user.is_empty() { "" } else { "@" };
        Self { url: format!("{scheme}://{user}{at}{address}{path}"), shared }
    }

    /// Holds the process back when it has read something of this kind and is about to send it.
    pub fn hold(&self, reading: Reading) {
        *self.shared.planned.lock().unwrap() = Some(reading);
    }

    /// Holds the process back before its next statement that has this word.
    pub fn hold_before(&self, word: &'static str) {
        *self.shared.planned_word.lock().unwrap() = Some(word);
    }

    /// Whether the process is held back.
    pub fn is_holding(&self) -> bool {
        self.shared.is_holding.load(Ordering::SeqCst)
    }

    /// Lets the process go on.
    pub fn release(&self) {
        *self.shared.planned.lock().unwrap() = None;
        *self.shared.planned_word.lock().unwrap() = None;
        self.shared.is_holding.store(false, Ordering::SeqCst);
    }

    /// Ends the session of the lead for the server, and not for the process: as long as it is held back its
    /// signs of life are answered. It could as well be frozen after it has looked whether it leads.
    pub fn cut_lead(&self) {
        for lead in self.shared.leads.lock().unwrap().drain(..) {
            let _ = lead.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.shared.upstream);
    }
}

impl Shared {
    /// Relays one connection in two threads, until either side ends it.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
        let lead = Arc::new(Lead::default());
        let (shared, same) = (Arc::clone(self), Arc::clone(&lead));
        thread::spawn(move || shared.relay_requests(from, to, &same));
        thread::spawn(move || relay_answers(server, client, &lead));
    }

    fn relay_requests(&self, mut client: TcpStream, mut server: TcpStream, lead: &Lead) {
        let mut session = Session::default();
        let mut buffer = [0; 16_384];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let request = &buffer[..count];
            if !lead.is_one() && contains(request, b"etl leader ") {
                lead.is_one.store(true, Ordering::SeqCst);
                self.leads.lock().unwrap().extend(server.try_clone());
            }
            let reading = session.is_about_to_send(request);
            let is_planned = reading.is_some_and(|reading| self.takes(reading));
            if is_planned || self.takes_statement(&session, request) {
                self.wait_for_release();
            }
            if server.write_all(request).is_ok() {
                continue;
            }
            // What comes after the end of a lead goes nowhere.
            if !lead.is_one() {
                break;
            }
            if self.is_holding.load(Ordering::SeqCst) {
                let _ = client.write_all(&lead.last_answer.lock().unwrap());
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    }

    /// Whether this is what is to be held back. Only once.
    fn takes(&self, reading: Reading) -> bool {
        self.planned.lock().unwrap().take_if(|planned| *planned == reading).is_some()
    }

    /// The same for a statement.
    fn takes_statement(&self, session: &Session, message: &[u8]) -> bool {
        let mut planned = self.planned_word.lock().unwrap();
        let text = planned.and_then(|_| session.find_text(message));
        planned.take_if(|word| text.is_some_and(|text| contains(text, word.as_bytes()))).is_some()
    }

    fn wait_for_release(&self) {
        let deadline = Instant::now() + HELD_MAX;
        self.is_holding.store(true, Ordering::SeqCst);
        while self.is_holding.load(Ordering::SeqCst) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        self.is_holding.store(false, Ordering::SeqCst);
    }
}

/// What is known of a session that leads, or wants to.
#[derive(Default)]
struct Lead {
    is_one: AtomicBool,
    /// To a sign of life: it asks for nothing else.
    last_answer: Mutex<Vec<u8>>,
}

impl Lead {
    fn is_one(&self) -> bool {
        self.is_one.load(Ordering::SeqCst)
    }
}

/// That the session of a lead has ended is told late.
fn relay_answers(mut server: TcpStream, mut client: TcpStream, lead: &Lead) {
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        if lead.is_one() {
            buffer[..count].clone_into(&mut lead.last_answer.lock().unwrap());
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    if lead.is_one() {
        thread::sleep(HELD_MAX);
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
