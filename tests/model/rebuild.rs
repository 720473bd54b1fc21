//! What a process does for `etl rebuild`: `sync::rebuild`.

use super::database;
use super::engine::{self, Answer};
use super::rules::{Rule, Rules};
use super::state::{MAXIMUM, Phase, Request, State, Target};
use super::step::Step;
use super::task::{Lane, Process, Task};

/// What a term begins with: `sync::rebuild::prepare`.
pub fn first_step(state: &State) -> Step {
    match state.rebuild {
        Some(Phase::Requested) => Step::MakeNew,
        Some(Phase::Filling { .. }) if state.new.is_none_or(|new| !new.is_noted) => Step::GiveUp,
        Some(Phase::Switching) => Step::LoadSwitching,
        Some(Phase::Cancelled) => Step::RemoveNew,
        Some(Phase::Filling { .. }) | None => Step::LoadFilling,
    }
}

/// What `sync::rebuild::advance` begins with.
pub fn advance(state: &State, process: Process, steps: &mut Vec<Step>) {
    match process.filling {
        // Its page is on its way.
        _ if process.open[Lane::Fill as usize].is_some() => {}
        Some(false) if state.film.is_some() => steps.push(Step::LoadFill),
        Some(_) => steps.push(Step::BeginSwitching),
        None => {}
    }
}

/// Does a step of a rebuild. Returns the task after it; `None`: the process has ended, or its term.
pub fn take(step: Step, state: &mut State, who: usize, rules: Rules) -> Option<Task> {
    let process = state.processes[who];
    if step.is_fenced() && !database::passes_fence(process, rules) {
        return None;
    }
    match (step, process.task) {
        (Step::LoadRequested, _) => Some(Task::Asked),
        // `etl init-es` has unbound the state since: `binding::check_state`.
        (Step::LoadFilling, _) if !state.is_usable() => None,
        (Step::LoadFilling, _) => {
            state.processes[who].filling = find_filling(state);
            Some(if rules.has(Rule::Alias) { Task::Elected } else { Task::Idle })
        }
        // What somebody makes whose term is over gets another name than what is filled, or none.
        (Step::MakeNew, _) if !database::passes_fence(process, rules) => None,
        (Step::MakeNew, _) => {
            engine::make_new(state, rules);
            Some(Task::Made { is_there: true })
        }
        (Step::BeginFilling, Task::Made { is_there }) => {
            database::begin_filling(state, is_there);
            Some(Task::Begun)
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
        (Step::LoadFill, _) => Some(load_fill(state, rules)),
        (Step::TouchBehind, Task::FillRefused(held)) => {
            let is_done = database::touch_behind(state, held, rules);
            // The page is sent once more while a writer holds the row.
            Some(if is_done { Task::FillAnswered } else { Task::Idle })
        }
        (Step::SaveFilled, task) => save_filled(state, who, task),
        (Step::BeginSwitching, _) => database::begin_switching(state).then_some(Task::Switching),
        (Step::LoadSwitching, _) => Some(Task::Switching),
        (Step::SwitchAliases, _) => switch_aliases(state, rules),
        (Step::FinishSwitching, _) => {
            database::finish_switching(state);
            None
        }
        (step, task) => unreachable!("{step:?} at {task:?}"),
    }
}

/// What a term that begins knows of the new index.
fn find_filling(state: &State) -> Option<bool> {
    match state.rebuild {
        Some(Phase::Filling { is_filled }) => Some(is_filled),
        _ => None,
    }
}

/// The row is read first, as everywhere.
fn load_fill(state: &State, rules: Rules) -> Task {
    let Some(film) = state.film else { return Task::Idle };
    let kept = rules.has(Rule::FillHasRowVersion);
    let version = if kept { film.touched_at } else { MAXIMUM };
    Task::FillRead { version, title: film.title }
}

/// What belongs to the film is read.
pub fn build(state: &State, task: Task) -> Task {
    let Task::FillRead { version, title } = task else { unreachable!("built at {task:?}") };
    let person = state.linked.then_some(state.person.name);
    let request = Request { to: Target::New, doc: Some((title, person)), version };
    Task::FillBuilt { request, is_noted: false }
}

fn save_filled(state: &mut State, who: usize, task: Task) -> Option<Task> {
    if !database::save_filled(state) {
        return None;
    }
    state.processes[who].filling = Some(true);
    Some(match task {
        // Too early: it is sent after that.
        Task::FillBuilt { request, .. } => Task::FillBuilt { request, is_noted: true },
        _ => Task::Idle,
    })
}

fn switch_aliases(state: &mut State, rules: Rules) -> Option<Task> {
    match state.new {
        Some(new) if state.is_bound() => {
            engine::switch(state, new, rules);
            Some(Task::Switched)
        }
        // Somebody else has done it.
        None if state.live_is_new => Some(Task::Switched),
        // Ended by `etl init-es`.
        _ => None,
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
