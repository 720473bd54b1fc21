//! The statements of the program, each by itself.

use super::engine;
use super::rules::{Rule, Rules};
use super::state::{AsRead, Film, Outbox, Person, Phase, Reset, State, Time, Tombstone};
use super::task::Process;

/// What makes a film pending: `pending::PENDING`.
pub fn is_pending(film: Film, rules: Rules) -> bool {
    film.indexed_at.is_none_or(|indexed_at| {
        let by_time = !rules.has(Rule::TouchNulls) && film.touched_at > indexed_at;
        by_time || film.modified > indexed_at
    })
}

/// Whether a statement of a process finds the epoch of its term.
pub fn passes_fence(process: Process, rules: Rules) -> bool {
    process.epoch_is_ours || !rules.has(Rule::Epoch)
}

/// `etl.touch_rows`. Returns whether it touched the film; else it is locked or absent.
pub fn touch(state: &mut State, past: Option<Time>, rules: Rules) -> bool {
    let clock = state.clock;
    let Some(film) = state.film.as_mut().filter(|_| !state.film_is_locked) else { return false };
    let was_pending = is_pending(*film, rules);
    if rules.has(Rule::TouchMoves) || !was_pending {
        let past = past.map_or(0, |past| past + 1);
        film.touched_at = clock.max(film.touched_at + 1).max(past);
    }
    if rules.has(Rule::TouchNulls) {
        film.indexed_at = None;
    }
    true
}

/// `etl.stamp_rows`, with its `etl.lock_as_read`; the fence has been passed.
pub fn stamp(state: &mut State, read: AsRead, rules: Rules) {
    let clock = state.clock;
    let Some(film) = state.film.as_mut().filter(|_| !state.film_is_locked) else { return };
    let is_as_read = (film.touched_at, film.modified) == (read.touched_at, read.modified);
    if is_as_read || !rules.has(Rule::CompareAndSet) {
        film.indexed_at = Some(clock.max(film.modified));
    }
}

/// `etl.note_fan_outs`.
pub fn note_fan_outs(state: &mut State, rules: Rules) {
    state.person.fanned_out = true;
    state.outbox.fan_out |= rules.has(Rule::NotedWithStamp);
}

/// `etl.expand_fan_outs`; the fence has been passed.
pub fn expand_fan_outs(state: &mut State) {
    state.outbox.fan_out = false;
    state.outbox.touch |= state.linked;
}

/// `outbox::drain_touches`; the fence has been passed.
pub fn drain_touches(state: &mut State, rules: Rules) {
    let is_touched = touch(state, None, rules);
    let stays = !is_touched && state.film.is_some();
    state.outbox.touch = stays && rules.has(Rule::LockedIsThere);
}

/// `outbox::revive`; the fence has been passed. The entry stays while there is no film, or
/// a locked one.
pub fn revive(state: &mut State, read: Tombstone, rules: Rules) {
    let Some(entry) = state.outbox.tombstone.filter(|entry| entry.entry_id == read.entry_id) else {
        return;
    };
    let is_done = if rules.has(Rule::ReviveTouches) {
        touch(state, Some(entry.version), rules)
    } else {
        state.film.is_some()
    };
    if is_done {
        state.outbox.tombstone = None;
    }
}

/// `outbox::forget`; the fence has been passed.
pub fn forget(state: &mut State, read: Tombstone) {
    let tombstone = &mut state.outbox.tombstone;
    *tombstone = tombstone.filter(|entry| entry.entry_id != read.entry_id);
}

/// `outbox::raise_tombstone`.
pub fn raise_tombstone(state: &mut State, read: Tombstone, past: Time) {
    if let Some(entry) = &mut state.outbox.tombstone
        && entry.entry_id == read.entry_id
    {
        entry.version = entry.version.max(past + 1);
    }
}

/// `state::move_epoch`, by one of the processes or by `etl init-es`.
pub fn move_epoch(state: &mut State) {
    for process in &mut state.processes {
        process.epoch_is_ours = false;
    }
}

/// `etl init-es` is killed, and begins again.
pub fn reset_again(state: &mut State) {
    move_epoch(state);
    state.reset = Reset::Unbound;
}

/// The next statement or request of `etl init-es`: `sync::new_index::Switch::carry_out`.
pub fn reset(state: &mut State, rules: Rules) {
    state.reset = match state.reset {
        // `state::unbind`, which ends a rebuild.
        Reset::NotBegun => {
            move_epoch(state);
            state.rebuild = None;
            Reset::Unbound
        }
        // `Elasticsearch::update_aliases`.
        Reset::Unbound => {
            engine::replace_index(state, rules);
            Reset::NewIndex
        }
        // `state::forget_changes`, the outbox.
        Reset::NewIndex => {
            state.outbox = Outbox::default();
            Reset::OutboxForgotten
        }
        // `state::forget_changes`, `etl.reset_fan_outs`.
        Reset::OutboxForgotten => {
            state.person = Person { fanned_out: true, ..state.person };
            Reset::PersonsFannedOut
        }
        // `state::reset_rows`, `etl.reset_rows`.
        Reset::PersonsFannedOut => {
            if let Some(film) = &mut state.film {
                film.indexed_at = None;
            }
            Reset::FilmsPending
        }
        // `state::bind`.
        Reset::FilmsPending | Reset::Bound => {
            move_epoch(state);
            Reset::Bound
        }
    };
}

/// `rebuild::request`.
pub fn request_rebuild(state: &mut State, rules: Rules) {
    state.asked = true;
    state.rebuild = Some(Phase::Requested);
    if rules.has(Rule::EpochAtRebuild) {
        move_epoch(state);
    }
}

/// `rebuild::cancel`.
pub fn cancel_rebuild(state: &mut State) {
    state.rebuild = Some(Phase::Cancelled);
    move_epoch(state);
}

/// `rebuild::begin_filling`.
pub fn begin_filling(state: &mut State, is_there: bool) {
    if state.rebuild == Some(Phase::Requested) {
        state.rebuild = Some(Phase::Filling { is_filled: false });
        if let Some(new) = &mut state.new {
            new.is_noted = is_there;
        }
    }
}

/// `stamp::touch_behind`. Returns false if a writer holds the row.
pub fn touch_behind(state: &mut State, held: Time, rules: Rules) -> bool {
    let is_behind = |film: Film| film.touched_at < held;
    if rules.has(Rule::FillConflictTouches) && state.film.is_some_and(is_behind) {
        return touch(state, Some(held), rules);
    }
    true
}

/// `rebuild::save_filled`; the fence has been passed. Returns false if there is nothing to be filled.
pub fn save_filled(state: &mut State) -> bool {
    let is_filling = matches!(state.rebuild, Some(Phase::Filling { .. }));
    if is_filling {
        state.rebuild = Some(Phase::Filling { is_filled: true });
    }
    is_filling
}

/// `rebuild::begin_switching`; the fence has been passed. Returns false if there is nothing to be
/// switched.
pub fn begin_switching(state: &mut State) -> bool {
    let is_filling = matches!(state.rebuild, Some(Phase::Filling { .. }));
    if is_filling {
        state.rebuild = Some(Phase::Switching);
    }
    is_filling
}

/// `rebuild::finish_switching`.
pub fn finish_switching(state: &mut State) {
    if state.rebuild == Some(Phase::Switching) {
        move_epoch(state);
        state.rebuild = None;
        state.is_switched = false;
    }
}

/// `rebuild::fail`, in `sync::rebuild::give_up`.
pub fn give_up(state: &mut State) {
    move_epoch(state);
    state.rebuild = None;
}
