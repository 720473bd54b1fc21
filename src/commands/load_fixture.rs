//! `etl load-fixture`: puts Django's `dumpdata` files into the catalogue, all or nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Mistakes, PostgresArgs};
use crate::error::{self, Error};
use crate::fixture::{self, FixtureError};
use crate::postgres;
use crate::postgres::fixture::{DanglingLink, Merged, Place, Refused, Staging};

/// Settings of `etl load-fixture`.
#[derive(Debug, Args)]
pub struct LoadFixture {
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Files of Django's `dumpdata`, packed by gzip or not; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Loads the files in one transaction, and says on standard output what was loaded.
///
/// Rows are written only where the catalogue is not so already. Of rows with the same key the last
/// one counts, also across files.
///
/// # Errors
///
/// Returns the first mistake in the files, or what PostgreSQL refused. The catalogue is then as it
/// was.
pub fn run(args: &LoadFixture) -> Result<(), Error> {
    let mut mistakes = Mistakes::default();
    let url = args.postgres.check(&mut mistakes);
    let url = mistakes.finish(url)?;
    // All of them before anything is done, as a misspelt name is the commonest mistake.
    let inputs = args.files.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;

    let mut staging = Staging::start(postgres::connect(&url, "etl load-fixture")?)?;
    let mut skipped = 0;
    for (file, input) in inputs.into_iter().enumerate() {
        skipped += fixture::read(&name(&args.files[file]), input, |object| {
            staging.push(file, &object).map_err(|err| refused(&args.files, err))
        })?;
    }
    let mut staged = staging.finish().map_err(|err| refused(&args.files, err))?;
    if let Some(link) = staged.find_dangling_link()? {
        return Err(leads_nowhere(&args.files, &link).into());
    }
    let merged = staged.merge()?;

    super::say(summary(args.files.len(), &merged, skipped));
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Read>, FixtureError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(source) => Err(FixtureError::Read { file: name(path), source }),
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Names the row that PostgreSQL refused, if it was a row.
fn refused(files: &[PathBuf], refused: Refused) -> Error {
    match refused.place {
        Some(place) => at(files, &place, error::chain(&refused.error)).into(),
        None => refused.error.into(),
    }
}

fn leads_nowhere(files: &[PathBuf], link: &DanglingLink) -> FixtureError {
    let DanglingLink { place, field, end_id } = link;
    let mistake = format!(
        "field `{field}` is {end_id}, which is neither in the fixture nor in the catalogue"
    );
    at(files, place, mistake)
}

fn at(files: &[PathBuf], place: &Place, mistake: String) -> FixtureError {
    let Place { file, object, model, id } = place;
    FixtureError::Object {
        file: name(&files[file.unsigned_abs() as usize]),
        object: object.unsigned_abs(),
        subject: format!("{model} {id}"),
        mistake,
    }
}

/// Says what was loaded, on one line.
fn summary(files: usize, merged: &[Merged], skipped: u64) -> String {
    let total = |count: fn(&Merged) -> u64| merged.iter().map(count).sum::<u64>();
    let (written, unchanged) = (total(|table| table.written), total(|table| table.unchanged));
    let tables: Vec<_> = merged
        .iter()
        .map(|table| (table.written + table.unchanged, table.table))
        .filter(|(rows, _)| *rows > 0)
        .map(|(rows, table)| format!("{} {table}", grouped(rows)))
        .collect();
    let skipped: Vec<_> = [
        (skipped, "object", " of other models"),
        (total(|table| table.repeated), "repeated link", ""),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, noun, of)| count(number, noun) + of)
    .collect();

    let sum = format!(
        "loaded {} from {}: {} ({} written, {} already so)",
        count(written + unchanged, "row"),
        count(files as u64, "file"),
        if tables.is_empty() { "nothing".to_owned() } else { tables.join(", ") },
        grouped(written),
        grouped(unchanged),
    );
    if skipped.is_empty() { sum } else { format!("{sum}; skipped {}", skipped.join(", ")) }
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// Writes a number with a comma before each three digits.
fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", grouped(number / 1_000), number % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_loaded_and_what_was_not() {
        let films = Merged { table: "film_work", written: 1_204, unchanged: 9, repeated: 0 };
        let links = Merged { table: "genre_film_work", written: 0, unchanged: 1, repeated: 2 };
        let persons = Merged { table: "person", written: 0, unchanged: 0, repeated: 0 };
        assert_eq!(
            summary(1, &[films, persons, links], 3),
            "loaded 1,214 rows from 1 file: 1,213 film_work, 1 genre_film_work \
             (1,204 written, 10 already so); skipped 3 objects of other models, 2 repeated links"
        );
        assert_eq!(
            summary(2, &[persons], 1),
            "loaded 0 rows from 2 files: nothing (0 written, 0 already so); \
             skipped 1 object of other models"
        );
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_000_007].map(grouped), ["0", "999", "1,000", "1,000,007"]);
    }
}
