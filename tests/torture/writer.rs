//! A writer: one random transaction after the other.

use fastrand::Rng;
use postgres::{Client, Error};

use crate::changes::{self, Change};
use crate::stage::Stage;

/// Writes until the end.
pub fn run(stage: &Stage, name: &str, mut rng: Rng) {
    let mut client: Option<Client> = None;
    while !stage.has_ended() {
        stage.pause(&mut rng, 0, 20);
        let gate = stage.gate.read().unwrap();
        let Some(session) = client.take().filter(|client| !client.is_closed()).or_else(|| {
            let mut client = stage.connect()?;
            let limits = "SET lock_timeout = '3s'; SET statement_timeout = '20s'";
            client.batch_execute(limits).ok().map(|()| client)
        }) else {
            continue;
        };
        client = Some(session);
        let change = changes::draw(&mut rng);
        if let Some(client) = &mut client {
            transact(stage, name, &mut rng, client, &change);
        }
        drop(gate);
    }
}

fn transact(stage: &Stage, name: &str, rng: &mut Rng, client: &mut Client, change: &Change) {
    let began = stage.history.now();
    let settings = settings(rng);
    let outcome = match attempt(stage, rng, client, change, &settings) {
        Ok(true) => {
            stage.history.count("transactions", change.name);
            "committed".to_owned()
        }
        Ok(false) => {
            stage.history.count("transactions undone", "rolled back");
            "rolled back".to_owned()
        }
        Err(err) => {
            let why = reason(&err);
            stage.history.count("transactions undone", &why);
            format!("failed: {why}")
        }
    };
    let text = format!("{outcome}: {settings}{}", change.sql.join("; "));
    stage.history.note(began, name, text);
}

/// Settings of the transaction, as the application's frameworks may choose them.
fn settings(rng: &mut Rng) -> String {
    let isolation = match rng.u8(..10) {
        0 => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; ",
        1 => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; ",
        _ => "",
    };
    let commit = if rng.u8(..6) == 0 { "SET LOCAL synchronous_commit = off; " } else { "" };
    format!("{isolation}{commit}")
}

/// Returns whether it was committed.
fn attempt(
    stage: &Stage,
    rng: &mut Rng,
    client: &mut Client,
    change: &Change,
    settings: &str,
) -> Result<bool, Error> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(settings)?;
    for sql in &change.sql {
        transaction.batch_execute(sql)?;
        if rng.u8(..20) == 0 {
            stage.pause(rng, 1, 100);
        }
    }
    match rng.u8(..100) {
        0..10 => return transaction.rollback().map(|()| false),
        10..25 => stage.pause(rng, 1, 100),
        25..27 => stage.pause(rng, 200, 1_500),
        _ => (),
    }
    transaction.commit().map(|()| true)
}

fn reason(err: &Error) -> String {
    match err.as_db_error() {
        Some(err) => err.code().code().to_owned(),
        None => "connection lost".to_owned(),
    }
}
