//! Definitions of indices that users bring along.

use std::collections::HashMap;
use std::fs;

use clap::Args;
use serde_json::Value;

use super::Mistakes;
use crate::error::Error;
use crate::kind::Kind;

/// Which definitions are not to be the built-in ones.
#[derive(Debug, Args)]
pub struct MappingArgs {
    /// JSON file with the settings and mappings of an index, instead of the built-in ones; FILE alone means movies=FILE
    #[arg(
        long,
        value_name = "[KIND=]FILE",
        env = "ETL_MAPPING",
        value_delimiter = ',',
        default_value = "",
        hide_default_value = true
    )]
    mapping: Vec<String>,
}

/// The files with the definitions of kinds.
#[derive(Debug)]
pub struct MappingFiles(HashMap<Kind, String>);

impl MappingArgs {
    /// Turns the text into kinds and files, or notes what is wrong with it. Reads nothing yet.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<MappingFiles> {
        const SETTING: &str = "--mapping (ETL_MAPPING)";
        let mut files = HashMap::new();
        for raw in self.mapping.iter().filter(|raw| !raw.is_empty()) {
            // A path may have an equals sign of its own.
            let (kind, file) =
                match raw.split_once('=').filter(|(kind, _)| !kind.contains(['/', '.'])) {
                    Some((kind, file)) => (mistakes.parse(SETTING, kind)?, file),
                    None => (Kind::Movies, raw.as_str()),
                };
            if files.insert(kind, file.to_owned()).is_some() {
                mistakes.add(format!("{SETTING} names two files for {kind}"));
                return None;
            }
        }
        Some(MappingFiles(files))
    }
}

impl MappingFiles {
    /// Reads the definitions.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or is no definition of an index as we need it.
    pub fn read(self) -> Result<HashMap<Kind, Value>, Error> {
        self.0.into_iter().map(|(kind, file)| Ok((kind, read_mapping(&file)?))).collect()
    }
}

fn read_mapping(path: &str) -> Result<Value, Error> {
    let what = format!("the mapping `{path}`");
    let text = fs::read(path).map_err(|source| Error::Io { what: what.clone(), source })?;
    match serde_json::from_slice(&text) {
        // What `GET movies` gives has them: with the alias that people search, a new index would be searched
        // before it has everything.
        Ok(Value::Object(definition)) if definition.contains_key("aliases") => {
            Err(Error::State(format!("{what} has `aliases`: leave them out, they are our affair")))
        }
        // A purge after a TRUNCATE walks through the index in this order.
        Ok(Value::Object(definition))
            if definition
                .get("mappings")
                .is_some_and(|m| m["properties"]["id"]["type"] == "keyword") =>
        {
            Ok(Value::Object(definition))
        }
        Ok(_) => Err(Error::State(format!(
            "{what} is not a JSON object with `mappings` that have a property `id` of the type `keyword`"
        ))),
        Err(err) => Err(Error::State(format!("{what} is not JSON: {err}"))),
    }
}
