//! What PostgreSQL, the engine, the network and the processes hold. Times are small numbers.

use super::task::{Process, Task};

/// A point in time, and a version.
pub type Time = u8;

/// When the model begins.
pub const START: Time = 50;
/// How far the clock goes on from one transaction of a writer to the next. Touches in between take
/// the next number, so this is more than there are.
pub const TICK: Time = 10;
/// What the clock shows after it has stepped back: less than anything before.
pub const LONG_AGO: Time = 5;
/// How far in the future a `modified` may be.
pub const FUTURE: Time = 100;
/// Without [`super::rules::Rule::FillHasRowVersion`]: the version of all documents of a fill, more than any time.
pub const MAXIMUM: Time = 200;
/// The version that somebody writes by hand.
pub const BY_HAND: Time = 220;

/// The document: a title, and the name of the person if one is linked.
pub type Doc = (u8, Option<u8>);

/// The row of `film_work`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Film {
    pub title: u8,
    pub modified: Time,
    pub touched_at: Time,
    pub indexed_at: Option<Time>,
}

/// The row of `person`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Person {
    pub name: u8,
    /// `fanned_out_at` is not NULL.
    pub fanned_out: bool,
}

/// An entry of the outbox: the film was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tombstone {
    pub entry_id: u8,
    pub version: Time,
}

/// The outbox. Entries that ask for the same are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Outbox {
    /// The film is to be touched.
    pub touch: bool,
    /// The films of the person are to be touched.
    pub fan_out: bool,
    pub tombstone: Option<Tombstone>,
}

/// What the index holds under the id of the film: a document or none, and of which version. The
/// version of a deleted document is kept; 0 if there never was one or if it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    pub doc: Option<Doc>,
    pub version: Time,
}

/// The new index of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewIndex {
    pub held: Held,
    /// `etl.rebuild` knows it by the UUID that it has.
    pub is_noted: bool,
}

/// Which index a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Live,
    /// The index of the rebuild, also when it has taken the place of the live one.
    New,
}

/// How far a rebuild has come: `postgres::rebuild::Phase`. None is left when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Requested,
    /// With one film there is one page, which was noted or not.
    Filling {
        is_filled: bool,
    },
    Switching,
    Cancelled,
}

/// One operation of a bulk request, under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub to: Target,
    /// `None`: a delete.
    pub doc: Option<Doc>,
    pub version: Time,
}

/// How far `etl init-es` has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reset {
    NotBegun,
    Unbound,
    NewIndex,
    OutboxForgotten,
    PersonsFannedOut,
    FilmsPending,
    Bound,
}

/// What a stamp is compared with: `stamp::AsRead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AsRead {
    pub touched_at: Time,
    pub modified: Time,
}

/// Everything.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that has happened")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub film: Option<Film>,
    /// The version of the last deletion, for an insert that waited for it.
    pub deleted_at: Option<Time>,
    pub person: Person,
    pub linked: bool,
    /// A writer holds the film for some while: our statements skip it.
    pub film_is_locked: bool,
    pub outbox: Outbox,
    pub clock: Time,
    /// The last number given to a batch; unused with all rules.
    pub batches: u8,
    pub reset: Reset,
    /// What people search.
    pub held: Held,
    pub new: Option<NewIndex>,
    /// The rebuild that was asked for.
    pub rebuild: Option<Phase>,
    pub asked: bool,
    /// The index of the rebuild has taken the place of the live one …
    pub live_is_new: bool,
    /// … and the state is bound to the former one still.
    pub is_switched: bool,
    /// The state is bound to an index that is not the one that people search: `Error::IndexLost`.
    pub is_lost: bool,
    /// The document was overwritten by hand, and the film not written since.
    pub by_hand: bool,
    pub late: [Option<Request>; 2],
    /// The old leader, and the one that is started again and again.
    pub processes: [Process; 2],
    /// Transactions that writers have committed.
    pub writes: u8,
    pub clock_stepped: bool,
    pub wrote_by_hand: bool,
}

impl State {
    /// The document that PostgreSQL gives.
    pub fn document(&self) -> Option<Doc> {
        self.film.map(|film| (film.title, self.linked.then_some(self.person.name)))
    }

    /// The state is bound to an index: `State::binding`.
    pub fn is_bound(&self) -> bool {
        matches!(self.reset, Reset::NotBegun | Reset::Bound)
    }

    /// A term can begin: `binding::check_state`.
    pub fn is_usable(&self) -> bool {
        self.is_bound() && !self.is_lost
    }

    /// A film, a person, a link, and an index that holds the document or is still empty.
    pub fn first(is_indexed: bool) -> Self {
        let (modified, touched_at) = (START, START);
        let indexed_at = is_indexed.then_some(START);
        let doc = is_indexed.then_some((0, Some(0)));
        Self {
            film: Some(Film { title: 0, modified, touched_at, indexed_at }),
            deleted_at: None,
            person: Person { name: 0, fanned_out: true },
            linked: true,
            film_is_locked: false,
            outbox: Outbox::default(),
            clock: START,
            batches: 0,
            reset: Reset::NotBegun,
            held: Held { doc, version: if is_indexed { START } else { 0 } },
            new: None,
            rebuild: None,
            asked: false,
            live_is_new: false,
            is_switched: false,
            is_lost: false,
            by_hand: false,
            late: [None; 2],
            processes: [Process::new(Task::Down); 2],
            writes: 0,
            clock_stepped: false,
            wrote_by_hand: false,
        }
    }
}
