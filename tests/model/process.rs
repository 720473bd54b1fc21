//! A process `etl start`, one statement or request at a time. It may be killed between any two.
//!
//! The kinds of work of a step may be done in any order, which is more than `sync::step` does. That
//! a process believes that it leads is worth nothing here: both do.

use super::database::{self, is_pending, passes_fence};
use super::engine::{self, Answer};
use super::rebuild;
use super::rules::{Rule, Rules};
use super::state::{AsRead, Process, Request, State, Target, Task, Time};

/// What a process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `state::move_epoch`, in `Session::begin`.
    MoveEpoch,
    /// `binding::replace_write_aliases`, in `Session::begin`.
    ReplaceAlias,
    /// `etl.note_fan_outs`, in `sync::touches::touch_for_a_while`.
    NoteFanOuts,
    /// Without [`Rule::NotedWithStamp`]: the other half.
    NoteLater,
    /// `etl.expand_fan_outs`, in `sync::touches::touch_for_a_while`.
    ExpandFanOuts,
    /// `outbox::drain_touches`, in `sync::touches::touch_chunk`.
    DrainTouches,
    /// `film_work::load_films`, in `sync::page::load_page`.
    LoadFilm,
    /// Without [`Rule::RowVersion`]: a number is taken before anything is read.
    TakeNumber,
    /// `related::load_credits`, in `sync::page::load_page`.
    LoadRelations,
    /// `Session::send`, in `sync::batch::send_and_settle`, `sync::deletions::bury` and
    /// `sync::rebuild::advance`, to one index. The answer comes
    /// back.
    Send,
    /// The same; the answer is lost, and the request late. The term is over.
    SendLate,
    /// The same; the answer comes back, and the request will arrive once more.
    SendTwice,
    /// `etl.stamp_rows`, in `sync::batch::settle`.
    Stamp,
    /// `stamp::touch`, in `sync::batch::settle`.
    TouchPastConflict,
    /// `outbox::load_tombstones`, in `sync::deletions::bury`.
    LoadTombstones,
    /// `outbox::revive`, in `sync::deletions::bury`.
    Revive,
    /// `outbox::forget`, in `sync::deletions::bury`.
    Forget,
    /// `outbox::raise_tombstone`, in `sync::deletions::bury`.
    RaiseTombstone,
    /// `rebuild::load_rebuild`, in `sync::rebuild::prepare`, which finds it requested.
    LoadRequested,
    /// `Elasticsearch::delete_index` and `new_index::create`, in `sync::rebuild::make`.
    MakeNew,
    /// `rebuild::begin_filling`, in `sync::rebuild::make`.
    BeginFilling,
    /// `sync::rebuild::give_up`, in `sync::rebuild::prepare`.
    GiveUp,
    /// `Elasticsearch::delete_index` and `rebuild::forget_rebuild`, in `sync::rebuild::prepare`.
    RemoveNew,
    /// `film_work::load_films`, in `sync::page::load_page`, for `sync::rebuild::advance`.
    LoadFill,
    /// `stamp::touch_unchanged`, in `sync::rebuild::advance`.
    TouchUnchanged,
    /// `rebuild::save_filled`, in `sync::rebuild::advance`.
    SaveFilled,
    /// `rebuild::begin_switching`, in `sync::rebuild::finish`.
    BeginSwitching,
    /// `rebuild::load_rebuild`, in `sync::rebuild::prepare`, which finds a switch that was begun.
    LoadSwitching,
    /// `Elasticsearch::update_aliases`, in `sync::rebuild::finish_switch`.
    SwitchAliases,
    /// `rebuild::finish_switching`, in `sync::rebuild::finish_switch`.
    FinishSwitching,
    /// Killed, or ended by an error. Where it was is lost.
    Die,
}

impl Step {
    /// All that a process can do now, in the order of `sync::step`; first of all what it would do if
    /// nothing went wrong.
    pub fn possible(state: &State, process: Process, rules: Rules, steps: &mut Vec<Self>) {
        match process.task {
            Task::Down if state.is_usable() => steps.push(rebuild::first_step(state)),
            Task::Asked => steps.push(Self::MakeNew),
            Task::Made { .. } => steps.push(Self::BeginFilling),
            Task::Prepared => steps.push(Self::MoveEpoch),
            Task::Switching => steps.push(Self::SwitchAliases),
            Task::Switched => steps.push(Self::FinishSwitching),
            Task::Down | Task::Dead => {}
            Task::Elected => steps.push(Self::ReplaceAlias),
            Task::Idle => Self::from_idle(state, process, rules, steps),
            Task::PersonStamped => steps.push(Self::NoteLater),
            Task::Numbered(_) | Task::RelationsRead { .. } if rules.has(Rule::FilmFirst) => {
                steps.push(Self::LoadFilm);
            }
            Task::Numbered(_) | Task::FilmRead { .. } => steps.push(Self::LoadRelations),
            Task::RelationsRead { .. } => steps.push(Self::LoadFilm),
            Task::FillRead { .. } => steps.push(Self::LoadRelations),
            Task::FillBuilt { is_noted: false, .. } if !rules.has(Rule::FillNotedLast) => {
                steps.push(Self::SaveFilled);
            }
            Task::Built { .. } | Task::Burying(_) | Task::FillBuilt { .. } => {
                steps.push(Self::Send);
            }
            Task::FillRefused(..) => steps.push(Self::TouchUnchanged),
            Task::FillAnswered => steps.push(Self::SaveFilled),
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
        rebuild::advance(state, process, steps);
    }

    /// Its statement does nothing when the epoch has moved.
    fn is_fenced(self) -> bool {
        use Step::{
            BeginSwitching, DrainTouches, ExpandFanOuts, Forget, Revive, SaveFilled, Stamp,
        };
        matches!(
            self,
            ExpandFanOuts | DrainTouches | Stamp | Revive | Forget | SaveFilled | BeginSwitching
        )
    }

    /// Does it.
    pub fn take(self, state: &mut State, who: usize, rules: Rules) {
        let process = state.processes[who];
        let task = match (self, process.task) {
            (Self::MoveEpoch, _) => return begin(state, who, rules),
            (Self::ReplaceAlias, _) => {
                let knows_new = process.filling.is_some();
                if knows_new && state.new.is_none() {
                    return end(state, who);
                }
                engine::remove_aliases(state, Target::Live, rules);
                state.processes[who].alias_is_ours = true;
                if knows_new || state.live_is_new {
                    engine::remove_aliases(state, Target::New, rules);
                    state.processes[who].new_alias_is_ours = knows_new;
                }
                Task::Idle
            }
            (Self::Die, _) => return end(state, who),
            (Self::Send | Self::SendTwice, _) => return self.send(state, who, rules),
            (Self::SendLate, task) => {
                let request = request(state, process, task, rules);
                engine::leave_under_way(state, request);
                return end(state, who);
            }
            (Self::LoadFill, _) => rebuild::load_fill(state, rules),
            (Self::LoadRelations, Task::FillRead { .. }) => rebuild::build(state, process.task),
            (Self::LoadFilm | Self::TakeNumber | Self::LoadRelations, task) => {
                self.read(state, task, rules)
            }
            (Self::SaveFilled | Self::BeginSwitching, _) if !passes_fence(process, rules) => {
                return end(state, who);
            }
            (step, _) if step.is_fenced() && !passes_fence(process, rules) => Task::Idle,
            (step, task) if step.is_of_fill() => match rebuild::write(step, state, task, rules) {
                Some(task) => {
                    if step == Self::SaveFilled {
                        state.processes[who].filling = Some(true);
                    }
                    task
                }
                None => return end(state, who),
            },
            (step, task) if step.is_of_rebuild() => match rebuild::take(step, state, task, rules) {
                Some(task) => task,
                None => return end(state, who),
            },
            (step, task) => step.write(state, task, rules),
        };
        state.processes[who].task = task;
    }

    fn is_of_fill(self) -> bool {
        matches!(self, Self::TouchUnchanged | Self::SaveFilled | Self::BeginSwitching)
    }

    fn is_of_rebuild(self) -> bool {
        use Step::{
            BeginFilling, FinishSwitching, GiveUp, LoadRequested, LoadSwitching, MakeNew,
            RemoveNew, SwitchAliases,
        };
        let prepares = matches!(self, LoadRequested | MakeNew | BeginFilling | GiveUp | RemoveNew);
        prepares || matches!(self, LoadSwitching | SwitchAliases | FinishSwitching)
    }

    /// Where the next request of a process goes to: to the live index, then to the new one.
    pub fn target(process: Process) -> Target {
        let is_fill = matches!(process.task, Task::FillBuilt { .. });
        if is_fill || process.live_answer.is_some() { Target::New } else { Target::Live }
    }

    /// A request is sent and answered. One that is for both indices counts when both have answered.
    fn send(self, state: &mut State, who: usize, rules: Rules) {
        let process = state.processes[who];
        let request = request(state, process, process.task, rules);
        let answer = engine::send(state, process, request, rules);
        if self == Self::SendTwice && answer != Answer::AliasGone {
            engine::leave_under_way(state, request);
        }
        let has_new = process.filling.is_some() && rules.has(Rule::BothAcknowledge);
        let answer = match process.live_answer {
            Some(live) => rebuild::both(live, answer),
            None if has_new && request.to == Target::Live => {
                state.processes[who].live_answer = Some(answer);
                return;
            }
            None => answer,
        };
        state.processes[who].live_answer = None;
        match answer {
            Answer::AliasGone => end(state, who),
            answer => state.processes[who].task = answered(process.task, answer),
        }
    }

    /// A statement of `sync::page::load_page` that reads.
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
                let request = Request { to: Target::Live, doc: Some((title, person)), version };
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
                        let request =
                            Request { to: Target::Live, doc: Some((film.title, person)), version };
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
    let Some(filling) = rebuild::find_filling(state, state.processes[who].task) else {
        return end(state, who);
    };
    if filling.is_none() || rules.has(Rule::EpochAtRebuild) {
        database::move_epoch(state);
    }
    let task = if rules.has(Rule::Alias) { Task::Elected } else { Task::Idle };
    state.processes[who] = Process { epoch_is_ours: true, filling, ..Process::new(task) };
}

/// A process ends, or its term does. The old leader does not come back.
fn end(state: &mut State, who: usize) {
    state.processes[who] = Process::new(if who == 0 { Task::Dead } else { Task::Down });
}

/// The request that a process is about to send.
fn request(state: &State, process: Process, task: Task, rules: Rules) -> Request {
    let to = Step::target(process);
    match task {
        Task::Built { request, .. } | Task::FillBuilt { request, .. } => Request { to, ..request },
        Task::Burying(tombstone) => {
            let at_sending: Time = state.clock + 1;
            let kept = rules.has(Rule::TombstoneVersion);
            Request { to, doc: None, version: if kept { tombstone.version } else { at_sending } }
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
        (Task::FillBuilt { is_noted: true, .. }, _) => Task::Idle,
        (Task::FillBuilt { .. }, Answer::Acknowledged) => Task::FillAnswered,
        (Task::FillBuilt { read, .. }, Answer::Conflict { engine_version }) => {
            Task::FillRefused(read, engine_version)
        }
        (task, answer) => unreachable!("{answer:?} at {task:?}"),
    }
}
