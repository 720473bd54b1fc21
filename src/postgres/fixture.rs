//! Loading fixtures: their rows are staged in temporary tables, and go into the catalogue at once.
//!
//! Staging takes as long as the files take to arrive, and holds neither a transaction nor a lock.
//! The merge is one transaction, without a client that could be slow. The temporary tables go with
//! the session, so there is nothing to clean up, whatever happens.

mod stage;
mod table;

use diesel::Connection as _;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text, Uuid as SqlUuid};
use serde::Deserialize;
use uuid::Uuid;

use self::stage::Stage;
use self::table::TABLES;
use super::{Connection, Error};
use crate::fixture::Object;

/// The settings of a merge, and one merge at a time: of two that insert the same row the second
/// would fail instead of finding it there. The lock is one that readers and other writers do not
/// feel, on the smallest table; it takes as long as the other merge.
const BEGIN_MERGE: &str = "
    SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = '5min';
    LOCK TABLE content.genre IN SHARE UPDATE EXCLUSIVE MODE";

/// Rows on their way into staging tables.
pub struct Staging {
    conn: Connection,
    stages: [Stage; TABLES.len()],
}

/// All rows, staged, each key once.
pub struct Staged {
    conn: Connection,
    stages: [Stage; TABLES.len()],
}

/// Why rows could not be staged. The catalogue is as it was.
#[derive(Debug)]
pub struct Refused {
    /// The row, if it was a row.
    pub place: Option<Place>,
    /// What PostgreSQL said.
    pub error: Error,
}

/// Where a row is in the files.
#[derive(Debug, Clone, QueryableByName, Deserialize)]
pub struct Place {
    /// As given to [`Staging::push`].
    #[diesel(sql_type = Integer)]
    pub file: i32,
    /// Its place in the file, from 1.
    #[diesel(sql_type = BigInt)]
    pub object: i64,
    /// The model, as the file spells it.
    #[diesel(sql_type = Text)]
    pub model: String,
    /// Its primary key.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

/// A link that leads nowhere.
#[derive(Debug, QueryableByName)]
pub struct DanglingLink {
    /// Where it is.
    #[diesel(embed)]
    pub place: Place,
    /// The end that is not there: `film_work`, `genre` or `person`.
    #[diesel(sql_type = Text)]
    pub field: String,
    /// Where it leads.
    #[diesel(sql_type = SqlUuid)]
    pub end_id: Uuid,
}

/// What became of the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// The table.
    pub table: &'static str,
    /// Rows that are new or were changed.
    pub written: u64,
    /// Rows that were there, exactly so.
    pub unchanged: u64,
    /// Links that are there under another key, and may be only once.
    pub repeated: u64,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { place: None, error }
    }
}

impl Staging {
    /// Creates the staging tables in the session that is given.
    ///
    /// # Errors
    ///
    /// Returns an error if the catalogue's tables are not there, or if a statement fails.
    pub fn start(mut conn: Connection) -> Result<Self, Error> {
        if !is_catalogue_there(&mut conn)? {
            return Err(Error::Catalogue(
                "the catalogue's tables are not there: run `etl migrate` first \
                 (or let your application create them)"
                    .to_owned(),
            ));
        }
        for table in &TABLES {
            conn.batch_execute(&table.fill(include_str!("queries/fixture_create.sql")))
                .map_err(Error::query("create the staging tables"))?;
        }
        let stages = TABLES.each_ref().map(Stage::new);
        Ok(Self { conn, stages })
    }

    /// Stages a row of the file with this number. One round trip for about a megabyte of rows.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL refuses one of the rows given so far.
    pub fn push(&mut self, file: usize, object: &Object) -> Result<(), Refused> {
        self.stages[table::position(&object.row)].push(&mut self.conn, file, object)
    }

    /// Stages what is left. Of rows with the same key only the one that was pushed last is kept.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL refuses one of the rows.
    pub fn finish(self) -> Result<Staged, Refused> {
        let Self { mut conn, mut stages } = self;
        for stage in &mut stages {
            stage.flush(&mut conn)?;
            stage.settle(&mut conn)?;
        }
        Ok(Staged { conn, stages })
    }
}

impl Staged {
    /// Finds the first link, in the order of the files, that has an end neither in the fixture nor
    /// in the catalogue. One statement for each kind of end.
    ///
    /// # Errors
    ///
    /// Returns an error if a statement fails.
    pub fn find_dangling_link(&mut self) -> Result<Option<DanglingLink>, Error> {
        let mut links = Vec::new();
        for table in &TABLES {
            for end in table.ends {
                let sql = table.fill(include_str!("queries/fixture_dangling_link.sql"));
                let link = sql_query(sql.replace("{end}", end))
                    .get_result(&mut self.conn)
                    .optional()
                    .map_err(Error::query("follow the links of the fixture"))?;
                links.extend(link);
            }
        }
        Ok(links.into_iter().min_by_key(|link: &DanglingLink| (link.place.file, link.place.object)))
    }

    /// Writes the rows that are not in the catalogue, or not so, in one transaction.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL refuses a row. The catalogue is then as it was.
    pub fn merge(self) -> Result<Vec<Merged>, Error> {
        let Self { mut conn, stages } = self;
        // Known to the error after the transaction is undone.
        let mut table = TABLES[0].name;
        conn.transaction(|conn| {
            conn.batch_execute(BEGIN_MERGE)?;
            let merge = |stage: &Stage| {
                table = stage.table();
                stage.merge(conn)
            };
            stages.iter().map(merge).collect()
        })
        .map_err(|source| Error::Fixture { table, source })
    }
}

fn is_catalogue_there(conn: &mut Connection) -> Result<bool, Error> {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = Bool)]
        is_there: bool,
    }
    sql_query(
        "SELECT count(to_regclass('content.' || t.name)) = count(*) AS is_there
         FROM unnest($1) AS t (name)",
    )
    .bind::<Array<Text>, _>(TABLES.iter().map(|table| table.name).collect::<Vec<_>>())
    .get_result(conn)
    .map(|answer: Answer| answer.is_there)
    .map_err(Error::query("look for the catalogue's tables"))
}
