//! A new index beside the live one, filled while the live one is kept in step, until it takes its place.
//!
//! What is asked for is a row of `etl.rebuild` ([`crate::postgres::rebuild`]); whoever leads sees to it, and
//! goes on where another has stopped. The order makes it safe to kill:
//!
//! 1. The new index is made at the beginning of a term, after its epoch ([`prepare`]): nothing that the live
//!    index alone has acknowledged is stamped any more. From then on whatever is sent goes to both indices,
//!    and a stamp, or a forgotten tombstone, needs the acknowledgement of both ([`send`](crate::sync::session::Session::send)).
//! 2. All rows are read in the order of their ids, and their documents sent to the new index alone, with the
//!    versions of the rows: whatever changes meanwhile has a higher one ([`advance`]). How far that has come is
//!    noted after the acknowledgement, page by page ([`settle_fill`]). No edit waits for it; the deletion of a row
//!    does whose document is on its way.
//! 3. The new index is compared with the rows. Then it gets its settings, and the aliases of the live one in one
//!    request ([`finish_switch`]); the state is bound to it last. The former one is deleted some seconds later,
//!    when no search is at work in it any more ([`remove_retired`]).
//!
//! Whatever only the new index refuses ends this, and never the live side. No index is deleted that can be live:
//! it has lost its name in `etl.rebuild` before, under the epoch of the term.

mod comparison;
mod counting;
mod fill;
mod switch;

use std::collections::HashMap;
use std::time::Instant;

use log::{error, info, warn};
use uuid::Uuid;

use self::counting::Counting;
use self::fill::Fill;
pub(super) use self::fill::{advance, settle_fill};
use self::switch::finish_switch;
pub(super) use self::switch::remove_retired;
use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::index::Index;
use crate::elasticsearch::settings::IndexSettings;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::rebuild::{
    Phase, Rebuild, begin_filling, fail, forget_rebuild, load_rebuild, rename,
};
use crate::postgres::{Connection, DatabaseUrl};
use crate::sync::new_index::{create, name_of_new, parse_mapping};

/// An index that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    pub index_name: String,
    fill: Fill,
    /// What it is to have once it is filled.
    settings: IndexSettings,
    /// Since when it is.
    full_since: Option<Instant>,
    /// Where the documents and rows are counted with a session of its own.
    url: DatabaseUrl,
    /// They are being counted, or have been.
    counting: Option<Counting>,
    /// How often it did not have the right number of documents.
    miscounts: u32,
    /// The documents that were not what the database gives when they were last looked at, and how often in a row.
    different: HashMap<Uuid, u32>,
    /// A writer held a row, or the engine did not let it take the place of the live one: not before this is it gone
    /// on with.
    put_off_until: Option<Instant>,
}

/// What one part of a rebuild has done.
#[derive(Debug)]
pub(super) enum Progress {
    /// Documents are on their way.
    Sent,
    /// There is nothing to be done before something else is.
    Waiting,
    /// The state has moved: the term is over.
    TermOver,
}

/// Sees to what was asked for, at the beginning of a term: makes a new index, removes one that is not wanted any
/// more, ends a switch that was begun. Returns the index that is to be filled.
///
/// Nothing has been sent in this term yet, and what was read in others can no longer be stamped: from here on
/// whatever is done has to be done in both indices.
///
/// # Errors
///
/// Returns an error if either side fails; what was asked for still is, then.
pub(super) fn prepare(
    conn: &mut Connection,
    url: &DatabaseUrl,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
) -> Result<Option<Filling>, Error> {
    let Some(rebuild) = load_rebuild(conn, kind)? else { return Ok(None) };
    let name = &rebuild.index_name;
    match rebuild.phase {
        Phase::Requested => make(conn, elasticsearch, kind, epoch, &rebuild)?,
        Phase::Filling => {
            let index = elasticsearch.find_index(name)?;
            if index.map(|index| index.uuid) != rebuild.index_uuid {
                let failure = format!("the new index {name} was deleted or replaced");
                give_up(conn, elasticsearch, kind, epoch, name, &failure)?;
            }
        }
        Phase::Switching => drop(finish_switch(conn, elasticsearch, kind, &rebuild)?),
        // Neither is ever live again, whoever looks at it when.
        Phase::Cancelled => {
            if remove(elasticsearch, name) {
                forget_rebuild(conn, kind)?;
                info!("removed the new index {name}");
            }
        }
        Phase::Failed => drop(remove(elasticsearch, name)),
    }
    let rebuild = load_rebuild(conn, kind)?.filter(|rebuild| rebuild.phase == Phase::Filling);
    Ok(rebuild.map(|rebuild| Filling {
        index_name: rebuild.index_name,
        fill: Fill::after(rebuild.filled_to),
        settings: IndexSettings::from_text(&rebuild.settings.unwrap_or_default()),
        full_since: None,
        url: url.clone(),
        counting: None,
        miscounts: 0,
        different: HashMap::new(),
        put_off_until: None,
    }))
}

/// Removes an index that is not wanted. Returns whether it is gone: that it cannot be removed for now (a snapshot is
/// taken of it, a right is missing) keeps nobody from anything.
fn remove(elasticsearch: &Elasticsearch, name: &str) -> bool {
    let result = elasticsearch.delete_index(name);
    if let Err(err) = &result {
        warn!("the index {name} is not needed, and could not be removed: {}", chain(err));
    }
    result.is_ok()
}

fn make(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
    rebuild: &Rebuild,
) -> Result<(), Error> {
    let mut name = rebuild.index_name.clone();
    if elasticsearch.find_index(&name)?.is_some() {
        // A process that was killed has made it, and not noted that. It is not removed before it has lost its
        // name here: who was frozen must not remove what is live when it wakes up.
        let fresh = name_of_new(elasticsearch, kind);
        if !rename(conn, kind, epoch, &fresh)? {
            return Ok(());
        }
        remove(elasticsearch, &name);
        name = fresh;
    }
    let settings = match create(elasticsearch, &name, kind, parse_mapping(rebuild.mapping.clone())?)
    {
        Err(err) if !err.is_transient() => {
            return give_up(conn, elasticsearch, kind, epoch, &name, &chain(&err));
        }
        result => result?,
    };
    let Some(Index { uuid, .. }) = elasticsearch.find_index(&name)? else {
        return Err(Error::Rival(format!("the index {name} was deleted by somebody else")));
    };
    if begin_filling(conn, kind, epoch, &uuid, &settings.to_text())? {
        info!("made the index {name}, which is filled beside the live one");
    } else {
        // Cancelled, or somebody else leads and makes another one.
        remove(elasticsearch, &name);
    }
    Ok(())
}

/// Gives a new index up: the live one alone counts from now on. Does nothing if this term is over.
pub(super) fn give_up(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    epoch: i64,
    index_name: &str,
    failure: &str,
) -> Result<(), Error> {
    if fail(conn, kind, epoch, index_name, failure)? {
        error!("the rebuild of {kind} was stopped, the live index is as it was: {failure}");
        remove(elasticsearch, index_name);
    }
    Ok(())
}
