//! The writers' transactions, each with what the triggers leave behind in it.

use super::rules::{Bounds, Rule, Rules};
use super::state::{FUTURE, Film, LONG_AGO, State, TICK, Time, Tombstone};

/// What an edit does to the users' own column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modified {
    Now,
    Past,
    Future,
}

/// A transaction of a writer, as it is seen when it commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `UPDATE content.film_work`; the trigger is `etl.on_row_change`.
    Edit(Modified),
    /// `UPDATE content.person`; the trigger is `etl.on_related_change`.
    Rename,
    /// `INSERT` or `DELETE` of a `content.person_film_work`; the trigger is `etl.on_link_change`.
    LinkOrUnlink,
    /// `DELETE` of the film, with its link; the triggers are `etl.on_row_delete` and
    /// `etl.on_link_change`.
    Delete,
    /// `INSERT` of a film of the same id; the trigger is `etl.on_row_change`. One that waited
    /// for the deletion has taken its `touched_at` before that.
    Insert { before_deletion: bool },
}

impl Write {
    /// All that are possible now.
    pub fn possible(state: &State, bounds: Bounds, writes: &mut Vec<Self>) {
        writes.push(Self::Rename);
        if state.film.is_none() {
            writes.push(Self::Insert { before_deletion: false });
            writes.push(Self::Insert { before_deletion: true });
            return;
        }
        writes.push(Self::Edit(Modified::Now));
        if bounds.odd_modified {
            writes.push(Self::Edit(Modified::Past));
            writes.push(Self::Edit(Modified::Future));
        }
        writes.push(Self::LinkOrUnlink);
        // The model has room for one tombstone.
        if bounds.deletes && state.outbox.tombstone.is_none() {
            writes.push(Self::Delete);
        }
    }

    /// Commits.
    pub fn commit(self, state: &mut State, rules: Rules) {
        state.writes += 1;
        state.clock += TICK;
        match self {
            Self::Edit(modified) => edit(state, rules, modified),
            Self::Rename => {
                state.person.name = state.writes;
                state.person.fanned_out &= !rules.has(Rule::RowTrigger);
            }
            Self::LinkOrUnlink => {
                state.linked = !state.linked;
                state.outbox.touch |= rules.has(Rule::Outbox);
            }
            Self::Delete => delete(state, rules),
            Self::Insert { before_deletion } => insert(state, before_deletion),
        }
    }
}

fn edit(state: &mut State, rules: Rules, modified: Modified) {
    let clock = state.clock;
    let Some(film) = &mut state.film else { return };
    film.title = state.writes;
    film.modified = match modified {
        Modified::Now => clock,
        Modified::Past => LONG_AGO,
        Modified::Future => clock + FUTURE,
    };
    if rules.has(Rule::RowTrigger) {
        touch(film, clock, rules);
    }
    state.by_hand = false;
}

/// `greatest(clock_timestamp(), old + 1 µs)`, and no stamp.
fn touch(film: &mut Film, clock: Time, rules: Rules) {
    film.touched_at = clock.max(film.touched_at + 1);
    if rules.has(Rule::TouchNulls) {
        film.indexed_at = None;
    }
}

fn delete(state: &mut State, rules: Rules) {
    let Some(film) = state.film.take() else { return };
    let version = state.clock.max(film.touched_at + 1);
    if rules.has(Rule::Outbox) {
        state.outbox.touch |= state.linked;
        state.outbox.tombstone = Some(Tombstone { entry_id: state.writes, version });
    }
    state.linked = false;
    state.film_is_locked = false;
    state.deleted_at = Some(version);
    state.by_hand = false;
}

fn insert(state: &mut State, before_deletion: bool) {
    let deleted_at = state.deleted_at.take().unwrap_or(state.clock);
    state.film = Some(Film {
        title: state.writes,
        modified: state.clock,
        touched_at: if before_deletion { deleted_at - 1 } else { state.clock },
        indexed_at: None,
    });
    state.by_hand = false;
}
