//! A process `etl start`, one statement or request at a time. It may be killed between any two.
//!
//! The kinds of work of a step may be done in any order, which is more than `sync::step` does. That
//! a process believes that it leads is worth nothing here: both do.

use super::database::{self, is_pending, passes_fence};
use super::engine::{self, Answer};
use super::rules::{Rule, Rules};
use super::state::{AsRead, Process, Request, State, Task, Time};

/// What a process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `state::move_epoch`, in `Session::begin`.
    MoveEpoch,
    /// `session::replace_write_alias`, in `Session::begin`.
    ReplaceAlias,
    /// `etl.note_fan_outs`, in `sync::touches::touch_for_a_while`.
    NoteFanOuts,
    /// Without [`Rule::NotedWithStamp`]: the other half.
    NoteLater,
    /// `etl.expand_fan_outs`, in `sync::touches::touch_for_a_while`.
    ExpandFanOuts,
    /// `outbox::drain_touches`, in `sync::touches::touch_chunk`.
    DrainTouches,
    /// `film_work::load_pending`, in `sync::films::index_batch`.
    LoadFilm,
    /// Without [`Rule::RowVersion`]: a number is taken before anything is read.
    TakeNumber,
    /// `film_work::load_credits`, in `sync::films::build_documents`.
    LoadRelations,
    /// `Session::send`, in `sync::films::send_and_settle` and `sync::outbox::bury`. The answer comes
    /// back.
    Send,
    /// The same; the answer is lost, and the request late. The term is over.
    SendLate,
    /// The same; the answer comes back, and the request will arrive once more.
    SendTwice,
    /// `etl.stamp_film_works`, in `sync::films::settle`.
    Stamp,
    /// `stamp::touch`, in `sync::films::settle`.
    TouchPastConflict,
    /// `outbox::load_tombstones`, in `sync::outbox::bury`.
    LoadTombstones,
    /// `outbox::revive`, in `sync::outbox::bury`.
    Revive,
    /// `outbox::forget`, in `sync::outbox::bury`.
    Forget,
    /// `outbox::raise_tombstone`, in `sync::outbox::bury`.
    RaiseTombstone,
    /// Killed, or ended by an error. Where it was is lost.
    Die,
}

impl Step {
    /// All that a process can do now, in the order of `sync::step`; first of all what it would do if
    /// nothing went wrong.
    pub fn possible(state: &State, process: Process, rules: Rules, steps: &mut Vec<Self>) {
        match process.task {
            Task::Down if state.is_bound() => steps.push(Self::MoveEpoch),
            Task::Down | Task::Dead => {}
            Task::Elected => steps.push(Self::ReplaceAlias),
            Task::Idle => Self::from_idle(state, process, rules, steps),
            Task::PersonStamped => steps.push(Self::NoteLater),
            Task::Numbered(_) | Task::RelationsRead { .. } if rules.has(Rule::FilmFirst) => {
                steps.push(Self::LoadFilm);
            }
            Task::Numbered(_) | Task::FilmRead { .. } => steps.push(Self::LoadRelations),
            Task::RelationsRead { .. } => steps.push(Self::LoadFilm),
            Task::Built { .. } | Task::Burying(_) => steps.push(Self::Send),
            Task::Acknowledged(_) => steps.push(Self::Stamp),
            Task::Refused(_) => steps.push(Self::TouchPastConflict),
            Task::Reviving(_) => steps.push(Self::Revive),
            Task::Buried(_) => steps.push(Self::Forget),
            Task::BurialRefused(..) => steps.push(Self::RaiseTombstone),
        }
    }

    fn from_idle(state: &State, process: Process, rules: Rules, steps: &mut Vec<Self>) {
        let passes = passes_fence(process, rules);
        let mut push = |step, is_possible: bool| steps.extend(is_possible.then_some(step));
        push(Self::NoteFanOuts, !state.person.fanned_out);
        push(Self::ExpandFanOuts, state.outbox.fan_out && passes);
        push(Self::DrainTouches, state.outbox.touch && passes);
        let load = match (rules.has(Rule::RowVersion), rules.has(Rule::FilmFirst)) {
            (false, _) => Self::TakeNumber,
            (true, true) => Self::LoadFilm,
            (true, false) => Self::LoadRelations,
        };
        push(load, state.film.is_some_and(|film| is_pending(film, rules)));
        push(Self::LoadTombstones, state.outbox.tombstone.is_some());
    }

    /// Its statement does nothing when the epoch has moved.
    fn is_fenced(self) -> bool {
        use Step::{DrainTouches, ExpandFanOuts, Forget, Revive, Stamp};
        matches!(self, ExpandFanOuts | DrainTouches | Stamp | Revive | Forget)
    }

    /// Does it.
    pub fn take(self, state: &mut State, who: usize, rules: Rules) {
        let process = state.processes[who];
        let task = match (self, process.task) {
            (Self::MoveEpoch, _) => return begin(state, who, rules),
            (Self::ReplaceAlias, _) => {
                engine::remove_aliases(state, rules);
                state.processes[who].alias_is_ours = true;
                Task::Idle
            }
            (Self::Die, _) => return end(state, who),
            (Self::Send | Self::SendTwice, task) => {
                let request = request(state, task, rules);
                match engine::send(state, process, request, rules) {
                    Answer::AliasGone => return end(state, who),
                    answer => {
                        if self == Self::SendTwice {
                            engine::leave_under_way(state, request);
                        }
                        answered(task, answer)
                    }
                }
            }
            (Self::SendLate, task) => {
                let request = request(state, task, rules);
                engine::leave_under_way(state, request);
                return end(state, who);
            }
            (Self::LoadFilm | Self::TakeNumber | Self::LoadRelations, task) => {
                self.read(state, task, rules)
            }
            (step, _) if step.is_fenced() && !passes_fence(process, rules) => Task::Idle,
            (step, task) => step.write(state, task, rules),
        };
        state.processes[who].task = task;
    }

    /// A statement of `sync::films::index_batch` that reads.
    fn read(self, state: &mut State, task: Task, rules: Rules) -> Task {
        let number = match task {
            Task::Numbered(number) => Some(number),
            Task::RelationsRead { version, .. } => version,
            _ => None,
        };
        let person = state.linked.then_some(state.person.name);
        match (self, task) {
            (Self::TakeNumber, _) => {
                state.batches += 1;
                // More than any time, so that the two can be compared.
                Task::Numbered(170 + state.batches)
            }
            (Self::LoadRelations, Task::FilmRead { version, read, title }) => {
                let request = Request { doc: Some((title, person)), version };
                Task::Built { request, read }
            }
            (Self::LoadRelations, _) => Task::RelationsRead { version: number, person },
            (_, task) => {
                let Some(film) = state.film.filter(|film| is_pending(*film, rules)) else {
                    return Task::Idle;
                };
                let read = AsRead { touched_at: film.touched_at, modified: film.modified };
                let version = number.unwrap_or(film.touched_at);
                match task {
                    Task::RelationsRead { person, .. } => {
                        let request = Request { doc: Some((film.title, person)), version };
                        Task::Built { request, read }
                    }
                    _ => Task::FilmRead { version, read, title: film.title },
                }
            }
        }
    }

    /// A statement that writes.
    fn write(self, state: &mut State, task: Task, rules: Rules) -> Task {
        match (self, task) {
            (Self::NoteFanOuts, _) => {
                database::note_fan_outs(state, rules);
                if !rules.has(Rule::NotedWithStamp) {
                    return Task::PersonStamped;
                }
            }
            (Self::NoteLater, _) => state.outbox.fan_out = true,
            (Self::ExpandFanOuts, _) => database::expand_fan_outs(state),
            (Self::DrainTouches, _) => database::drain_touches(state, rules),
            (Self::Stamp, Task::Acknowledged(read)) => database::stamp(state, read, rules),
            (Self::TouchPastConflict, Task::Refused(version)) => {
                if rules.has(Rule::ConflictTouches) {
                    // If it is locked it is sent again, and refused again.
                    database::touch(state, Some(version), rules);
                }
            }
            (Self::LoadTombstones, _) => {
                let is_back = state.film.is_some();
                return state.outbox.tombstone.map_or(Task::Idle, |tombstone| {
                    if is_back { Task::Reviving(tombstone) } else { Task::Burying(tombstone) }
                });
            }
            (Self::Revive, Task::Reviving(read)) => database::revive(state, read, rules),
            (Self::Forget, Task::Buried(read)) => database::forget(state, read),
            (Self::RaiseTombstone, Task::BurialRefused(read, version)) => {
                if rules.has(Rule::DeleteConflictRaises) {
                    database::raise_tombstone(state, read, version);
                }
            }
            (step, task) => unreachable!("{step:?} at {task:?}"),
        }
        Task::Idle
    }
}

/// A term begins. Where aliases are not replaced, it has begun.
fn begin(state: &mut State, who: usize, rules: Rules) {
    database::move_epoch(state);
    let task = if rules.has(Rule::Alias) { Task::Elected } else { Task::Idle };
    state.processes[who] = Process { epoch_is_ours: true, ..Process::new(task) };
}

/// A process ends, or its term does. The old leader does not come back.
fn end(state: &mut State, who: usize) {
    state.processes[who] = Process::new(if who == 0 { Task::Dead } else { Task::Down });
}

/// The request that a process is about to send.
fn request(state: &State, task: Task, rules: Rules) -> Request {
    match task {
        Task::Built { request, .. } => request,
        Task::Burying(tombstone) => {
            let at_sending: Time = state.clock + 1;
            let kept = rules.has(Rule::TombstoneVersion);
            Request { doc: None, version: if kept { tombstone.version } else { at_sending } }
        }
        task => unreachable!("nothing is sent at {task:?}"),
    }
}

/// What the answer means for the document that was sent: `AnswerItem::into_outcome`.
fn answered(task: Task, answer: Answer) -> Task {
    match (task, answer) {
        (Task::Built { read, .. }, Answer::Acknowledged) => Task::Acknowledged(read),
        (Task::Built { .. }, Answer::Conflict { engine_version }) => Task::Refused(engine_version),
        (Task::Burying(tombstone), Answer::Acknowledged) => Task::Buried(tombstone),
        (Task::Burying(tombstone), Answer::Conflict { engine_version }) => {
            Task::BurialRefused(tombstone, engine_version)
        }
        (task, answer) => unreachable!("{answer:?} at {task:?}"),
    }
}
