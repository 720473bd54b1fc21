//! What a process is about to do, by the messages that it sends to PostgreSQL.

use std::collections::HashMap;

/// What a process has read, and is about to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Films and what belongs to them.
    Documents,
    /// Films that are to be deleted.
    Deletions,
}

/// What is known of a session by its statements.
#[derive(Default)]
pub struct Session {
    /// Prepared statements, by their names.
    statements: HashMap<Vec<u8>, Statement>,
    texts: HashMap<Vec<u8>, Vec<u8>>,
    last: Option<Reading>,
}

#[derive(Clone, Copy)]
enum Statement {
    Reads(Reading),
    /// The last one before a bulk request.
    FlushesLog,
}

impl Session {
    /// Reads a message of the client. Returns what was read before, if this is the last one before that is
    /// sent.
    pub fn is_about_to_send(&mut self, message: &[u8]) -> Option<Reading> {
        let mut words = message.get(5..)?.split(|byte| *byte == 0);
        let statement = match message[0] {
            // Parse: the name of the statement, its text.
            b'P' => {
                let (name, text) = (words.next()?.to_owned(), words.next()?);
                self.texts.insert(name.clone(), text.to_owned());
                self.statements.remove(&name);
                self.statements.insert(name, Statement::of(text)?);
                return None;
            }
            // Bind: the name of a portal, that of the statement.
            b'B' => *self.statements.get(words.nth(1)?)?,
            _ => return None,
        };
        match statement {
            Statement::Reads(reading) => {
                self.last = Some(reading);
                None
            }
            Statement::FlushesLog => self.last,
        }
    }

    /// The text of the statement that a message is about to carry out.
    pub fn find_text(&self, message: &[u8]) -> Option<&Vec<u8>> {
        let name = message.get(5..)?.split(|byte| *byte == 0).nth(1)?;
        (message[0] == b'B').then(|| self.texts.get(name)).flatten()
    }
}

impl Statement {
    fn of(sql: &[u8]) -> Option<Self> {
        let marks: [(&[u8], Self); 3] = [
            (b"pg_current_wal_flush_lsn", Self::FlushesLog),
            (b"o.op = 'tombstone'", Self::Reads(Reading::Deletions)),
            (b"FROM content.genre_film_work", Self::Reads(Reading::Documents)),
        ];
        marks.into_iter().find(|(mark, _)| contains(sql, mark)).map(|(_, statement)| statement)
    }
}

/// Whether a text has this word.
pub fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}
