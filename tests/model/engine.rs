//! The engine and the way to it.

use super::rules::{Rule, Rules};
use super::state::{Held, Process, Request, State, Task};

/// What the engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `Outcome::Acknowledged`.
    Acknowledged,
    /// `Outcome::Conflict`.
    Conflict { engine_version: u8 },
    /// `Outcome::AliasGone`.
    AliasGone,
}

/// A request arrives while its sender waits for the answer: `version_type=external_gte`,
/// `require_alias=true`.
pub fn send(state: &mut State, sender: Process, request: Request, rules: Rules) -> Answer {
    if rules.has(Rule::Alias) && !sender.alias_is_ours {
        return Answer::AliasGone;
    }
    arrive(state, request)
}

/// A request arrives at the index.
fn arrive(state: &mut State, request: Request) -> Answer {
    if request.version < state.held.version {
        return Answer::Conflict { engine_version: state.held.version };
    }
    state.held = Held { doc: request.doc, version: request.version };
    Answer::Acknowledged
}

/// A late request arrives. Those whose alias is gone were taken away with it.
pub fn arrive_late(state: &mut State, place: usize) {
    if let Some(request) = state.late[place].take() {
        arrive(state, request);
    }
    sort(state);
}

/// A request goes on its way, and nobody waits for its answer.
pub fn leave_under_way(state: &mut State, request: Request) {
    if let Some(place) = state.late.iter_mut().find(|place| place.is_none()) {
        *place = Some(request);
    }
    sort(state);
}

/// The order says nothing; the places that are taken come first.
fn sort(state: &mut State) {
    state.late.sort_unstable_by(|a, b| b.cmp(a));
}

/// A restart: the versions of deleted documents are forgotten.
pub fn restart(state: &mut State) {
    if state.held.doc.is_none() {
        state.held.version = 0;
    }
}

/// All private aliases are removed, and what is under way through them is refused from now on.
pub fn remove_aliases(state: &mut State, rules: Rules) {
    if !rules.has(Rule::Alias) {
        return;
    }
    state.late = [None; 2];
    for process in &mut state.processes {
        process.alias_is_ours = false;
    }
}

/// The index is removed and a new one made in its place. Who was about to give the old one an alias
/// fails.
pub fn replace_index(state: &mut State, rules: Rules) {
    remove_aliases(state, rules);
    state.held = Held { doc: None, version: 0 };
    state.by_hand = false;
    for (place, process) in state.processes.iter_mut().enumerate() {
        if process.task == Task::Elected {
            *process = Process::new(if place == 0 { Task::Dead } else { Task::Down });
        }
    }
}
