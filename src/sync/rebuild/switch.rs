//! The new index takes the place of the live one, and the former one goes.

use log::{info, warn};

use super::{Filling, remove};
use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::index::{AliasAction, Index};
use crate::elasticsearch::settings::IndexSettings;
use crate::error::{Error, chain};
use crate::kind::Kind;
use crate::postgres::rebuild::{
    Rebuild, begin_switching, find_retired, finish_switching, forget_retired, load_rebuild,
    put_off_switching,
};
use crate::postgres::{Connection, state};
use crate::sync::session::Session;

/// Lets the new index take the place of the live one. Returns false if the engine does not let it.
pub(super) fn finish(session: &mut Session, kind: Kind, filling: &Filling) -> Result<bool, Error> {
    let Session { conn, elasticsearch, epoch, .. } = session;
    // One that is left of the last rebuild: its name is about to be replaced.
    remove_retired(conn, elasticsearch, kind, true)?;
    let state = state::load_state(conn, kind)?;
    let live = state.binding.map(|binding| binding.index_name).unwrap_or_default();
    let present = elasticsearch.load_settings(&live)?;
    let own = filling.settings.clone();
    let settings = match state.settings.filter(|_| !state.is_loading) {
        Some(made_with) => own.with_changes(&present, &IndexSettings::from_text(&made_with)),
        None => own,
    };
    if begin_switching(conn, kind, *epoch, &settings.to_text())?
        && let Some(rebuild) = load_rebuild(conn, kind)?
    {
        return finish_switch(conn, elasticsearch, kind, &rebuild);
    }
    // Cancelled, or somebody else leads.
    Ok(true)
}

/// Lets the new index take the place of the live one, as far as that is not done yet. Returns false if the engine
/// does not let it.
pub(super) fn finish_switch(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    rebuild: &Rebuild,
) -> Result<bool, Error> {
    let name = &rebuild.index_name;
    let Some(binding) = state::load_state(conn, kind)?.binding else {
        // `etl init-es` has just unbound it, and ended this.
        return Ok(true);
    };
    let live = binding.index_name;
    let alias = elasticsearch.alias(kind);
    let indices = elasticsearch.load_indices(&[name.as_str(), &live])?;
    let Some(new) = indices.iter().find(|index| index.name == *name) else {
        warn!("the new index {name} was deleted by somebody else");
        put_off_switching(conn, kind, name)?;
        return Ok(false);
    };
    if !new.aliases.contains_key(&alias) {
        let settings = IndexSettings::from_text(rebuild.settings.as_deref().unwrap_or_default());
        elasticsearch.save_settings(name, &settings)?;
        elasticsearch.refresh(name)?;
        let old = indices.iter().find(|index| index.name == live);
        match elasticsearch.update_aliases(&switch_actions(new, old, alias)) {
            // While a snapshot is taken of it, for instance, an index cannot be deleted.
            Err(err) if !err.is_transient() => {
                warn!("the new index {name} cannot take the place of {live} yet: {}", chain(&err));
                put_off_switching(conn, kind, name)?;
                return Ok(false);
            }
            result => result?,
        }
    }
    finish_switching(conn, kind, name)?;
    info!("the index {name} has taken the place of {live}");
    Ok(true)
}

/// Everything that has to happen at once: the new index gets the aliases of the old one, with their filters and
/// routings.
fn switch_actions(new: &Index, old: Option<&Index>, alias: String) -> Vec<AliasAction> {
    let mut actions = Vec::new();
    let mut is_added = false;
    if let Some(old) = old {
        let private = Index::write_alias_stem(&old.name);
        for (name, properties) in &old.aliases {
            actions.push(AliasAction::Remove { index: old.name.clone(), alias: name.clone() });
            if !name.starts_with(&private) {
                is_added |= *name == alias;
                let (index, alias) = (new.name.clone(), name.clone());
                actions.push(AliasAction::Add { index, alias, properties: properties.clone() });
            }
        }
    }
    if !is_added {
        actions.push(AliasAction::add(&new.name, alias));
    }
    actions
}

/// Deletes the index that was live before a rebuild. Not together with the switch: searches may be at work in it.
/// Returns whether it was deleted.
///
/// # Errors
///
/// Returns an error if PostgreSQL fails. That the engine does not delete it (a snapshot is taken of it) is no
/// failure: it is tried again.
pub(in crate::sync) fn remove_retired(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
    at_once: bool,
) -> Result<bool, Error> {
    let Some(name) = find_retired(conn, kind, at_once)?.filter(|name| remove(elasticsearch, name))
    else {
        return Ok(false);
    };
    forget_retired(conn, kind, &name)?;
    info!("removed the former index {name}");
    Ok(true)
}
