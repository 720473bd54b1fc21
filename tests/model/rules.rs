//! The rules of the protocol, each with a switch, and the bounds of what is explored.

/// A rule of the protocol. Without it, the model must find a way to miss something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A stamp is written only on a row that is still as it was read: `etl.lock_as_read`.
    CompareAndSet,
    /// The version of a document is the row's own `touched_at`, and no number of the ETL's:
    /// `AsRead::version`.
    RowVersion,
    /// The row of a film is read before what belongs to it: `sync::page::load_page`.
    FilmFirst,
    /// Link changes and deletions leave a trace: `etl.on_link_change`, `etl.on_row_delete`.
    Outbox,
    /// Every write of a row is a touch: `etl.on_row_change`, `etl.on_related_change`.
    RowTrigger,
    /// A touch moves `touched_at` of a row that is pending, too: `etl.touch_rows`.
    TouchMoves,
    /// A touch sets `indexed_at` to NULL, and no times are compared: `pending::PENDING`.
    TouchNulls,
    /// A changed person is put into the outbox in the statement that stamps it: `etl.note_fan_outs`.
    NotedWithStamp,
    /// A refused document is touched past the engine's version: `sync::batch::settle`.
    ConflictTouches,
    /// A refused delete goes again past the engine's version: `outbox::raise_tombstone`.
    DeleteConflictRaises,
    /// A film that is back is touched past its tombstone: `outbox::revive`.
    ReviveTouches,
    /// A delete has the version of the deletion, not of the sending: `etl.on_row_delete`.
    TombstoneVersion,
    /// An entry stays whose film is locked by somebody else: `drain_touches.sql`.
    LockedIsThere,
    /// Stamping and forgetting are fenced by the epoch: `etl.lock_as_read`, `outbox::forget`.
    Epoch,
    /// Requests go through an alias of the term alone: `binding::replace_write_aliases`.
    Alias,
    /// While there is a new index, stamping and forgetting need its answer, too: `Session::send`.
    BothAcknowledge,
    /// The epoch moves when a rebuild is asked for, and when a term begins that knows of the new index:
    /// `rebuild::request`, `Session::begin`.
    EpochAtRebuild,
    /// A page is noted as filled after the new index has acknowledged it: `sync::rebuild::advance`.
    FillNotedLast,
    /// The documents of a fill have the versions of their rows: `sync::page::load_page`.
    FillHasRowVersion,
    /// What the new index refuses of a fill is touched past its version: `stamp::touch_behind`.
    FillConflictTouches,
    /// A tombstone waits for a document of the same film that is on its way: `sync::deletions::bury`.
    DeleteWaits,
    /// It waits for one of a fill, too.
    DeleteWaitsForFill,
}

/// The rules that are kept.
#[derive(Debug, Clone, Copy)]
pub struct Rules(u32);

impl Rules {
    pub const ALL: Self = Self(u32::MAX);

    pub fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u32))
    }

    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u32) != 0
    }
}

/// What is explored, and no more.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that may happen")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Transactions that writers commit.
    pub writes: u8,
    /// Among them deletions of the film.
    pub deletes: bool,
    /// Requests that are under way without anybody waiting for their answer.
    pub late: usize,
    /// There is an old leader beside the one that is started again and again.
    pub rival: bool,
    /// The engine restarts and forgets deletes, as often as it likes.
    pub restarts: bool,
    /// `etl init-es` runs once, to its end or not.
    pub reset: bool,
    /// The clock steps back once.
    pub clock_step: bool,
    /// Writers hold the film for as long as they like.
    pub locks: bool,
    /// Somebody overwrites the document once, with a far higher version.
    pub by_hand: bool,
    /// Requests that were answered arrive once more.
    pub duplicates: bool,
    /// Edits bring a `modified` in the past or the future, too.
    pub odd_modified: bool,
    /// `etl rebuild` asks for a new index once.
    pub rebuild: bool,
    /// `etl rebuild --cancel` may drop it.
    pub cancel: bool,
    /// Somebody writes to the new index once, with a far higher version, before it is filled.
    pub new_by_hand: bool,
    /// Two processes may be at the making of the new index at once.
    pub two_makers: bool,
    /// A process goes on while a request of its own is open.
    pub senders: bool,
    /// How far touches of the ETL may bring a film past the clock, and how many numbers it may take.
    /// Without some rules there is no end of either.
    pub runaway: u8,
}
