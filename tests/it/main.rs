//! All tests that need servers, in one binary. `make test` starts the servers and runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes; // every kind of change reaches the index
mod cli; // help, settings, `.env`, mistakes, and that no password is printed
mod crashes; // killed again and again, left alone by the engine
mod init_es; // the index is made anew: beside others' indices, killed halfway, beside a leader
mod layers; // the borders between the modules, read from the source
mod load_fixture; // what ends up in the catalogue, what is written for it, what is refused
mod migrate; // the database side alone: what it adds, refuses, makes wait and takes back
mod recovery; // broken connections, conflicts, rows that writers hold
mod rejected; // documents that the engine refuses as they are
mod start; // the loop: signals, standby, servers that are away, state that does not fit
mod support;
