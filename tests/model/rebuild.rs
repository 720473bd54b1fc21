//! What a process does for `etl rebuild`: `sync::rebuild`.

use super::database;
use super::engine::{self, Answer};
use super::process::Step;
use super::rules::{Rule, Rules};
use super::state::{AsRead, MAXIMUM, Phase, Process, Request, State, Target, Task};

/// What a process that is down begins with: `sync::rebuild::prepare`, then the term.
pub fn first_step(state: &State) -> Step {
    match state.rebuild {
        Some(Phase::Requested) => Step::MakeNew,
        Some(Phase::Filling { .. }) if state.new.is_none_or(|new| !new.is_noted) => Step::GiveUp,
        Some(Phase::Switching) => Step::LoadSwitching,
        Some(Phase::Cancelled) => Step::RemoveNew,
        Some(Phase::Filling { .. }) | None => Step::MoveEpoch,
    }
}

/// What `sync::rebuild::advance` begins with.
pub fn advance(state: &State, process: Process, steps: &mut Vec<Step>) {
    match process.filling {
        Some(false) if state.film.is_some() => steps.push(Step::LoadFill),
        Some(_) => steps.push(Step::BeginSwitching),
        None => {}
    }
}

/// Does a step of the preparation or of the switch. Returns the task after it; `None`: it is down again,
/// and the next step is that of another term.
pub fn take(step: Step, state: &mut State, task: Task, rules: Rules) -> Option<Task> {
    match (step, task) {
        (Step::LoadRequested, _) => Some(Task::Asked),
        (Step::MakeNew, _) => {
            engine::make_new(state, rules);
            Some(Task::Made { is_there: true })
        }
        (Step::BeginFilling, Task::Made { is_there }) => {
            database::begin_filling(state, is_there);
            Some(Task::Prepared)
        }
        (Step::GiveUp, _) => {
            database::give_up(state);
            engine::remove_new(state, rules);
            None
        }
        (Step::RemoveNew, _) => {
            engine::remove_new(state, rules);
            state.rebuild = None;
            None
        }
        (Step::LoadSwitching, _) => Some(Task::Switching),
        (Step::SwitchAliases, _) => match state.new {
            Some(new) if state.is_bound() => {
                engine::switch(state, new, rules);
                Some(Task::Switched)
            }
            None if state.live_is_new => Some(Task::Switched),
            // Ended by `etl init-es`.
            _ => None,
        },
        (Step::FinishSwitching, _) => {
            database::finish_switching(state);
            None
        }
        (step, task) => unreachable!("{step:?} at {task:?}"),
    }
}

/// What a term knows of a new index: `Filling` of the program. `None`: it does not begin, as the state
/// has moved since it was prepared.
pub fn find_filling(state: &State, task: Task) -> Option<Option<bool>> {
    match (state.rebuild, task) {
        (Some(Phase::Filling { is_filled }), _) => Some(Some(is_filled)),
        (None, Task::Down) => Some(None),
        _ => None,
    }
}

/// A page of the fill is read: the row first, as everywhere.
pub fn load_fill(state: &State, rules: Rules) -> Task {
    let Some(film) = state.film else { return Task::Idle };
    let read = AsRead { touched_at: film.touched_at, modified: film.modified };
    let version = if rules.has(Rule::FillHasRowVersion) { film.touched_at } else { MAXIMUM };
    Task::FillRead { read, version, title: film.title }
}

/// What belongs to the film is read.
pub fn build(state: &State, task: Task) -> Task {
    let Task::FillRead { read, version, title } = task else { unreachable!("built at {task:?}") };
    let person = state.linked.then_some(state.person.name);
    let request = Request { to: Target::New, doc: Some((title, person)), version };
    Task::FillBuilt { request, read, is_noted: false }
}

/// A statement of the fill that is fenced, or touches. Returns the task after it, and whether the page
/// was noted. `None`: the term is over.
pub fn write(step: Step, state: &mut State, task: Task, rules: Rules) -> Option<Task> {
    match (step, task) {
        (Step::TouchUnchanged, Task::FillRefused(read, past)) => {
            database::touch_unchanged(state, read, past, rules);
            Some(Task::FillAnswered)
        }
        (Step::SaveFilled, Task::FillBuilt { request, read, .. }) => {
            let is_noted = true;
            database::save_filled(state).then_some(Task::FillBuilt { request, read, is_noted })
        }
        (Step::SaveFilled, _) => database::save_filled(state).then_some(Task::Idle),
        (Step::BeginSwitching, _) => database::begin_switching(state).then_some(Task::Switching),
        (step, task) => unreachable!("{step:?} at {task:?}"),
    }
}

/// What has become of an operation that both indices were to carry out: `Outcome::and`.
pub fn both(live: Answer, new: Answer) -> Answer {
    match (live, new) {
        (Answer::Conflict { engine_version: one }, Answer::Conflict { engine_version: other }) => {
            Answer::Conflict { engine_version: one.max(other) }
        }
        (Answer::Acknowledged, other) | (_, other @ Answer::AliasGone) => other,
        (one, _) => one,
    }
}
