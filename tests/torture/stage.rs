//! What all threads share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use postgres::{Client, NoTls};

use crate::children::Children;
use crate::history::History;
use crate::relay::Relay;
use crate::support::proxy::{Fault, Proxy};
use crate::support::world::World;

/// What is broken between two checks. Some faults are seen only where no other one comes in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Anything.
    Anything,
    /// Requests arrive late, in the term in which they were sent.
    LateRequests,
    /// One fault of those that are seen only where nothing comes after.
    Once,
    /// New indices are made beside the live ones, and nobody takes an index away.
    Rebuilds,
    /// A server is restarted, once, in runs that are long enough.
    Restart,
    /// Nothing more: it is time for a check.
    Nothing,
}

/// Which moods come when.
pub struct Moods {
    is_long: bool,
    left: Vec<Mood>,
    count: usize,
}

impl Moods {
    /// None has come yet.
    pub fn new(is_long: bool) -> Self {
        Self { is_long, left: Vec::new(), count: 0 }
    }

    /// Draws the next one. The first four are different ones, and so are they among each fourteen, or sixteen.
    pub fn next(&mut self, rng: &mut Rng) -> Mood {
        if self.left.is_empty() {
            let mut others = vec![Mood::Anything, Mood::Rebuilds];
            others.extend([Mood::Once; 8]);
            if self.is_long {
                others.extend([Mood::Restart; 2]);
            }
            let mut each = [Mood::Anything, Mood::Rebuilds, Mood::Once, Mood::LateRequests];
            rng.shuffle(&mut others);
            rng.shuffle(&mut each);
            self.left = [&others[..], &each].concat();
        }
        self.count += 1;
        self.left.pop().expect("some moods")
    }

    /// Whether each has come.
    pub fn has_had_each(&self) -> bool {
        self.count >= 4
    }
}

/// What all threads share.
pub struct Stage {
    /// Held for reading by whoever changes or breaks something, for writing during a check.
    pub gate: RwLock<()>,
    pub ended: AtomicBool,
    /// A server was restarted since the last check.
    pub restarted: AtomicBool,
    pub history: History,
    pub database_url: String,
    pub prefix: String,
    pub engine_url: String,
    /// What is broken in the present segment.
    mood: Mutex<Mood>,
    /// What was seen to be wrong between two checks.
    failure: Mutex<Option<String>>,
    /// Held by whoever lets a request of the past arrive, and as long as none may.
    pub replays: Mutex<()>,
    /// In front of the engine, one for each of the processes.
    pub proxies: [Proxy; 2],
    /// In front of PostgreSQL, the same.
    pub relays: [Relay; 2],
    pub children: Arc<Children>,
    /// Whether the run is long enough for servers to be restarted.
    pub is_long: bool,
}

impl Stage {
    /// Nothing runs yet.
    pub fn new(world: &World, is_long: bool) -> Self {
        let proxies = [(); 2].map(|()| Proxy::new(&world.engine.url));
        let urls = [0, 1].map(|slot: usize| proxies[slot].url.clone());
        let relays = [(); 2].map(|()| Relay::new(&world.database.url()));
        let database_urls = [0, 1].map(|slot: usize| relays[slot].url.clone());
        let children = Children::new(database_urls, world.engine.prefix.clone(), urls);
        Self {
            gate: RwLock::new(()),
            ended: AtomicBool::new(false),
            restarted: AtomicBool::new(false),
            mood: Mutex::new(Mood::Anything),
            failure: Mutex::default(),
            history: History::new(),
            database_url: world.database.url(),
            prefix: world.engine.prefix.clone(),
            engine_url: world.engine.url.clone(),
            children: Arc::new(children),
            replays: Mutex::new(()),
            proxies,
            relays,
            is_long,
        }
    }

    /// Whether the threads are to end.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// What is broken in the present segment.
    pub fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    /// Sets what is broken from now on. `Nothing` asks for a check.
    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Notes that something is wrong, and asks for a check.
    pub fn fail(&self, failure: String) {
        self.failure.lock().unwrap().get_or_insert(failure);
        self.set_mood(Mood::Nothing);
    }

    /// Returns what was seen to be wrong.
    pub fn failure(&self) -> Result<(), String> {
        self.failure.lock().unwrap().take().map_or(Ok(()), Err)
    }

    /// Ends all faults.
    pub fn calm(&self) {
        self.plan(&[]);
        self.plan_at(&[], &[]);
        self.set_up(true);
        self.relays.iter().for_each(Relay::release);
        self.children.signal(&[0, 1], "-CONT");
        self.children.revive(&self.history);
    }

    /// Sets what happens to the next bulk requests of each process.
    pub fn plan(&self, faults: &[Fault]) {
        for proxy in &self.proxies {
            proxy.plan(faults.iter().copied());
        }
    }

    /// Sets what happens to the next bulk requests of each process to one of these indices.
    pub fn plan_at(&self, indices: &[String], faults: &[Fault]) {
        for proxy in &self.proxies {
            proxy.plan_at(indices, faults.iter().copied());
        }
    }

    /// Lets the engine be there for the processes, or be away.
    pub fn set_up(&self, is_up: bool) {
        for proxy in &self.proxies {
            proxy.set_up(is_up);
        }
    }

    /// How many bulk requests the processes have sent so far.
    pub fn bulk_requests(&self) -> usize {
        self.proxies.iter().map(Proxy::bulk_requests).sum()
    }

    /// A connection, as soon as there can be one. None once the threads are to end.
    pub fn connect(&self) -> Option<Client> {
        while !self.has_ended() {
            match Client::connect(&self.database_url, NoTls) {
                Ok(client) => return Some(client),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        None
    }

    /// Pauses for a random time up to this many milliseconds.
    pub fn pause(&self, rng: &mut Rng, from: u64, to: u64) {
        if !self.has_ended() {
            thread::sleep(Duration::from_millis(rng.u64(from..to)));
        }
    }
}

/// Ends the threads, also when the check panics.
pub struct EndOnDrop<'a>(pub &'a Stage);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        // Whatever is broken may keep them from ending.
        self.0.calm();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Not when the children are dropped: the thread that waits for signals keeps them.
        self.children.end();
    }
}
