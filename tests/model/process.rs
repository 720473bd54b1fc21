//! A process `etl start`, one statement or request at a time. It may be killed between any two.
//!
//! The kinds of work of a step may be done in any order, which is more than `sync::step` does. That
//! a process believes that it leads is worth nothing here: both do.

use super::database::{self, is_pending, passes_fence};
use super::engine::{self, Answer};
use super::rebuild;
use super::rules::{Rule, Rules};
use super::state::{AsRead, Film, Request, State, Target, Time};
use super::step::Step;
use super::task::{Lane, Process, Task};

impl Step {
    /// Does it.
    pub fn take(self, state: &mut State, who: usize, rules: Rules) {
        let process = state.processes[who];
        let task = match (self, process.task) {
            (Self::MoveEpoch, _) => return begin(state, who, rules),
            (step, _) if step.is_of_rebuild() => match rebuild::take(step, state, who, rules) {
                Some(task) => task,
                None => return end(state, who),
            },
            (Self::ReplaceAlias, _) => return replace_aliases(state, who, rules),
            (Self::Die, _) => return end(state, who),
            (Self::HandOut, task) => {
                let Some(lane) = Lane::of(task) else { unreachable!("handed out at {task:?}") };
                state.processes[who].open[lane as usize] = Some(task);
                Task::Idle
            }
            (Self::SendOpen(lane) | Self::SendOpenLate(lane), _) => {
                return self.send_open(state, who, lane, rules);
            }
            (Self::TakeAnswer(lane), _) => match state.processes[who].open[lane as usize].take() {
                Some(answered) => answered,
                None => unreachable!("nothing was answered"),
            },
            (Self::Send | Self::SendTwice, _) => return self.send(state, who, rules),
            (Self::SendLate, task) => {
                let request = request(state, task, Self::target(process), rules);
                engine::leave_under_way(state, request);
                return end(state, who);
            }
            (Self::LoadRelations, Task::FillRead { .. }) => rebuild::build(state, process.task),
            (Self::LoadFilm | Self::TakeNumber | Self::LoadRelations, _) => {
                self.read(state, process, rules)
            }
            (step, _) if step.is_fenced() && !passes_fence(process, rules) => Task::Idle,
            (step, task) => step.write(state, task, rules),
        };
        state.processes[who].task = task;
    }

    /// A request is sent and answered. One that is for both indices counts when both have answered.
    fn send(self, state: &mut State, who: usize, rules: Rules) {
        let process = state.processes[who];
        let request = request(state, process.task, Self::target(process), rules);
        let answer = engine::send(state, process, request, rules);
        if self == Self::SendTwice && answer != Answer::AliasGone {
            engine::leave_under_way(state, request);
        }
        let to_both = is_for_both(process, request, rules);
        let live_answer = &mut state.processes[who].live_answer;
        match with_both(live_answer, answer, to_both) {
            None => {}
            Some(Answer::AliasGone) => end(state, who),
            Some(answer) => state.processes[who].task = answered(process.task, answer),
        }
    }

    /// A request that was handed out is sent and answered while the process does other things.
    fn send_open(self, state: &mut State, who: usize, lane: Lane, rules: Rules) {
        let process = state.processes[who];
        let Some(open) = process.open[lane as usize] else { unreachable!("no request is open") };
        let request = request(state, open, Self::open_target(process, lane), rules);
        if self == Self::SendOpenLate(lane) {
            engine::leave_under_way(state, request);
            return end(state, who);
        }
        let answer = engine::send(state, process, request, rules);
        let to_both = is_for_both(process, request, rules);
        // Nothing but documents goes to the live index.
        let live_answer = match lane {
            Lane::Document => &mut state.processes[who].open_live_answer,
            Lane::Fill => &mut None,
        };
        match with_both(live_answer, answer, to_both) {
            None => {}
            Some(Answer::AliasGone) => end(state, who),
            Some(answer) => state.processes[who].open[lane as usize] = Some(answered(open, answer)),
        }
    }

    /// A statement of `sync::page::load_page` that reads.
    fn read(self, state: &mut State, process: Process, rules: Rules) -> Task {
        let task = process.task;
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
                let is_to_send =
                    |film: &Film| is_pending(*film, rules) && !process.is_on_its_way(*film);
                let Some(film) = state.film.filter(is_to_send) else { return Task::Idle };
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

/// A term begins.
fn begin(state: &mut State, who: usize, rules: Rules) {
    if state.rebuild.is_none() || rules.has(Rule::EpochAtRebuild) {
        database::move_epoch(state);
    }
    state.processes[who] = Process { epoch_is_ours: true, ..Process::new(Task::Begun) };
}

/// Both indices get the alias of the term in one request, which fails if either is gone.
fn replace_aliases(state: &mut State, who: usize, rules: Rules) {
    let knows_new = state.processes[who].filling.is_some();
    if knows_new && state.new.is_none() {
        return end(state, who);
    }
    engine::remove_aliases(state, Target::Live, rules);
    // An index that was filled has those of the time when it was the new one.
    if knows_new || state.live_is_new {
        engine::remove_aliases(state, Target::New, rules);
    }
    let process = &mut state.processes[who];
    (process.alias_is_ours, process.new_alias_is_ours) = (true, knows_new);
    process.task = Task::Idle;
}

/// A process ends, or its term does. The old leader does not come back.
fn end(state: &mut State, who: usize) {
    state.processes[who] = Process::new(if who == 0 { Task::Dead } else { Task::Down });
}

/// The live index has been asked, and the new one is to be, too.
fn is_for_both(process: Process, request: Request, rules: Rules) -> bool {
    let has_new = process.filling.is_some() && rules.has(Rule::BothAcknowledge);
    has_new && request.to == Target::Live
}

/// What has become of an operation; `None`: the new index is still to be asked.
fn with_both(live: &mut Option<Answer>, answer: Answer, to_both: bool) -> Option<Answer> {
    if to_both {
        *live = Some(answer);
        return None;
    }
    Some(live.take().map_or(answer, |live| rebuild::both(live, answer)))
}

/// The request that a process is about to send.
fn request(state: &State, task: Task, to: Target, rules: Rules) -> Request {
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
        (Task::FillBuilt { .. }, Answer::Conflict { engine_version }) => {
            Task::FillRefused(engine_version)
        }
        (task, answer) => unreachable!("{answer:?} at {task:?}"),
    }
}
