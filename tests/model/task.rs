//! Where a process is, and what it knows.

use super::engine::Answer;
use super::state::{AsRead, Film, Request, Time, Tombstone};

/// Where a process is, between two statements or requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Never comes back.
    Dead,
    /// Not leading, or not running.
    Down,
    /// A rebuild was read that is only requested.
    Asked,
    /// The new index was made; it is still there, or somebody has made it again.
    Made { is_there: bool },
    /// A term has begun: the epoch was moved, and it was not looked yet whether there is a rebuild.
    Begun,
    /// A rebuild was read, or noted, that takes the place of the live index.
    Switching,
    /// The aliases were switched.
    Switched,
    /// It was looked for a rebuild, the alias was not replaced yet.
    Elected,
    /// Leading, or so it believes. Between two kinds of work.
    Idle,
    /// Without [`super::rules::Rule::NotedWithStamp`]: stamped, and not in the outbox yet.
    PersonStamped,
    /// Without [`super::rules::Rule::RowVersion`]: a number was taken, and nothing read yet.
    Numbered(Time),
    /// Without [`super::rules::Rule::FilmFirst`]: what belongs to the film was read.
    RelationsRead { version: Option<Time>, person: Option<u8> },
    /// The row of the film was read, and not yet what belongs to it.
    FilmRead { version: Time, read: AsRead, title: u8 },
    /// A document was built.
    Built { request: Request, read: AsRead },
    /// The engine has acknowledged it.
    Acknowledged(AsRead),
    /// The engine holds a higher version, this one.
    Refused(Time),
    /// A tombstone was read, when there was no film.
    Burying(Tombstone),
    /// A tombstone was read, when the film was back.
    Reviving(Tombstone),
    /// The engine has acknowledged the delete.
    Buried(Tombstone),
    /// The engine holds a higher version than the delete had.
    BurialRefused(Tombstone, Time),
    /// The row of the film was read for the new index alone, and not yet what belongs to it.
    FillRead { version: Time, title: u8 },
    /// A document was built for the new index alone. Without [`super::rules::Rule::FillNotedLast`] the
    /// page is noted as filled before it is sent.
    FillBuilt { request: Request, is_noted: bool },
    /// The new index holds a higher version, this one.
    FillRefused(Time),
    /// The new index has answered, and what it refused was touched.
    FillAnswered,
}

/// A process `etl start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub task: Task,
    /// The epoch is still the one of its term. What is old never becomes current again, so that no
    /// numbers are needed.
    pub epoch_is_ours: bool,
    /// The alias of its term for the live index still exists.
    pub alias_is_ours: bool,
    /// And the one for the new index.
    pub new_alias_is_ours: bool,
    /// Its term knows of a new index: `session::Kept::filling`. Whether it is filled.
    pub filling: Option<bool>,
    /// For each [`Lane`] the document that was handed out, or what was answered: `Session::open`.
    pub open: [Option<Task>; 2],
    /// What the live index has answered, while the new one is still to be asked.
    pub live_answer: Option<Answer>,
    /// The same for the document that was handed out.
    pub open_live_answer: Option<Answer>,
}

/// What a request that was handed out is: `sending::Lane`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// [`Task::Built`], for the live index, and the new one if there is one: `Lane::Backlog`, `Lane::Fresh`.
    Document,
    /// [`Task::FillBuilt`], for the new index alone.
    Fill,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Document, Self::Fill];

    /// Returns what a process may hand out at this point.
    pub fn of(task: Task) -> Option<Self> {
        match task {
            Task::Built { .. } => Some(Self::Document),
            Task::FillBuilt { .. } => Some(Self::Fill),
            _ => None,
        }
    }
}

impl Process {
    /// A request was handed out and not answered yet.
    pub fn is_waiting(&self, lane: Lane) -> bool {
        self.open[lane as usize].is_some_and(|task| Lane::of(task).is_some())
    }

    /// The film as it was read for a document that is on its way. It is not read again as it is.
    pub fn is_on_its_way(&self, film: Film) -> bool {
        let is_same =
            |read: AsRead| (read.touched_at, read.modified) == (film.touched_at, film.modified);
        matches!(
            self.open[Lane::Document as usize],
            Some(Task::Built { read, .. } | Task::Acknowledged(read)) if is_same(read)
        )
    }

    pub fn new(task: Task) -> Self {
        Self {
            task,
            epoch_is_ours: false,
            alias_is_ours: false,
            new_alias_is_ours: false,
            filling: None,
            open: [None; 2],
            live_answer: None,
            open_live_answer: None,
        }
    }
}
