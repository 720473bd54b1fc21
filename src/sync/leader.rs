//! Which process leads: the one that holds an advisory lock, in a session that shows every second
//! that it is alive.
//!
//! The lock elects; it does not protect. A process that was frozen wakes up and believes that it
//! leads, and a request of it may be on its way: against that there are the epoch and the private
//! alias (see [`super::session`]).

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use crate::postgres::lock::{Holder, Lock, find_holder, limit_silence, ping, try_lock};
use crate::postgres::{Connection, DatabaseUrl, Error, connect};

/// The server ends the session, and so gives the lock to others, after this many silent seconds.
const SILENCE_MAX_S: u32 = 4;

/// When the last sign of life is older than this, we no longer count as leader: a second before
/// the server may give the lock to somebody else.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(SILENCE_MAX_S as u64 - 1);

/// How often the session shows that it is alive.
const PING: Duration = Duration::from_secs(1);

/// A session that wants to lead.
pub struct Candidate {
    conn: Connection,
}

impl Candidate {
    /// Connects. The server will end the session when it is silent for more than a few seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if the server is away or refuses us.
    pub fn connect(url: &DatabaseUrl) -> Result<Self, Error> {
        let name = format!("etl leader {}:{}", host(), std::process::id());
        let mut conn = connect(url, &name)?;
        limit_silence(&mut conn, SILENCE_MAX_S)?;
        Ok(Self { conn })
    }

    /// Takes the lead if nobody has it; else tells who has.
    ///
    /// # Errors
    ///
    /// Returns an error if the session has ended.
    pub fn try_lead(mut self) -> Result<Election, Error> {
        let is_won = try_lock(&mut self.conn, Lock::Leader)?;
        let leader = find_holder(&mut self.conn, Lock::Leader)?;
        Ok(match leader {
            Some(Holder { pid, .. }) if is_won => Election::Won(Leadership::hold(self.conn, pid)),
            leader => Election::Lost { candidate: self, leader },
        })
    }

    /// Returns the session, for a look at what the leader has left to do.
    pub fn conn(&mut self) -> &mut Connection {
        &mut self.conn
    }
}

/// How an attempt to lead ended.
pub enum Election {
    /// This process leads.
    Won(Leadership),
    /// Another one does.
    Lost {
        /// The session, for the next attempt.
        candidate: Candidate,
        /// Who leads, if it can be seen.
        leader: Option<Holder>,
    },
}

/// The lead, for as long as the session that holds the lock is alive. Dropping it gives it up.
#[derive(Debug)]
pub struct Leadership {
    /// The server's process of the session that holds the lock.
    pid: i32,
    pulse: Pulse,
    /// Ends the thread when it is dropped.
    _end: Sender<()>,
}

impl Leadership {
    /// Has a thread show every second that the session is alive.
    fn hold(mut conn: Connection, pid: i32) -> Self {
        let pulse = Pulse(Arc::new(Mutex::new(Some(Instant::now()))));
        let (end, ended) = mpsc::channel::<()>();
        let shared = pulse.clone();
        thread::spawn(move || {
            while ended.recv_timeout(PING) == Err(RecvTimeoutError::Timeout) {
                // Taken before the ping: the server has heard of us then or later.
                let asked = Instant::now();
                let answer = ping(&mut conn);
                let alive = answer.is_ok().then_some(asked);
                *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = alive;
                if let Err(err) = answer {
                    debug!("the session of the lead has ended: {}", crate::error::chain(&err));
                    return;
                }
            }
        });
        Self { pid, pulse, _end: end }
    }

    /// Asks the server whether the lock is ours: a session may have ended since its last sign of life.
    ///
    /// # Errors
    ///
    /// Returns an error if the statement fails.
    pub fn is_confirmed(&self, conn: &mut Connection) -> Result<bool, Error> {
        Ok(find_holder(conn, Lock::Leader)?.is_some_and(|holder| holder.pid == self.pid))
    }

    /// Returns whether the lock can still be ours.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.pulse.check().is_ok()
    }

    /// Returns what shows that, for other threads.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

/// When the session that holds the lock last showed that it is alive; nothing once it has ended.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Makes sure that the lock can still be ours.
    pub fn check(&self) -> Result<(), crate::error::Error> {
        let sign_of_life = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match sign_of_life {
            Some(at) if at.elapsed() < SIGN_OF_LIFE_MAX => Ok(()),
            _ => Err(lost_lead()),
        }
    }
}

/// What is said when the lead is lost.
pub(super) fn lost_lead() -> crate::error::Error {
    crate::error::Error::Rival(
        "the lead was lost: the session that held its lock has ended".to_owned(),
    )
}

/// Returns the name of this host, as far as it fits into the name of a session (63 bytes).
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().filter(char::is_ascii).take(40).collect()
}
