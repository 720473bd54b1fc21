//! Writers who meet the leader at its work, over a film that nobody else works on: what goes wrong then is not
//! put right by the next change.

use std::time::Duration;

use fastrand::Rng;
use postgres::{Client, Error};

use crate::rivals::wait_until;
use crate::stage::Stage;
use crate::support::proxy::Fault;

/// A film is edited whose document the engine puts off, or edited once more while its document is under way.
pub fn edit_amid_request(stage: &Stage, rng: &mut Rng) {
    let Some(mut client) = stage.connect() else { return };
    let result = draw(&mut client).and_then(|film| {
        if rng.u8(..3) == 0 {
            stage.plan(&[Fault::HalfOfItems(429, "es_rejected_execution_exception")]);
            return client.batch_execute(&edit(&film, rng));
        }
        let requests = stage.bulk_requests();
        stage.plan(&[Fault::SlowAnswer(Duration::from_millis(rng.u64(200..600)))]);
        client.batch_execute(&edit(&film, rng))?;
        wait_until(1_000, || stage.bulk_requests() > requests);
        stage.pause(rng, 20, 150);
        client.batch_execute(&edit(&film, rng))
    });
    count(stage, "film edited amid a request", &result);
}

/// A film is held, and left as it is, while something changes that belongs to it.
pub fn hold_beside_change(stage: &Stage, rng: &mut Rng) {
    let (Some(mut holder), Some(mut client)) = (stage.connect(), stage.connect()) else { return };
    let result = draw(&mut client).and_then(|film| {
        let mut transaction = holder.transaction()?;
        transaction.batch_execute(&format!(
            "SELECT FROM content.film_work WHERE id = '{film}' FOR UPDATE NOWAIT"
        ))?;
        let linked = |table: &str| {
            format!("(SELECT {table}_id FROM content.{table}_film_work WHERE film_work_id = '{film}' LIMIT 1)")
        };
        let name = format!("renamed {}", rng.u32(..));
        let change = match rng.u8(..3) {
            0 => format!("UPDATE content.person SET full_name = '{name}' WHERE id = {}", linked("person")),
            1 => format!("UPDATE content.genre SET name = '{name}' WHERE id = {}", linked("genre")),
            _ => format!("DELETE FROM content.person_film_work WHERE film_work_id = '{film}'"),
        };
        client.batch_execute(&change)?;
        stage.pause(rng, 200, 800);
        transaction.rollback()
    });
    count(stage, "film held beside a change of what belongs to it", &result);
}

/// Draws a film that has a person or a genre.
fn draw(client: &mut Client) -> Result<String, Error> {
    client.batch_execute("SET lock_timeout = '1s'")?;
    let sql = "SELECT film_work_id::text FROM content.person_film_work ORDER BY random() LIMIT 1";
    client.query_one(sql, &[]).map(|row| row.get(0))
}

fn edit(film: &str, rng: &mut Rng) -> String {
    let title = rng.u32(..);
    format!("UPDATE content.film_work SET title = 'met {title}' WHERE id = '{film}'")
}

/// Somebody else may have locked it, or the catalogue may be empty.
fn count(stage: &Stage, what: &str, result: &Result<(), Error>) {
    stage.history.count("meetings", if result.is_ok() { what } else { "given up" });
}
