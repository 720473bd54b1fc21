//! The sync protocol as a state machine, of which every state is looked at. It needs no servers.
//!
//! One film, one person and one link. Writers commit their transactions at any moment. Two
//! processes `etl start` go on statement by statement, each of which commits by itself, and die
//! anywhere; both believe that they lead. A bulk request is answered, or nobody waits for the answer
//! and it arrives later, after everything else, or never. The engine keeps a document and its version,
//! of a deleted one, too, until it is restarted. `etl init-es` runs beside it all, the clock steps
//! back, and somebody writes to the index by hand.
//!
//! `etl rebuild` asks for a new index, and may be cancelled. The new index is made, filled by one page,
//! and takes the place of the live one; a process that dies leaves that to the next term. While there is
//! a new index, a request goes to the live one and then to the new one, each a step by itself, and each
//! may be late. The private aliases of the live index go with it; those of the new one outlive the switch.
//!
//! Wherever it stops: when writers pause, one clean run ends, and what is late has arrived, then
//! the index holds exactly the document that PostgreSQL gives, and no rebuild is left. And never is the
//! state bound to another index than the one that people search, which only `etl init-es` would put right.
//!
//! What each action stands for is said where it is defined: [`writers::Write`], [`step::Step`],
//! [`machine::Event`], [`database`], [`engine`]. Left out are: batches of several films and what the engine
//! rejects, what a process remembers of answers for films that are locked, TRUNCATE and its sweep, a deleted
//! person, the WAL that is not flushed, and the binding to an index that was replaced by others. Of a
//! rebuild: pages after the first, the comparison before the switch (it only stops a rebuild, so all is to be right
//! without it), `--keep-old`, a second rebuild, a new index that refuses a document, and processes that are frozen
//! between two requests of a making, a giving up or a cancellation, or in a switch while `etl init-es` has unbound
//! the state. Two that make the new index at once are in a test of their own.
//!
//! The numbers of states: `cargo test --test model -- --nocapture`.

mod broken;
mod database;
mod engine;
mod machine;
mod process;
mod rebuild;
mod rules;
mod state;
mod step;
mod task;
mod writers;

use std::time::Instant;

use stateright::{Checker, Model};

use machine::{Event, Machine};
use rules::{Bounds, Rules};

/// Looks at every state within the bounds. Returns the shortest way to miss something, if there is one.
fn explore(rules: Rules, bounds: Bounds) -> Option<Vec<Event>> {
    let started = Instant::now();
    let checker = Machine { rules, bounds }.checker().spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    eprintln!("{states} states, depth {depth}, {:.1?}: {bounds:?}", started.elapsed());
    let missed = checker.discoveries().into_values().next();
    missed.map(stateright::Path::into_actions)
}

#[track_caller]
fn check_never_missed(bounds: Bounds) {
    let missed = explore(Rules::ALL, bounds);
    assert!(missed.is_none(), "missed with all rules, within {bounds:?}: {missed:#?}");
}

/// Everything that can happen but a second process.
const ALONE: Bounds = Bounds {
    writes: 2,
    deletes: true,
    late: 1,
    rival: false,
    restarts: true,
    reset: true,
    clock_step: true,
    locks: false,
    by_hand: true,
    duplicates: false,
    odd_modified: true,
    rebuild: false,
    cancel: false,
    new_by_hand: false,
    two_makers: false,
    senders: false,
    runaway: u8::MAX,
};

#[test]
fn two_transactions_and_all_faults_but_a_rival() {
    check_never_missed(ALONE);
}

#[test]
fn one_transaction_a_rival_and_all_faults() {
    check_never_missed(Bounds { writes: 1, rival: true, ..ALONE });
}

#[test]
fn two_transactions_a_rival_and_a_reset() {
    let bounds = Bounds { rival: true, clock_step: false, by_hand: false, ..ALONE };
    check_never_missed(Bounds { odd_modified: false, ..bounds });
}

#[test]
fn two_transactions_a_rival_and_a_clock_that_steps_back() {
    check_never_missed(Bounds { rival: true, reset: false, by_hand: false, ..ALONE });
}

#[test]
fn two_transactions_and_writers_that_hold_the_film() {
    check_never_missed(Bounds { locks: true, clock_step: false, by_hand: false, ..ALONE });
}

#[test]
fn a_request_that_arrives_once_more_does_no_harm() {
    let bounds = Bounds { late: 2, duplicates: true, restarts: false, ..ALONE };
    check_never_missed(Bounds { clock_step: false, by_hand: false, ..bounds });
}

#[test]
fn two_transactions_and_a_process_that_goes_on_while_its_request_is_open() {
    let bounds = Bounds { senders: true, clock_step: false, by_hand: false, ..ALONE };
    check_never_missed(bounds);
    check_never_missed(Bounds { locks: true, restarts: false, reset: false, ..bounds });
}

#[test]
fn one_transaction_a_rival_and_processes_that_go_on_while_their_requests_are_open() {
    let bounds = Bounds { writes: 1, rival: true, senders: true, ..ALONE };
    check_never_missed(Bounds { clock_step: false, by_hand: false, ..bounds });
}

/// `etl rebuild` and its cancellation, and no other fault but that processes die and requests are late.
const REBUILD: Bounds = Bounds {
    restarts: false,
    reset: false,
    clock_step: false,
    by_hand: false,
    odd_modified: false,
    rebuild: true,
    cancel: true,
    ..ALONE
};

#[test]
fn two_transactions_a_rebuild_and_a_reset() {
    check_never_missed(Bounds { restarts: true, reset: true, ..REBUILD });
}

#[test]
fn two_transactions_a_rebuild_and_a_clock_that_steps_back() {
    let bounds = Bounds { restarts: true, clock_step: true, cancel: false, ..REBUILD };
    check_never_missed(Bounds { odd_modified: true, ..bounds });
}

#[test]
fn one_transaction_a_rebuild_and_a_rival() {
    check_never_missed(Bounds { writes: 1, late: 0, rival: true, ..REBUILD });
}

#[test]
fn one_transaction_a_rebuild_a_rival_and_a_late_request() {
    check_never_missed(Bounds { writes: 1, rival: true, cancel: false, ..REBUILD });
}

#[test]
fn one_transaction_a_rebuild_and_requests_that_arrive_once_more() {
    check_never_missed(Bounds { writes: 1, late: 2, duplicates: true, ..REBUILD });
}

#[test]
fn one_transaction_and_a_new_index_that_is_written_by_hand() {
    check_never_missed(Bounds { writes: 1, restarts: true, new_by_hand: true, ..REBUILD });
}

// The touch of what the new index has refused finds the film locked, and the page is noted all the same.
#[test]
fn one_transaction_and_a_new_index_that_is_written_by_hand_while_a_writer_holds_the_film() {
    check_never_missed(Bounds { writes: 1, locks: true, new_by_hand: true, ..REBUILD });
}

#[test]
fn two_transactions_a_rebuild_and_a_process_that_goes_on_while_its_requests_are_open() {
    check_never_missed(Bounds { restarts: true, senders: true, cancel: false, ..REBUILD });
}

#[test]
fn one_transaction_a_rebuild_a_rival_and_processes_that_go_on_while_their_requests_are_open() {
    let bounds = Bounds { writes: 1, late: 0, rival: true, senders: true, ..REBUILD };
    check_never_missed(Bounds { cancel: false, ..bounds });
}

// What the new index has refused of the fill is pending, and its document acknowledged but not stamped.
#[test]
fn one_transaction_and_a_new_index_that_is_written_by_hand_while_requests_are_open() {
    let bounds = Bounds { writes: 1, new_by_hand: true, locks: true, senders: true, ..REBUILD };
    check_never_missed(bounds);
}

// A process is frozen before it makes the new index, until another has made and switched it: it removes
// what is the live index by then.
#[test]
fn a_rebuild_and_two_processes_that_make_the_new_index() {
    let bounds = Bounds { writes: 0, late: 0, rival: true, two_makers: true, ..REBUILD };
    check_never_missed(Bounds { cancel: false, ..bounds });
}
