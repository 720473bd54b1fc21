//! What a search document is. Rows in, document out; no I/O.

pub mod film;
pub mod genre;
pub mod person;
