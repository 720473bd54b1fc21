//! The settings of an index that a load goes without: replicas and refresh.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{Elasticsearch, Error};

/// What an index has of replicas and refresh. `None` is the engine's own default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexSettings {
    /// How soon searches see what was written: `1s`, or `-1` for never.
    pub refresh_interval: Option<String>,
    /// Copies of each shard.
    pub number_of_replicas: Option<String>,
}

impl IndexSettings {
    /// What is quickest as long as nobody searches.
    #[must_use]
    pub fn of_load() -> Self {
        Self { refresh_interval: Some("-1".to_owned()), number_of_replicas: Some("0".to_owned()) }
    }

    /// Returns these settings, and instead of each the present one of another index if that is no longer
    /// what the other index was made with: somebody has changed it, and means it.
    #[must_use]
    pub fn with_changes(self, present: &Self, made_with: &Self) -> Self {
        let pick = |own, present: &Option<String>, made_with| {
            if present == made_with { own } else { present.clone() }
        };
        Self {
            refresh_interval: pick(
                self.refresh_interval,
                &present.refresh_interval,
                &made_with.refresh_interval,
            ),
            number_of_replicas: pick(
                self.number_of_replicas,
                &present.number_of_replicas,
                &made_with.number_of_replicas,
            ),
        }
    }

    /// Reads what [`Self::to_text`] has written; what cannot be read is the engine's default.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Writes the settings as JSON.
    ///
    /// # Panics
    ///
    /// Never: there are only strings in it.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("there are only strings in it")
    }
}

impl Elasticsearch {
    /// Loads the settings of an index.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such index, or if the engine is away.
    pub fn load_settings(&self, index: &str) -> Result<IndexSettings, Error> {
        let path = format!(
            "/{index}/_settings?filter_path=*.settings.index.refresh_interval,*.settings.index.number_of_replicas"
        );
        let answer: Value = self.send(Method::GET, &path, None)?;
        let found = answer.as_object().and_then(|indices| indices.values().next());
        let settings = found.map_or(&Value::Null, |index| &index["settings"]["index"]);
        Ok(IndexSettings::deserialize(settings).unwrap_or_default())
    }

    /// Gives settings to an index.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such index, if the engine refuses, or if it is away.
    pub fn save_settings(&self, index: &str, settings: &IndexSettings) -> Result<(), Error> {
        let body = json!({ "index": settings });
        self.send::<Value>(Method::PUT, &format!("/{index}/_settings"), Some(&body)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(refresh_interval: Option<&str>, number_of_replicas: &str) -> IndexSettings {
        IndexSettings {
            refresh_interval: refresh_interval.map(str::to_owned),
            number_of_replicas: Some(number_of_replicas.to_owned()),
        }
    }

    #[test]
    fn what_an_operator_has_changed_is_carried_over_and_nothing_else() {
        let (new, made_with) = (settings(Some("2s"), "1"), settings(Some("1s"), "1"));
        let present = settings(Some("1s"), "2");
        assert_eq!(new.clone().with_changes(&present, &made_with), settings(Some("2s"), "2"));
        let present = settings(None, "1");
        assert_eq!(new.with_changes(&present, &made_with), settings(None, "1"));
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let some = settings(None, "3");
        assert_eq!(IndexSettings::from_text(&some.to_text()), some);
        assert_eq!(IndexSettings::from_text("?"), IndexSettings::default());
    }
}
