//! Streams and consumers against their configuration: plan, apply, check.
//!
//! What is wanted comes from the catalog or from files in the broker's own JSON form; what is there
//! comes from the broker's API. Only what the configuration names is compared.

mod desired;
mod difference;

use std::fmt;
use std::path::Path;

use deltran_events::topology::Profile;
use serde_json::{Value, json};

use crate::broker::{Broker, BrokerError};
pub(crate) use difference::SERVER_METADATA;
pub use difference::{Difference, Effect};

pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
const CONSUMER_NOT_FOUND: u64 = 10014;
pub(crate) const MESSAGE_NOT_FOUND: u64 = 10037;
/// Somebody else created it with another configuration since the plan was made.
const TAKEN: [u64; 2] = [10058, 10148];

/// Why streams and consumers are not as configured.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The broker does not answer.
    #[error("{0}: is the broker running, with JetStream enabled?")]
    Unavailable(BrokerError),
    /// The configuration cannot be read.
    #[error("configuration {origin}: {cause}")]
    Configuration {
        /// The file or folder.
        origin: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The broker refused a change.
    #[error("the broker refused {target}: {description} (error {code})")]
    Refused {
        /// The stream or consumer.
        target: Target,
        /// The broker's error code.
        code: u64,
        /// The broker's words.
        description: String,
    },
    /// Changes that need an explicit word. Nothing was changed.
    #[error(
        "nothing was changed, because these changes narrow what is kept or read; allow them with --allow-narrowing:\n{0}"
    )]
    Narrowing(String),
    /// Differences that no update can remove. Nothing was changed.
    #[error("nothing was changed, because these differences cannot be removed in place:\n{0}")]
    Unchangeable(String),
}

impl From<TopologyError> for BrokerError {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::Unavailable(error) => error,
            other => Self::new(other),
        }
    }
}

/// A stream or a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A stream by name.
    Stream(String),
    /// A consumer by stream and name.
    Consumer(String, String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(name) => write!(f, "stream {name}"),
            Self::Consumer(stream, name) => write!(f, "consumer {name} of {stream}"),
        }
    }
}

/// What has to be done about a stream or consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    Create,
    /// It differs, and the new configuration keeps and reads at least as much.
    Update,
    /// It differs, and the new configuration keeps or reads less.
    Narrow,
    /// It differs in what the broker, or safety, does not let change in place.
    Unchangeable,
}

/// A stream or consumer that is not as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which one.
    pub target: Target,
    /// What has to be done.
    pub kind: Kind,
    /// Field by field; empty where it is not there at all.
    pub differences: Vec<Difference>,
    desired: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, word) = match self.kind {
            Kind::Create => ("+", "create"),
            Kind::Update => ("~", "update"),
            Kind::Narrow => ("-", "update (narrowing)"),
            Kind::Unchangeable => ("!", "cannot be changed"),
        };
        write!(f, "{mark} {}: {word}", self.target)?;
        for difference in &self.differences {
            write!(f, "\n    {difference}")?;
        }
        Ok(())
    }
}

/// What is not as configured, in the order in which it is to be changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// One entry per stream or consumer that differs.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Whether everything is as configured.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes of a kind, as text.
    fn of_kind(&self, kind: Kind) -> Option<String> {
        let lines: Vec<String> = self.changes.iter().filter(|c| c.kind == kind).map(Change::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("streams and consumers are as configured");
        }
        for (i, change) in self.changes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            change.fmt(f)?;
        }
        Ok(())
    }
}

/// Compares the broker with the catalog, or with the files of a folder like `setup/`.
///
/// # Errors
/// Where the files do not fit or the broker does not answer.
pub async fn plan(broker: &Broker, profile: Profile, dir: Option<&Path>) -> Result<Plan, TopologyError> {
    let wanted = match dir {
        None => desired::catalog(profile),
        Some(dir) => desired::files(dir, profile)?,
    };
    let mut changes = Vec::new();
    for (target, desired) in wanted {
        let (kind, differences) = match actual(broker, &target).await? {
            None => (Kind::Create, Vec::new()),
            Some(actual) => {
                let differences = difference::between(&target, &actual, &desired);
                let Some(kind) = kind_of(&differences) else { continue };
                (kind, differences)
            }
        };
        changes.push(Change { target, kind, differences, desired });
    }
    Ok(Plan { changes })
}

fn kind_of(differences: &[Difference]) -> Option<Kind> {
    let has = |effect: fn(&Effect) -> bool| differences.iter().any(|d| effect(&d.effect));
    if differences.is_empty() {
        None
    } else if has(|e| matches!(e, Effect::Unchangeable(_))) {
        Some(Kind::Unchangeable)
    } else if has(|e| *e == Effect::Narrows) {
        Some(Kind::Narrow)
    } else {
        Some(Kind::Update)
    }
}

/// Makes the changes of a plan, streams before their consumers and before the streams that source
/// them; returns what was done, a line each. Any number of processes may do so at once.
///
/// # Errors
/// [`TopologyError::Unchangeable`] and [`TopologyError::Narrowing`] before anything is changed;
/// otherwise where the broker refuses a change, after those before it were made.
pub async fn apply(broker: &Broker, plan: &Plan, allow_narrowing: bool) -> Result<Vec<String>, TopologyError> {
    if let Some(changes) = plan.of_kind(Kind::Unchangeable) {
        return Err(TopologyError::Unchangeable(changes));
    }
    if let Some(changes) = plan.of_kind(Kind::Narrow)
        && !allow_narrowing
    {
        return Err(TopologyError::Narrowing(changes));
    }
    let mut done = Vec::with_capacity(plan.changes.len());
    for change in &plan.changes {
        let line = match change.kind {
            Kind::Create => create(broker, change).await?,
            _ => update(broker, change).await?,
        };
        tracing::info!(change = line, "topology");
        done.push(line);
    }
    Ok(done)
}

async fn create(broker: &Broker, change: &Change) -> Result<String, TopologyError> {
    let (subject, body) = match &change.target {
        Target::Stream(name) => (format!("STREAM.CREATE.{name}"), change.desired.clone()),
        Target::Consumer(stream, name) => consumer_request(stream, name, "create", &change.desired),
    };
    match request(broker, &change.target, subject, &body).await {
        Ok(_) => Ok(format!("created {}", change.target)),
        Err(TopologyError::Refused { code, .. }) if TAKEN.contains(&code) => {
            // The same configuration from another process is not refused; this one differs by what nobody
            // named, or by what the plan would have shown.
            let actual = actual(broker, &change.target).await?.unwrap_or(Value::Null);
            let differences = difference::between(&change.target, &actual, &change.desired);
            if differences.is_empty() {
                return Ok(format!("found {}, created by another process", change.target));
            }
            let found = Change { kind: Kind::Unchangeable, differences, ..change.clone() };
            Err(TopologyError::Unchangeable(format!("{found}\n    it was created meanwhile: make a new plan")))
        }
        Err(error) => Err(error),
    }
}

async fn update(broker: &Broker, change: &Change) -> Result<String, TopologyError> {
    // What the configuration does not name stays as it is.
    let mut config = actual(broker, &change.target).await?.unwrap_or_else(|| json!({}));
    difference::overlay(&change.target, &mut config, &change.desired);
    let (subject, body) = match &change.target {
        Target::Stream(name) => (format!("STREAM.UPDATE.{name}"), config),
        Target::Consumer(stream, name) => consumer_request(stream, name, "update", &config),
    };
    request(broker, &change.target, subject, &body).await?;
    let fields: Vec<&str> = change.differences.iter().map(|d| d.field.as_str()).collect();
    Ok(format!("updated {}: {}", change.target, fields.join(", ")))
}

fn consumer_request(stream: &str, name: &str, action: &str, config: &Value) -> (String, Value) {
    let body = json!({"stream_name": stream, "config": config, "action": action});
    (format!("CONSUMER.CREATE.{stream}.{name}"), body)
}

/// The present configuration; `None` where it is not there.
pub(crate) async fn actual(broker: &Broker, target: &Target) -> Result<Option<Value>, TopologyError> {
    Ok(info(broker, target).await?.map(|mut answer| answer["config"].take()))
}

/// Everything that the broker says about it; `None` where it is not there.
pub(crate) async fn info(broker: &Broker, target: &Target) -> Result<Option<Value>, TopologyError> {
    let subject = match target {
        Target::Stream(name) => format!("STREAM.INFO.{name}"),
        Target::Consumer(stream, name) => format!("CONSUMER.INFO.{stream}.{name}"),
    };
    match request(broker, target, subject, &json!({})).await {
        Ok(answer) => Ok(Some(answer)),
        Err(TopologyError::Refused { code: STREAM_NOT_FOUND | CONSUMER_NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A request to the broker's API about a stream or consumer.
pub(crate) async fn request(
    broker: &Broker,
    target: &Target,
    subject: String,
    body: &Value,
) -> Result<Value, TopologyError> {
    let answer: Value = broker
        .jetstream()
        .request(subject, body)
        .await
        .map_err(|error| TopologyError::Unavailable(BrokerError::new(error)))?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(TopologyError::Refused {
            target: target.clone(),
            code: error["err_code"].as_u64().unwrap_or_default(),
            description: error["description"].as_str().unwrap_or("no description").to_owned(),
        }),
    }
}
