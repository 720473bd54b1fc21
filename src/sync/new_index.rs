//! A new index in place of the old ones, for each of some kinds, and a state that has everything loaded into
//! it.
//!
//! The order makes it safe to kill, and to run beside a working `etl start`:
//!
//! 1. Kinds that had no index are followed by writers from now on (`sync::following`). The new indices are
//!    made: the engine says what it thinks of the mappings before anything is given up.
//! 2. The state is unbound and the epoch moved: from now on nothing is sent, stamped or forgotten.
//! 3. The new indices take the place of the old ones, behind their aliases.
//! 4. The outbox and the stamps are forgotten, the stamps in chunks.
//! 5. The state is bound to the new indices. Only now anything is sent.
//!
//! Killed between 2 and 5 the state stays unbound, `etl start` says so, and another run starts anew.
//!
//! `etl init-es` does this, and `etl start --rebuild-lost-index` when the index was lost.

use std::fmt::Display;
use std::slice;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use log::{info, warn};
use serde_json::Value;

use crate::elasticsearch::index::{AliasAction, Index, build_definition};
use crate::elasticsearch::settings::IndexSettings;
use crate::elasticsearch::{self, Elasticsearch};
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::lock::try_lock_setup;
use crate::postgres::state::{self, Binding};
use crate::postgres::{Connection, DatabaseUrl, connect};
use crate::sync::binding::check_state;
use crate::sync::following::follow;

/// New indices that are to take the place of what is there.
#[derive(Debug)]
pub struct Switch {
    indices: Vec<NewIndex>,
    /// An index of another tool may be deleted.
    replace: bool,
    /// The engine's own. Empty if we are not allowed to see it.
    cluster_uuid: String,
}

/// An index that is to be made.
#[derive(Debug)]
struct NewIndex {
    kind: Kind,
    name: String,
    /// Its definition, if it is not to be the one that comes with the program.
    mapping: Option<Value>,
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
    /// Looks what stands in the place of a new index for each of these kinds, each with its definition if it is
    /// not to be the one that comes with the program. Changes nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine is away, or if an index of another tool has the name of one of our
    /// aliases and may not be deleted (`replace`).
    pub fn plan(
        elasticsearch: &Elasticsearch,
        kinds: Vec<(Kind, Option<Value>)>,
        replace: bool,
    ) -> Result<Self, Error> {
        let cluster_uuid = elasticsearch.load_identity()?.cluster_uuid;
        let mut indices = Vec::new();
        for (kind, mapping) in kinds {
            let name = name_of_new(elasticsearch, kind);
            // Looked at again when it is removed; here, what may not be removed is refused.
            Former::find(elasticsearch, kind, &name, replace)?;
            indices.push(NewIndex { kind, name, mapping });
        }
        Ok(Self { indices, replace, cluster_uuid })
    }

    /// Makes the new indices and binds the state to them. Returns their names.
    ///
    /// Gives `tell` a line for each thing that is removed, and some while it takes long. To be called under
    /// [`crate::postgres::lock::Lock::Setup`].
    ///
    /// # Errors
    ///
    /// Returns an error if either side fails, if a writer that may not know of a new kind does not end, or if the
    /// engine refuses a mapping (nothing that counts has changed then). After the state was unbound, nothing is sent until this has succeeded once.
    pub fn carry_out(
        self,
        conn: &mut Connection,
        elasticsearch: &Elasticsearch,
        mut tell: impl FnMut(&dyn Display),
    ) -> Result<Vec<String>, Error> {
        let kinds: Vec<Kind> = self.indices.iter().map(|index| index.kind).collect();
        follow(conn, &kinds, &mut tell)?;
        let mut settings = Vec::new();
        for NewIndex { kind, name, mapping } in &self.indices {
            settings.push(create(elasticsearch, name, *kind, mapping.clone())?);
        }
        for NewIndex { kind, mapping, .. } in &self.indices {
            state::unbind(conn, *kind, mapping.as_ref().map(Value::to_string).as_deref())?;
        }
        let mut bindings = Vec::new();
        for index in &self.indices {
            let former = self.switch_aliases(elasticsearch, index)?;
            former.removed.iter().for_each(|line| tell(line));
            let index = elasticsearch.find_index(&index.name)?.ok_or_else(|| {
                Error::Rival(format!("the index {} was deleted by somebody else", index.name))
            })?;
            bindings.push(Binding {
                index_name: index.name,
                index_uuid: index.uuid,
                index_prefix: elasticsearch.prefix().to_owned(),
                cluster_uuid: self.cluster_uuid.clone(),
                database: state::load_identity(conn)?,
            });
        }
        reset(conn, &kinds, tell)?;
        for ((kind, binding), settings) in kinds.iter().zip(&bindings).zip(settings) {
            state::bind(conn, *kind, binding, &settings.to_text())?;
        }
        Ok(self.indices.into_iter().map(|index| index.name).collect())
    }

    /// Gives the alias to the new index, and takes it and all else from the former ones.
    fn switch_aliases(
        &self,
        elasticsearch: &Elasticsearch,
        index: &NewIndex,
    ) -> Result<Former, Error> {
        const ATTEMPTS_MAX: u32 = 5;
        let NewIndex { kind, name, .. } = index;
        let add = AliasAction::add(name, elasticsearch.alias(*kind));
        for _ in 1..ATTEMPTS_MAX {
            let former = Former::find(elasticsearch, *kind, name, self.replace)?;
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

/// Returns a name for a new index of a kind. In milliseconds, so that two runs in one second do not meet.
#[must_use]
pub fn name_of_new(elasticsearch: &Elasticsearch, kind: Kind) -> String {
    let time = Timestamp::now().strftime("%Y%m%d%H%M%S%3f");
    format!("{}_{time}", elasticsearch.alias(kind))
}

impl Former {
    fn find(
        elasticsearch: &Elasticsearch,
        kind: Kind,
        name: &str,
        replace: bool,
    ) -> Result<Self, Error> {
        let alias = elasticsearch.alias(kind);
        let mut found = Self::default();
        let indices = elasticsearch.load_indices(&[format!("{alias}_*")])?;
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
        for index in elasticsearch.load_indices(&[&*alias])? {
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

/// Makes an index, as it is to be while it is loaded. Returns the settings that it is to have afterwards:
/// those that the engine has made of its definition.
///
/// # Errors
///
/// Returns an error if the engine refuses the definition or is away. There may be such an index then.
pub fn create(
    elasticsearch: &Elasticsearch,
    name: &str,
    kind: Kind,
    mapping: Option<Value>,
) -> Result<IndexSettings, Error> {
    let definition = build_definition(kind, mapping);
    elasticsearch.create_index(name, &definition).map_err(|err| match err {
        elasticsearch::Error::Status { status: 400, kind, reason, .. } => {
            Error::State(format!("the engine refuses the mapping: {kind}: {reason}"))
        }
        err => err.into(),
    })?;
    let settings = elasticsearch.load_settings(name)?;
    elasticsearch.save_settings(name, &IndexSettings::of_load())?;
    Ok(settings)
}

/// Forgets all stamps. A row that a writer holds is waited for, without holding any other.
fn reset(
    conn: &mut Connection,
    kinds: &[Kind],
    mut tell: impl FnMut(&dyn Display),
) -> Result<(), Error> {
    state::forget_changes(conn, kinds)?;
    for kind in kinds.iter().copied() {
        let table = kind.table();
        let mut looked_at = 0;
        loop {
            let locked_by_others = state::reset_rows(conn, kind, |rows| {
                if rows / 100_000 > looked_at / 100_000 {
                    tell(&format_args!("reset {rows} rows of {table} so far"));
                }
                looked_at = rows;
            })?;
            if locked_by_others == 0 {
                break;
            }
            warn!(
                "{locked_by_others} rows of {table} are locked by other sessions (see pg_stat_activity); trying again"
            );
            thread::sleep(Duration::from_secs(1));
        }
    }
    Ok(())
}

/// Makes a new index in place of one that was lost, as `etl init-es` does.
///
/// # Errors
///
/// Returns an error if the index is not lost any more, if `etl init-es` is at work, or if either side
/// fails.
pub fn replace_lost_index(
    url: &DatabaseUrl,
    elasticsearch: &Elasticsearch,
    kind: Kind,
) -> Result<(), Error> {
    let mut conn = connect(url, "etl start --rebuild-lost-index")?;
    if !try_lock_setup(&mut conn)? {
        return Err(Error::Rival("`etl init-es` is at work".to_owned()));
    }
    // Nobody else makes one from here on; somebody may just have.
    match check_state(&mut conn, elasticsearch, kind) {
        Err(Error::IndexLost { .. }) => (),
        result => {
            let name = result?.index_name;
            return Err(Error::Rival(format!("the index {name} is there again")));
        }
    }
    let mapping = parse_mapping(state::load_state(&mut conn, kind)?.mapping)?;
    let switch = Switch::plan(elasticsearch, vec![(kind, mapping)], false)?;
    let names = switch.carry_out(&mut conn, elasticsearch, |line| info!("{line}"))?;
    info!("made the index {}; everything is loaded into it", names.join(", "));
    Ok(())
}

/// Reads a definition as the database keeps it.
///
/// # Errors
///
/// Returns an error if it is not JSON: somebody else has written it.
pub fn parse_mapping(text: Option<String>) -> Result<Option<Value>, Error> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|err| {
        Error::State(format!(
            "the mapping in the schema etl is not JSON ({err}): run `etl init-es`"
        ))
    })
}
