//! All tests that need servers, in one binary. `make test` starts the servers and runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers; // what each answer of the engine means, item by item
mod changes; // every kind of change reaches the index
mod cli; // help, settings, `.env`, mistakes, and that no password is printed
mod crashes; // killed again and again, left alone by the engine
mod durability; // PostgreSQL that crashes, fails over or is restored
mod filling; // a new index whose documents are on their way
mod init_es; // the index is made anew: beside others' indices, killed halfway, beside a leader
mod kinds; // kinds of documents that are left out, and added later
mod layers; // the borders between the modules, read from the source
mod load_fixture; // what ends up in the catalogue, what is written for it, what is refused
mod migrate; // the database side alone: what it adds, refuses, makes wait and takes back
mod rebuild; // a new index beside the live one
mod recovery; // broken connections, conflicts, rows that writers hold
mod rejected; // documents that the engine refuses as they are
mod rivals; // two processes: who leads, who takes over, and that the one before does no harm
mod security; // users, rights and keys of a real engine that has them
mod senders; // several bulk requests at a time
mod start; // the loop: signals, servers that are away, state that does not fit
mod support;
mod sweeps; // truncated tables are looked at a chunk at a time
mod writers; // the users' writers do not wait for the program, and never meet it in a deadlock
