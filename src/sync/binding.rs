//! What the state is bound to: an index of the engine for each kind of documents, and a database. Whether
//! they are still what they were when the stamps were made.

use crate::elasticsearch::Elasticsearch;
use crate::elasticsearch::index::{AliasAction, Index};
use crate::error::Error;
use crate::kind::Kind;
use crate::postgres::Connection;
use crate::postgres::state::{self, Binding};

/// Looks whether state, database and engine belong together. Returns what the state is bound to.
///
/// # Errors
///
/// Returns [`Error::IndexLost`] if a new index would put it right, and another error if a person must say
/// which side is right, or if either is away.
pub fn check_identity(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
) -> Result<Binding, Error> {
    let binding = bound(kind, state::load_state(conn, kind)?.binding)?;
    if binding.index_prefix != elasticsearch.prefix() {
        return Err(Error::State(format!(
            "the state belongs to the index prefix `{}`, but --index-prefix (ETL_INDEX_PREFIX) is `{}`: set it back, or run `etl init-es` to make a new index",
            binding.index_prefix,
            elasticsearch.prefix()
        )));
    }
    check_cluster(elasticsearch, kind, &binding)?;
    check_database(conn, &binding)?;
    Ok(binding)
}

/// Returns what the state of a kind is bound to.
///
/// # Errors
///
/// Returns [`Error::IndexLost`] if it is bound to nothing.
pub fn bound(kind: Kind, binding: Option<Binding>) -> Result<Binding, Error> {
    binding.ok_or_else(|| {
        let what = format!("there is no index of {kind} yet, or `etl init-es` was not finished");
        Error::IndexLost { kind, what }
    })
}

/// Looks whether state, database and engine fit, and the index is there. Returns what the state is bound to.
///
/// # Errors
///
/// As [`check_identity`] and [`check_indices`].
pub fn check_state(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    kind: Kind,
) -> Result<Binding, Error> {
    let binding = check_identity(conn, elasticsearch, kind)?;
    check_indices(elasticsearch, &[(kind, &binding)])?;
    Ok(binding)
}

/// Makes sure that the engine is the one of the state, as far as we are allowed to see.
fn check_cluster(
    elasticsearch: &Elasticsearch,
    kind: Kind,
    binding: &Binding,
) -> Result<(), Error> {
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
    if elasticsearch.load_indices(&[elasticsearch.alias(kind)])?.is_empty() {
        let what = format!("{what} (is --elasticsearch-url, ELASTICSEARCH_URL, right?)");
        return Err(Error::IndexLost { kind, what });
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

/// Makes sure that the index of each kind is there, is the one of the state, and is what people search. Asks
/// once for all.
///
/// # Errors
///
/// Returns [`Error::IndexLost`] for the first of which this is not so, and another error if the engine is away.
pub fn check_indices(
    elasticsearch: &Elasticsearch,
    bindings: &[(Kind, &Binding)],
) -> Result<(), Error> {
    let patterns: Vec<String> = bindings
        .iter()
        .flat_map(|(kind, binding)| [binding.index_name.clone(), elasticsearch.alias(*kind)])
        .collect();
    let indices = elasticsearch.load_indices(&patterns)?;
    for (kind, binding) in bindings {
        check_index(&indices, &elasticsearch.alias(*kind), *kind, binding)?;
    }
    Ok(())
}

fn check_index(indices: &[Index], alias: &str, kind: Kind, binding: &Binding) -> Result<(), Error> {
    let name = &binding.index_name;
    let searched = |index: &Index| index.aliases.contains_key(alias);
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
    Err(Error::IndexLost { kind, what })
}

/// Lets the private write aliases of indices carry this epoch alone, in one request. What is on its way
/// through older ones is refused from now on.
///
/// # Errors
///
/// Returns an error if the engine is away, or if the state is behind the engine. The aliases may be older ones
/// then.
pub fn replace_write_aliases(
    conn: &mut Connection,
    elasticsearch: &Elasticsearch,
    index_names: &[&str],
    epoch: i64,
) -> Result<(), Error> {
    // All indices that have one: a copy that was restored from a snapshot has it, too.
    let patterns: Vec<String> = index_names
        .iter()
        .flat_map(|name| [format!("{}*", Index::write_alias_stem(name)), (*name).to_owned()])
        .collect();
    let indices = elasticsearch.load_indices(&patterns)?;
    let mut actions = Vec::new();
    for name in index_names {
        let private = Index::write_alias_stem(name);
        let mut latest = 0;
        for Index { name: index, aliases, .. } in &indices {
            for alias in aliases.keys().filter(|alias| alias.starts_with(&private)) {
                latest = latest.max(alias[private.len()..].parse().unwrap_or(0));
                actions.push(AliasAction::Remove { index: index.clone(), alias: alias.clone() });
            }
        }
        // The alias is made after its epoch, so there is none of an epoch that the state has yet to see.
        if latest > epoch && latest > state::load_epoch(conn)? {
            return Err(Error::State(format!(
                "the index {name} was written under epoch {latest}, but the state is at {epoch} (the database was restored since, so the stamps may not be true): run `etl init-es`"
            )));
        }
        actions.push(AliasAction::add(name, Index::write_alias(name, epoch)));
    }
    Ok(elasticsearch.update_aliases(&actions)?)
}
