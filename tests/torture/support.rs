//! What the other tests use, too: the program as a process, servers, the comparison.

#[path = "../it/support/command.rs"]
pub mod command;
#[path = "../it/support/database.rs"]
pub mod database;
#[path = "../it/support/engine.rs"]
pub mod engine;
#[path = "../it/support/proxy.rs"]
pub mod proxy;
#[path = "../it/support/world.rs"]
pub mod world;
