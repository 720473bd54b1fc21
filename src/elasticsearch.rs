//! The sink: one client for Elasticsearch and OpenSearch, and what can go wrong there.
//!
//! Only this module and those below it name ureq. Reference:
//! <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/rest-apis.html>, and
//! <https://docs.opensearch.org/2.19/api-reference/>; what is used is the same in both.

pub mod bulk;
pub mod index;
pub mod search;
pub mod settings;

mod error;
mod url;

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::kind::Kind;

pub use self::error::Error;
pub use self::url::{EngineUrl, IndexPrefix};

/// What the settings say of the engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Where it is, and who we are to it.
    pub url: EngineUrl,
    /// Put before the names of all indices and aliases.
    pub prefix: IndexPrefix,
    /// The certificate (PEM) of the authority that signed the engine's, if it is not a public one.
    pub authority: Option<Vec<u8>>,
}

/// A client for one engine. Keeps connections alive; opens none when made.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    agent: Agent,
    url: EngineUrl,
    prefix: IndexPrefix,
    is_compressing: bool,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Made when the cluster was. Empty if we are not allowed to see it.
    pub cluster_uuid: String,
}

/// For all requests but bulk requests, which have limits of their own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many connections are kept alive: one for each thread that sends, and more than there can be.
const CONNECTIONS_MAX: usize = 100;

/// Enough for the answer to the largest bulk request, and for the ids of a page of a search.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

impl Elasticsearch {
    /// Makes a client. Opens no connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the certificate of the settings is none.
    pub fn new(engine: &Engine) -> Result<Self, Error> {
        let root_certs = match &engine.authority {
            Some(pem) => {
                let certificate = Certificate::from_pem(pem).map_err(Error::Certificate)?;
                RootCerts::new_with_certs(&[certificate])
            }
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            // The body of a 4xx is the useful part.
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(TIMEOUT))
            .max_idle_connections_per_host(CONNECTIONS_MAX)
            .tls_config(TlsConfig::builder().root_certs(root_certs).build());
        // A proxy of the environment is for other hosts than this one.
        let config = if engine.url.is_loopback() { config.proxy(None) } else { config };
        let agent = config.build().new_agent();
        Ok(Self {
            agent,
            url: engine.url.clone(),
            prefix: engine.prefix.clone(),
            is_compressing: false,
        })
    }

    /// Compresses bulk requests from now on, if told so. Answers are never compressed: they are short.
    #[must_use]
    pub fn compressing(self, is_compressing: bool) -> Self {
        Self { is_compressing, ..self }
    }

    /// Returns the alias that people search, with the prefix.
    #[must_use]
    pub fn alias(&self, kind: Kind) -> String {
        format!("{}{}", self.prefix.as_str(), kind.alias())
    }

    /// Returns the prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.prefix.as_str()
    }

    /// Asks the engine who it is.
    ///
    /// # Errors
    ///
    /// Returns an error if it is away, or if what answers is neither Elasticsearch nor OpenSearch.
    pub fn load_identity(&self) -> Result<Identity, Error> {
        #[derive(Deserialize)]
        struct Root {
            #[serde(rename = "version")]
            _version: Version,
            cluster_uuid: String,
        }
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "number")]
            _number: String,
        }
        match self.send::<Root>(Method::GET, "/", None) {
            // What a node says before it has found or formed its cluster.
            Ok(Root { cluster_uuid, .. }) if cluster_uuid == "_na_" => Err(Error::Starting),
            Ok(Root { cluster_uuid, .. }) => Ok(Identity { cluster_uuid }),
            // A user with rights on indices only. That it is the right engine is then known by the
            // UUID of the index alone.
            Err(Error::Status { status: 403, kind, .. }) if kind == "security_exception" => {
                Ok(Identity { cluster_uuid: String::new() })
            }
            Err(Error::Decode { .. }) => Err(Error::NotAnEngine(self.url.to_string())),
            Err(Error::Status { status: 400 | 404 | 405, .. }) => {
                Err(Error::NotAnEngine(self.url.to_string()))
            }
            Err(err) => Err(err),
        }
    }

    /// Sends a request and reads the answer of a status below 300 as `T`.
    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = Body {
            content_type: "application/json",
            bytes: bytes.as_deref(),
            is_compressed: false,
            is_asked_first: false,
        };
        self.send_bytes(method, path, body, TIMEOUT)
    }

    /// The one place that sends.
    fn send_bytes<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body<'_>,
        timeout: Duration,
    ) -> Result<T, Error> {
        // The query says how we want the answer, which is of no interest to a reader of a log.
        let name = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let broken = |source: ureq::Error| Error::Send { request: name.clone(), source };

        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.url.base()));
        if let Some(authorization) = self.url.authorization() {
            request = request.header("Authorization", authorization);
        }
        let answer = match body.bytes {
            Some(bytes) => {
                if body.is_compressed {
                    request = request.header("Content-Encoding", "gzip");
                }
                if body.is_asked_first {
                    request = request.header("Expect", "100-continue");
                }
                let request = request.header("Content-Type", body.content_type).body(bytes);
                let request = request.map_err(|err| broken(err.into()))?;
                let limited =
                    self.agent.configure_request(request).timeout_global(Some(timeout)).build();
                self.agent.run(limited)
            }
            None => self.agent.run(request.body(()).map_err(|err| broken(err.into()))?),
        };
        let mut answer = answer.map_err(broken)?;
        let status = answer.status();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(broken)?;
        if status == StatusCode::OK || status == StatusCode::CREATED {
            serde_json::from_slice(&bytes).map_err(|source| Error::Decode { request: name, source })
        } else {
            Err(Error::from_answer(name, status.as_u16(), &bytes))
        }
    }
}

/// What goes up with a request.
#[derive(Clone, Copy)]
struct Body<'a> {
    content_type: &'static str,
    bytes: Option<&'a [u8]>,
    /// The bytes are packed by gzip.
    is_compressed: bool,
    /// The server is asked whether it takes the bytes before they are sent. One that does not answer
    /// gets them after a second.
    is_asked_first: bool,
}
