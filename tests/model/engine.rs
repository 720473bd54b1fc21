//! The engine and the way to it.

use super::rules::{Rule, Rules};
use super::state::{Held, NewIndex, Request, State, Target};
use super::task::{Process, Task};

/// What the engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    if rules.has(Rule::Alias) && !has_alias(sender, request.to) {
        return Answer::AliasGone;
    }
    arrive(state, request)
}

/// The private alias through which a process sends still exists.
pub fn has_alias(sender: Process, to: Target) -> bool {
    match to {
        Target::Live => sender.alias_is_ours,
        Target::New => sender.new_alias_is_ours,
    }
}

/// A request arrives at the index.
fn arrive(state: &mut State, request: Request) -> Answer {
    let held = match (request.to, &mut state.new) {
        (Target::New, Some(new)) => &mut new.held,
        (Target::New, None) if !state.live_is_new => return Answer::AliasGone,
        _ => &mut state.held,
    };
    if request.version < held.version {
        return Answer::Conflict { engine_version: held.version };
    }
    *held = Held { doc: request.doc, version: request.version };
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
    let forget = |held: &mut Held| held.version = held.doc.map_or(0, |_| held.version);
    forget(&mut state.held);
    if let Some(new) = &mut state.new {
        forget(&mut new.held);
    }
}

/// All private aliases of an index are removed, and what is under way through them is refused from now on.
pub fn remove_aliases(state: &mut State, of: Target, rules: Rules) {
    if !rules.has(Rule::Alias) {
        return;
    }
    for late in &mut state.late {
        *late = late.filter(|request| request.to != of);
    }
    sort(state);
    for process in &mut state.processes {
        match of {
            Target::Live => process.alias_is_ours = false,
            Target::New => process.new_alias_is_ours = false,
        }
    }
}

/// A process makes the new index, in place of one that was left.
pub fn make_new(state: &mut State, rules: Rules) {
    remove_new(state, rules);
    state.new = Some(NewIndex { held: Held { doc: None, version: 0 }, is_noted: false });
}

/// The new index is removed, if there is one that is not live.
pub fn remove_new(state: &mut State, rules: Rules) {
    state.new = None;
    remove_aliases(state, Target::New, rules);
    for late in &mut state.late {
        *late = late.filter(|request| request.to != Target::New);
    }
    sort(state);
    for process in &mut state.processes {
        if let Task::Made { is_there } = &mut process.task {
            *is_there = false;
        }
    }
}

/// The new index takes the place of the live one, which is removed, with its private aliases. Those of
/// the new one stay.
pub fn switch(state: &mut State, new: NewIndex, rules: Rules) {
    remove_aliases(state, Target::Live, rules);
    state.held = new.held;
    state.new = None;
    state.by_hand = false;
    (state.live_is_new, state.is_switched) = (true, true);
    state.is_lost |= !new.is_noted;
    end_elected(state);
}

/// The index is removed and a new one made in its place.
pub fn replace_index(state: &mut State, rules: Rules) {
    remove_aliases(state, Target::Live, rules);
    remove_new(state, rules);
    state.held = Held { doc: None, version: 0 };
    state.by_hand = false;
    (state.live_is_new, state.is_switched, state.is_lost) = (false, false, false);
    end_elected(state);
}

/// Who was about to give an index that is gone an alias fails.
fn end_elected(state: &mut State) {
    for (place, process) in state.processes.iter_mut().enumerate() {
        if process.task == Task::Elected {
            *process = Process::new(if place == 0 { Task::Dead } else { Task::Down });
        }
    }
}
