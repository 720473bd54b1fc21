//! What the tests use, too: the program as a process, a database and an index of its own.

#[path = "../../tests/it/support/command.rs"]
pub mod command;
#[path = "../../tests/it/support/database.rs"]
pub mod database;
#[path = "../../tests/it/support/engine.rs"]
pub mod engine;
#[path = "../../tests/it/support/world.rs"]
pub mod world;
