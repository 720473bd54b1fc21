//! Faults of the index: dropped, made again, or taken from behind its alias. A leader that runs under
//! `--rebuild-lost-index` puts it right by itself.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Sends a request past the proxies. Whatever becomes of it: others may have been there first.
pub fn send(stage: &Stage, method: &str, path: &str, body: &Value) -> Value {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(std::time::Duration::from_secs(20)))
        .build()
        .new_agent();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", stage.engine_url))
        .header("Content-Type", "application/json");
    let answer = match body {
        Value::Null => agent.run(request.body(()).unwrap()),
        body => agent.run(request.body(body.to_string()).unwrap()),
    };
    let text = answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The aliases that people search, without the prefix.
const KINDS: [&str; 3] = ["movies", "persons", "genres"];

/// The names of the indices that people search under an alias, with all their aliases.
pub fn searched(stage: &Stage, kind: &str) -> Vec<(String, Vec<String>)> {
    let answer = send(stage, "GET", &format!("/_alias/{}{kind}", stage.prefix), &Value::Null);
    let indices = answer.as_object().into_iter().flatten();
    let names = indices.filter(|(_, index)| index["aliases"].is_object()).map(|(name, _)| name);
    names.map(|name| (name.clone(), aliases(stage, name))).collect()
}

fn aliases(stage: &Stage, name: &str) -> Vec<String> {
    let answer = send(stage, "GET", &format!("/{name}/_alias"), &Value::Null);
    answer[name]["aliases"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

/// Has everything written to the disk, so that a restart finds documents and no log of what was done.
pub fn flush(stage: &Stage) {
    for (name, _) in KINDS.iter().flat_map(|kind| searched(stage, kind)) {
        send(stage, "POST", &format!("/{name}/_flush"), &Value::Null);
    }
}

fn draw(rng: &mut Rng) -> &'static str {
    rng.choice(KINDS).expect("some kinds")
}

/// Deletes an index.
pub fn drop_index(stage: &Stage, rng: &mut Rng) {
    let kind = draw(rng);
    for (name, _) in searched(stage, kind) {
        send(stage, "DELETE", &format!("/{name}"), &Value::Null);
    }
}

/// Deletes the index and makes an empty one with the same name and aliases, the private one, too.
pub fn remake_index(stage: &Stage, rng: &mut Rng) {
    let kind = draw(rng);
    for (name, aliases) in searched(stage, kind) {
        send(stage, "DELETE", &format!("/{name}"), &Value::Null);
        let aliases: serde_json::Map<String, Value> =
            aliases.into_iter().map(|alias| (alias, json!({}))).collect();
        let mappings = json!({ "properties": { "id": { "type": "keyword" } } });
        let index = json!({ "mappings": mappings, "aliases": aliases });
        send(stage, "PUT", &format!("/{name}"), &index);
    }
}

/// Takes the alias away that people search.
pub fn remove_alias(stage: &Stage, rng: &mut Rng) {
    let kind = draw(rng);
    for (name, _) in searched(stage, kind) {
        let remove =
            json!({ "remove": { "index": name, "alias": format!("{}{kind}", stage.prefix) } });
        send(stage, "POST", "/_aliases", &json!({ "actions": [remove] }));
    }
}
