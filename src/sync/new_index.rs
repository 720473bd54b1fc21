//! A new index in place of the old ones, and a state that has everything loaded into it.
//!
//! The order makes it safe to kill, and to run beside a working `etl start`:
//!
//! 1. The new index is made: the engine says what it thinks of the mapping before anything is given up.
//! 2. The state is unbound and its epoch moved: from now on nothing is sent, stamped or forgotten.
//! 3. The new index takes the place of the old ones, behind the alias.
//! 4. The outbox and the stamps are forgotten, the stamps in chunks.
//! 5. The state is bound to the new index. Only now anything is sent.
//!
//! Killed between 2 and 5 the state stays unbound, `etl start` says so, and another run starts anew.
//!
//! `etl init-es` does this, and `etl start --rebuild-lost-index` when the index was lost.

use std::fmt::Display;
use std::slice;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use log::warn;
use serde_json::Value;

use crate::elasticsearch::index::{ALIAS, AliasAction, Index, build_definition};
use crate::elasticsearch::{self, Elasticsearch};
use crate::error::Error;
use crate::postgres::Connection;
use crate::postgres::state::{self, Binding};

/// A new index that is to take the place of what is there.
#[derive(Debug)]
pub struct Switch {
    name: String,
    /// An index of another tool may be deleted.
    replace: bool,
    /// The engine's own. Empty if we are not allowed to see it.
    cluster_uuid: String,
}

/// What stands in the place of the new index.
#[derive(Debug, Default)]
struct Former {
    /// How it makes room.
    actions: Vec<AliasAction>,
    /// A line for each thing that is removed.
    removed: Vec<String>,
}

impl Switch {
    /// Looks what stands in the place of the new index. Changes nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away, or if an index of another tool has the name of our alias
    /// and may not be deleted (`replace`).
    pub fn plan(elasticsearch: &Elasticsearch, replace: bool) -> Result<Self, Error> {
        let cluster_uuid = elasticsearch.load_identity()?.cluster_uuid;
        let alias = elasticsearch.prefixed(ALIAS);
        // Milliseconds, so that two runs in one second do not meet.
        let name = format!("{alias}_{}", Timestamp::now().strftime("%Y%m%d%H%M%S%3f"));
        // Looked at again when it is removed; here, what may not be removed is refused.
        Former::find(elasticsearch, &name, replace)?;
        Ok(Self { name, replace, cluster_uuid })
    }

    /// Makes the new index and binds the state to it. Returns its name.
    ///
    /// `mapping` is its definition, if it is not to be the one that comes with the program. Gives `tell` a
    /// line for each thing that is removed, and some during a long reset. To be called under
    /// [`crate::postgres::lock::Lock::Setup`].
    ///
    /// # Errors
    ///
    /// Returns an error if either side fails, or if the engine refuses the mapping (nothing has changed
    /// then). After the state was unbound, nothing is sent until this has succeeded once.
    pub fn carry_out(
        self,
        conn: &mut Connection,
        elasticsearch: &Elasticsearch,
        mapping: Option<Value>,
        mut tell: impl FnMut(&dyn Display),
    ) -> Result<String, Error> {
        let text = mapping.as_ref().map(Value::to_string);
        create(elasticsearch, &self.name, &build_definition(mapping))?;
        state::unbind(conn, text.as_deref())?;
        let former = self.switch_aliases(elasticsearch)?;
        former.removed.iter().for_each(|line| tell(line));
        let index = elasticsearch.find_index(&self.name)?.ok_or_else(|| {
            Error::Rival(format!("the index {} was deleted by somebody else", self.name))
        })?;
        reset(conn, tell)?;
        let database = state::load_identity(conn)?;
        let binding = Binding {
            index_name: index.name,
            index_uuid: index.uuid,
            index_prefix: elasticsearch.prefix().to_owned(),
            cluster_uuid: self.cluster_uuid,
            database,
        };
        state::bind(conn, &binding)?;
        Ok(self.name)
    }

    /// Gives the alias to the new index, and takes it and all else from the former ones.
    fn switch_aliases(&self, elasticsearch: &Elasticsearch) -> Result<Former, Error> {
        const ATTEMPTS_MAX: u32 = 5;
        let alias = elasticsearch.prefixed(ALIAS);
        let add = AliasAction::Add { index: self.name.clone(), alias };
        for _ in 1..ATTEMPTS_MAX {
            let former = Former::find(elasticsearch, &self.name, self.replace)?;
            match elasticsearch
                .update_aliases(&[&former.actions[..], slice::from_ref(&add)].concat())
            {
                // A request of a run that was killed has removed one in between.
                Err(err) if err.is_not_found() => (),
                result => return Ok(result.map(|()| former)?),
            }
        }
        Err(Error::Rival("somebody else makes and removes indices of ours".to_owned()))
    }
}

impl Former {
    fn find(elasticsearch: &Elasticsearch, name: &str, replace: bool) -> Result<Self, Error> {
        let alias = elasticsearch.prefixed(ALIAS);
        let mut found = Self::default();
        let indices = elasticsearch.load_indices(&format!("{alias}_*"))?;
        // The index of a prefix that begins with our alias is somebody else's.
        let is_former = |index: &Index| {
            let time = &index.name[alias.len() + 1..];
            index.is_ours
                && index.name != name
                && !time.is_empty()
                && time.bytes().all(|byte| byte.is_ascii_digit())
        };
        for index in indices.into_iter().filter(is_former) {
            found.removed.push(format!("removed our former index {}", index.name));
            found.actions.push(AliasAction::Delete { index: index.name });
        }
        for index in elasticsearch.load_indices(&alias)? {
            found.displace(index, &alias, replace)?;
        }
        Ok(found)
    }

    /// Takes the name of our alias away from an index that is not one of our former ones.
    fn displace(&mut self, index: Index, alias: &str, replace: bool) -> Result<(), Error> {
        let delete = AliasAction::Delete { index: index.name.clone() };
        if self.actions.contains(&delete) {
            return Ok(());
        }
        if index.name != alias {
            self.removed
                .push(format!("took the alias {alias} off the index {}, which stays", index.name));
            self.actions.push(AliasAction::Remove { index: index.name, alias: alias.to_owned() });
            return Ok(());
        }
        if !replace {
            return Err(Error::State(format!(
                "there is an index {alias} that etl did not make, where its alias is to be: delete or rename it, or run `etl init-es --replace` to have it deleted"
            )));
        }
        self.removed.push(format!("removed the index {alias}, which another tool had made"));
        self.actions.push(delete);
        Ok(())
    }
}

fn create(elasticsearch: &Elasticsearch, name: &str, definition: &Value) -> Result<(), Error> {
    elasticsearch.create_index(name, definition).map_err(|err| match err {
        elasticsearch::Error::Status { status: 400, kind, reason, .. } => {
            Error::State(format!("the engine refuses the mapping: {kind}: {reason}"))
        }
        err => err.into(),
    })
}

/// Forgets all stamps. A film that a writer holds is waited for, without holding any other.
fn reset(conn: &mut Connection, mut tell: impl FnMut(&dyn Display)) -> Result<(), Error> {
    state::forget_changes(conn)?;
    let mut looked_at = 0;
    loop {
        let locked_by_others = state::reset_films(conn, |films| {
            if films / 100_000 > looked_at / 100_000 {
                tell(&format_args!("reset {films} films so far"));
            }
            looked_at = films;
        })?;
        if locked_by_others == 0 {
            return Ok(());
        }
        warn!(
            "{locked_by_others} films are locked by other sessions (see pg_stat_activity); trying again"
        );
        thread::sleep(Duration::from_secs(1));
    }
}
