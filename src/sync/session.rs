//! A term of the leader: one connection, one epoch, one private write alias.
//!
//! After any failure the term is over and a new one begins, with a new epoch and a new alias, so
//! that nothing of the old one can do harm any more, however late it arrives.

use std::time::{Duration, Instant};

use log::{debug, info};

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::bulk::{BulkBody, Outcome};
use crate::elasticsearch::index::{ALIAS, AliasAction, Index};
use crate::error::Error;
use crate::postgres::film_work::count_pending;
use crate::postgres::lock::{Lock, find_holder, try_lock_setup};
use crate::postgres::state::{self, Binding};
use crate::postgres::{Connection, DatabaseUrl, connect};
use crate::sync::films::FilmQueue;
use crate::sync::leader::Leadership;
use crate::sync::limits::Limits;
use crate::sync::new_index::Switch;
use crate::sync::touches::Places;

/// How often the engine is asked whether the index is still the one of the state …
const BINDING_CHECK: Duration = Duration::from_secs(2);

/// … and how many times as long as its answer took we wait at least: an engine that is slow to answer
/// is to spend its time on documents.
const BINDING_CHECK_SHARE: u32 = 10;

/// All that a step needs.
pub struct Session<'a> {
    pub(super) conn: Connection,
    pub(super) elasticsearch: &'a Elasticsearch,
    pub(super) limits: Limits,
    pub(super) epoch: i64,
    pub(super) films: FilmQueue,
    pub(super) places: Places,
    leadership: &'a Leadership,
    binding: Binding,
    next_binding_check: Instant,
}

impl<'a> Session<'a> {
    /// Begins a term: looks whether state, database and engine fit, moves the epoch, and replaces the
    /// private write alias.
    ///
    /// # Errors
    ///
    /// Returns an error if they do not fit, or if either side fails. Nothing has been sent then.
    pub fn begin(
        url: &DatabaseUrl,
        elasticsearch: &'a Elasticsearch,
        leadership: &'a Leadership,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut conn = connect(url, "etl")?;
        if !leadership.is_confirmed(&mut conn)? {
            return Err(lost_lead());
        }
        let binding = match check_state(&mut conn, elasticsearch) {
            Err(Error::IndexLost(_)) if find_holder(&mut conn, Lock::Setup)?.is_some() => {
                return Err(Error::Rival("`etl init-es` is at work".to_owned()));
            }
            result => result?,
        };
        let moved = state::move_epoch(&mut conn)?;
        if moved.binding.as_ref() != Some(&binding) {
            return Err(Error::Rival("the state is being changed by `etl init-es`".to_owned()));
        }
        replace_write_alias(&mut conn, elasticsearch, &binding.index_name, moved.epoch)?;
        debug!("term {} of index {} begins", moved.epoch, binding.index_name);
        Ok(Self {
            conn,
            elasticsearch,
            limits,
            epoch: moved.epoch,
            films: FilmQueue::default(),
            places: Places::default(),
            leadership,
            binding,
            next_binding_check: Instant::now() + BINDING_CHECK,
        })
    }

    /// Sends as much at a time from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Returns the index that is kept.
    #[must_use]
    pub fn index_name(&self) -> &str {
        &self.binding.index_name
    }

    /// Counts the films that are pending.
    ///
    /// # Errors
    ///
    /// Returns an error if the statement fails.
    pub fn count_pending(&mut self) -> Result<u64, Error> {
        Ok(count_pending(&mut self.conn)?)
    }

    /// Makes sure that this process still leads.
    pub(super) fn check_leadership(&self) -> Result<(), Error> {
        if self.leadership.is_held() { Ok(()) } else { Err(lost_lead()) }
    }

    /// Makes sure every now and then that the index is still the one that the stamps speak of: what
    /// goes through the private alias would notice that it is gone, but not that people search
    /// another index.
    pub(super) fn check_binding_now_and_then(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        if asked < self.next_binding_check {
            return Ok(());
        }
        check_index(self.elasticsearch, &self.binding)?;
        self.next_binding_check =
            Instant::now() + BINDING_CHECK.max(asked.elapsed() * BINDING_CHECK_SHARE);
        Ok(())
    }

    /// Sends one bulk request through the private write alias.
    pub(super) fn send(&self, body: &BulkBody) -> Result<Vec<Outcome>, Error> {
        // Last, right before sending: a process that was frozen must not send when it wakes up.
        self.check_leadership()?;
        let alias = Index::write_alias(&self.binding.index_name, self.epoch);
        Ok(self.elasticsearch.bulk(&alias, body, self.limits.timeout)?)
    }
}

fn lost_lead() -> Error {
    Error::Rival("the lead was lost: the session that held its lock has ended".to_owned())
}

/// Looks whether state, database and engine fit. Returns what the state is bound to.
fn check_state(conn: &mut Connection, elasticsearch: &Elasticsearch) -> Result<Binding, Error> {
    let Some(binding) = state::load_state(conn)?.binding else {
        return Err(Error::IndexLost(
            "there is no index yet, or `etl init-es` was not finished".to_owned(),
        ));
    };
    if binding.index_prefix != elasticsearch.prefix() {
        return Err(Error::State(format!(
            "the state belongs to the index prefix `{}`, but --index-prefix (ETL_INDEX_PREFIX) is `{}`: set it back, or run `etl init-es` to make a new index",
            binding.index_prefix,
            elasticsearch.prefix()
        )));
    }
    check_cluster(elasticsearch, &binding)?;
    check_index(elasticsearch, &binding)?;
    check_database(conn, &binding)?;
    Ok(binding)
}

/// Makes sure that the engine is the one of the state, as far as we are allowed to see.
fn check_cluster(elasticsearch: &Elasticsearch, binding: &Binding) -> Result<(), Error> {
    let cluster_uuid = elasticsearch.load_identity()?.cluster_uuid;
    let is_unknown = cluster_uuid.is_empty() || binding.cluster_uuid.is_empty();
    if is_unknown || cluster_uuid == binding.cluster_uuid {
        return Ok(());
    }
    let what = format!(
        "the engine is cluster {cluster_uuid}, but the state belongs to cluster {} with the index {}",
        binding.cluster_uuid, binding.index_name
    );
    // An engine whose data was lost comes back as another cluster, and has nothing.
    if elasticsearch.load_indices(&elasticsearch.prefixed(ALIAS))?.is_empty() {
        return Err(Error::IndexLost(format!(
            "{what} (is --elasticsearch-url, ELASTICSEARCH_URL, right?)"
        )));
    }
    Err(Error::State(format!(
        "{what}: set --elasticsearch-url (ELASTICSEARCH_URL) back, or run `etl init-es`"
    )))
}

fn check_database(conn: &mut Connection, binding: &Binding) -> Result<(), Error> {
    let database = state::load_identity(conn)?;
    if database == binding.database {
        return Ok(());
    }
    Err(Error::State(format!(
        "the database is {database}, but the stamps were made on {} (it was restored, copied or failed over since, so they may not be true): run `etl init-es`",
        binding.database
    )))
}

/// Makes sure that the index is there, is the one of the state, and is what people search.
fn check_index(elasticsearch: &Elasticsearch, binding: &Binding) -> Result<(), Error> {
    let name = &binding.index_name;
    let alias = elasticsearch.prefixed(ALIAS);
    let indices = elasticsearch.load_indices(&format!("{name},{alias}"))?;
    let searched = |index: &Index| index.aliases.contains(&alias);
    let other = indices.iter().find(|index| index.name != *name && searched(index));
    let what = match (indices.iter().find(|index| index.name == *name), other) {
        (None, _) => format!("the index {name} is missing"),
        (Some(index), _) if index.uuid != binding.index_uuid => format!(
            "the index {name} is not the one that was filled: it was deleted and made again, or restored"
        ),
        (Some(index), _) if !searched(index) => {
            format!("the alias {alias} was removed from the index {name}")
        }
        (_, Some(other)) => {
            format!(
                "the alias {alias} stands for the index {}, too, and not for {name} alone",
                other.name
            )
        }
        _ => return Ok(()),
    };
    Err(Error::IndexLost(what))
}

/// Makes a new index in place of one that was lost, as `etl init-es` does. Returns its name.
///
/// # Errors
///
/// Returns an error if the index is not lost any more, if `etl init-es` is at work, or if either side
/// fails.
pub fn rebuild_lost_index(
    url: &DatabaseUrl,
    elasticsearch: &Elasticsearch,
) -> Result<String, Error> {
    let mut conn = connect(url, "etl start --rebuild-lost-index")?;
    if !try_lock_setup(&mut conn)? {
        return Err(Error::Rival("`etl init-es` is at work".to_owned()));
    }
    // Nobody else makes one from here on; somebody may just have.
    match check_state(&mut conn, elasticsearch) {
        Err(Error::IndexLost(_)) => (),
        result => {
            let name = result?.index_name;
            return Err(Error::Rival(format!("the index {name} is there again")));
        }
    }
    let mapping = state::load_state(&mut conn)?.mapping;
    let mapping = mapping.map(|text| serde_json::from_str(&text)).transpose().map_err(|err| {
        Error::State(format!("the mapping in etl.state is not JSON ({err}): run `etl init-es`"))
    })?;
    let switch = Switch::plan(elasticsearch, false)?;
    switch.carry_out(&mut conn, elasticsearch, mapping, |line| info!("{line}"))
}

/// Lets the private write alias carry this epoch alone, in one request. What is on its way through an
/// older one is refused from now on.
fn replace_write_alias(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    index_name: &str,
    epoch: i64,
) -> Result<(), Error> {
    let private = Index::write_alias_stem(index_name);
    // All indices that have one: a copy that was restored from a snapshot has it, too.
    let indices = elasticsearch.load_indices(&format!("{private}*,{index_name}"))?;
    let mut actions = Vec::new();
    let mut latest = 0;
    for index in indices {
        for alias in index.aliases.into_iter().filter(|alias| alias.starts_with(&private)) {
            latest = latest.max(alias[private.len()..].parse().unwrap_or(0));
            actions.push(AliasAction::Remove { index: index.name.clone(), alias });
        }
    }
    // The alias is made after its epoch, so there is none of an epoch that the state has yet to see.
    if latest > epoch && latest > state::load_state(conn)?.epoch {
        return Err(Error::State(format!(
            "the index {index_name} was written under epoch {latest}, but the state is at {epoch} (the database was restored since, so the stamps may not be true): run `etl init-es`"
        )));
    }
    let alias = Index::write_alias(index_name, epoch);
    actions.push(AliasAction::Add { index: index_name.to_owned(), alias });
    Ok(elasticsearch.update_aliases(&actions)?)
}
