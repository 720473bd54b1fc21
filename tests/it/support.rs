//! What several test modules need: servers, the program as a process, the comparison.

pub mod cluster;
pub mod command;
pub mod database;
pub mod engine;
pub mod forwarder;
pub mod one_by_one;
pub mod proxy;
pub mod wait;
pub mod world;
