//! Without any one of the rules something is missed. Where two rules defend against the same, each
//! alone is enough, and it takes the absence of both.

use super::explore;
use super::machine::Event;
use super::rules::{Bounds, Rule, Rules};
use super::step::Step;

/// One transaction, and nothing goes wrong.
const CALM: Bounds = Bounds {
    writes: 1,
    deletes: true,
    late: 0,
    rival: false,
    restarts: false,
    reset: false,
    clock_step: false,
    locks: false,
    by_hand: false,
    duplicates: false,
    odd_modified: false,
    rebuild: false,
    cancel: false,
    new_by_hand: false,
    two_makers: false,
    senders: false,
    runaway: u8::MAX,
};

#[track_caller]
fn check_missed(rule: Rule, bounds: Bounds) -> Vec<Event> {
    assert!(explore(Rules::ALL, bounds).is_none(), "missed with all rules");
    let missed = explore(Rules::ALL.without(rule), bounds);
    let missed = missed.unwrap_or_else(|| panic!("nothing is missed without {rule:?}"));
    eprintln!("without {rule:?}: {missed:?}\n");
    missed
}

/// Checks that each of two rules is enough, and none is not.
#[track_caller]
fn check_missed_without_both(rule: Rule, other: Rule, bounds: Bounds) {
    let bounds = Bounds { runaway: 2, ..bounds };
    for one in [rule, other] {
        let missed = explore(Rules::ALL.without(one), bounds);
        assert!(missed.is_none(), "missed without {one:?} alone: {missed:#?}");
    }
    let missed = explore(Rules::ALL.without(rule).without(other), bounds);
    let missed = missed.unwrap_or_else(|| panic!("{rule:?} and {other:?} defend nothing"));
    eprintln!("without {rule:?} and {other:?}: {missed:?}\n");
}

#[test]
fn stamp_by_compare_and_set() {
    let missed = check_missed(Rule::CompareAndSet, CALM);
    // The edit came between the reading and the stamp.
    assert_eq!(missed.last(), Some(&Event::Process(1, Step::Stamp)));
}

// A process that was frozen sends the old document with a higher number. Only where it still can: the
// private alias refuses it.
#[test]
fn the_version_is_that_of_the_row() {
    let bounds = Bounds { rival: true, ..CALM };
    check_missed_without_both(Rule::RowVersion, Rule::Alias, bounds);
}

// One process alone touches nothing between the two readings. A second one does, and then the alias of
// the first is gone.
#[test]
fn the_film_is_read_first() {
    let bounds = Bounds { rival: true, ..CALM };
    check_missed_without_both(Rule::FilmFirst, Rule::Alias, bounds);
}

#[test]
fn links_and_deletions_leave_a_trace() {
    check_missed(Rule::Outbox, CALM);
}

#[test]
fn every_write_of_a_row_is_a_touch() {
    check_missed(Rule::RowTrigger, CALM);
}

// A film that is back has a lower version than its deletion, which the engine holds. It is refused, and
// pending as it is, and stays so if the touch does not move it.
#[test]
fn a_touch_moves_the_time_of_a_pending_row() {
    check_missed(Rule::TouchMoves, Bounds { writes: 2, ..CALM });
}

#[test]
fn a_touch_takes_the_stamp_when_the_clock_has_stepped_back() {
    check_missed(Rule::TouchNulls, Bounds { clock_step: true, ..CALM });
}

#[test]
fn a_touch_takes_the_stamp_when_modified_was_in_the_future() {
    check_missed(Rule::TouchNulls, Bounds { writes: 2, odd_modified: true, ..CALM });
}

#[test]
fn a_person_is_noted_with_its_stamp() {
    let missed = check_missed(Rule::NotedWithStamp, CALM);
    assert_eq!(missed.last(), Some(&Event::Process(1, Step::Die)));
}

#[test]
fn a_conflict_touches() {
    check_missed(Rule::ConflictTouches, Bounds { writes: 2, ..CALM });
    check_missed(Rule::ConflictTouches, Bounds { by_hand: true, ..CALM });
}

// The engine is restarted between the delete and the older document, and has forgotten the version of the delete.
#[test]
fn a_delete_waits_for_a_document_that_is_on_its_way() {
    check_missed(Rule::DeleteWaits, Bounds { senders: true, restarts: true, ..CALM });
}

// The same in the new index: the fill has read the film before it was deleted.
#[test]
fn a_delete_waits_for_a_document_of_a_fill_that_is_on_its_way() {
    let bounds = Bounds { rebuild: true, senders: true, restarts: true, ..CALM };
    check_missed(Rule::DeleteWaitsForFill, bounds);
}

#[test]
fn a_conflict_of_a_delete_raises_its_version() {
    check_missed(Rule::DeleteConflictRaises, Bounds { by_hand: true, ..CALM });
}

// The delete is under way when the film comes back with a lower version. The alias refuses it.
#[test]
fn a_film_that_is_back_is_touched_past_its_tombstone() {
    let bounds = Bounds { writes: 2, late: 1, ..CALM };
    check_missed_without_both(Rule::ReviveTouches, Rule::Alias, bounds);
}

// A process that was frozen sends its delete when the film is back and indexed. The alias refuses it.
#[test]
fn a_delete_has_the_version_of_the_deletion() {
    let bounds = Bounds { writes: 2, rival: true, ..CALM };
    check_missed_without_both(Rule::TombstoneVersion, Rule::Alias, bounds);
}

#[test]
fn a_film_that_is_locked_is_not_taken_for_absent() {
    check_missed(Rule::LockedIsThere, Bounds { locks: true, ..CALM });
}

#[test]
fn the_epoch_fences_the_stamp() {
    let missed = check_missed(Rule::Epoch, Bounds { writes: 0, reset: true, ..CALM });
    assert!(missed.contains(&Event::Process(1, Step::Stamp)));
}

#[test]
fn the_alias_refuses_what_is_late_when_deletes_were_forgotten() {
    check_missed(Rule::Alias, Bounds { late: 1, restarts: true, ..CALM });
}

#[test]
fn the_alias_refuses_what_is_late_for_the_index_before() {
    check_missed(Rule::Alias, Bounds { late: 1, reset: true, ..CALM });
}

#[test]
fn both_indices_acknowledge() {
    check_missed(Rule::BothAcknowledge, Bounds { rebuild: true, ..CALM });
}

// The old leader knows of no new index: what the live one alone has acknowledged is stamped after the fill
// has passed the row, and a deletion forgotten.
#[test]
fn the_epoch_moves_when_a_rebuild_begins() {
    let bounds = Bounds { rebuild: true, rival: true, ..CALM };
    check_missed(Rule::EpochAtRebuild, bounds);
    let missed = check_missed(Rule::EpochAtRebuild, Bounds { deletes: false, ..bounds });
    let has = |step| missed.iter().any(|event| matches!(event, Event::Process(_, s) if *s == step));
    assert!(has(Step::LoadFill) && has(Step::Stamp));
}

#[test]
fn the_fill_is_noted_last() {
    let bounds = Bounds { writes: 0, rebuild: true, ..CALM };
    let missed = check_missed(Rule::FillNotedLast, bounds);
    assert!(missed.contains(&Event::Process(1, Step::Die)));
}

// A page that was sent before the row changed arrives late, and has the same version as a later page. The
// alias refuses it. Of a deleted film it would be accepted at any version, as a new index has no deletes.
#[test]
fn the_fill_has_the_version_of_the_row() {
    let bounds = Bounds { rebuild: true, late: 1, deletes: false, ..CALM };
    check_missed_without_both(Rule::FillHasRowVersion, Rule::Alias, bounds);
}

// The delete was forgotten before the new index was made, which holds no version of it.
#[test]
fn the_alias_refuses_what_is_late_for_the_live_index_before_the_switch() {
    check_missed(Rule::Alias, Bounds { rebuild: true, late: 1, ..CALM });
}

#[test]
fn a_conflict_of_the_fill_touches() {
    let bounds = Bounds { writes: 0, rebuild: true, new_by_hand: true, ..CALM };
    check_missed(Rule::FillConflictTouches, bounds);
}
