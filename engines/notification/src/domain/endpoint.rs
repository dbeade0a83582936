//! A webhook endpoint: where a participant wants its notifications sent, and what may be done with it.

use std::collections::BTreeSet;
use std::fmt;

use deltran_kernel::{EndpointId, ParticipantId, Timestamp};

use super::address::{Policy, Target};
use super::notification::Kind;

/// The most endpoints that a participant may have at a time.
pub const MAX_ENDPOINTS: usize = 20;
/// The most secrets that may sign at one time.
pub const MAX_SIGNING: usize = 4;
/// The longest overlap of a rotation, in microseconds: 30 days.
pub const LONGEST_OVERLAP: i64 = 30 * 86_400 * 1_000_000;

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// It is sent to.
    Enabled,
    /// Nothing is sent; what arrives meanwhile can be replayed.
    Disabled,
    /// It is no more. Its history stays.
    Deleted,
}

impl EndpointState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Enabled, Self::Disabled, Self::Deleted];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::Deleted => "DELETED",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its owner did not want it any more.
    Owner,
    /// An operator stopped it; only an operator enables it again.
    Operator,
    /// It answered 410.
    Gone,
    /// It failed for too long.
    Failing,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Operator, Self::Gone, Self::Failing];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "OWNER",
            Self::Operator => "OPERATOR",
            Self::Gone => "GONE",
            Self::Failing => "FAILING",
        }
    }

    /// The cause of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a participant chooses about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where notifications are sent.
    pub url: String,
    /// The kinds that are sent; empty for all that the participant gets.
    pub kinds: BTreeSet<Kind>,
    /// Whether a notification is sent only after the one before it was taken or given up.
    pub in_order: bool,
}

impl Wish {
    /// Checks it; the URL comes back in its normal form.
    ///
    /// # Errors
    /// [`EndpointError::Malformed`].
    pub fn checked(self, policy: &Policy) -> Result<Self, EndpointError> {
        let malformed = |field, message: String| EndpointError::Malformed { field, message };
        let target = Target::parse(&self.url, policy).map_err(|e| malformed("url", e.0))?;
        if self.kinds.contains(&Kind::DeliveryFailed) {
            let message = format!("{} is told in the feed and over streams only: leave it out", Kind::DeliveryFailed);
            return Err(malformed("kinds", message));
        }
        Ok(Self { url: target.uri.to_string(), ..self })
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id, supplied by its owner.
    pub endpoint_id: EndpointId,
    /// Whose it is.
    pub participant: ParticipantId,
    /// What the owner chose.
    pub wish: Wish,
    /// Where it stands.
    pub state: EndpointState,
    /// Why it is disabled, where it is.
    pub cause: Option<Cause>,
    /// For people: the reason of the last change.
    pub note: String,
    /// Rises with each change.
    pub version: u64,
    /// Since when it is.
    pub created_at: Timestamp,
    /// Who changed it last.
    pub changed_by: String,
    /// When that was.
    pub changed_at: Timestamp,
}

/// In whose name an endpoint is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The participant itself.
    Owner,
    /// An operator of the platform.
    Operator,
    /// The platform, because of what the endpoint answered.
    Platform(Cause),
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Other choices.
    Update(Wish),
    /// Stops it.
    Disable,
    /// Starts it again.
    Enable,
    /// Ends it.
    Delete,
    /// Gives it a new secret.
    Rotate,
    /// Sends again.
    Replay,
}

impl Change {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Update(_) => "updated",
            Self::Disable => "disabled",
            Self::Enable => "enabled",
            Self::Delete => "deleted",
            Self::Rotate => "given another secret",
            Self::Replay => "sent to again",
        }
    }
}

/// Why something is not done with an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The request is wrong.
    #[error("{field}: {message}")]
    Malformed {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// There is no such endpoint, or it is another participant's.
    #[error("there is no endpoint {0}")]
    NotFound(EndpointId),
    /// The id was used with another body.
    #[error("{0} was used before with another body: use a new id, or send the first body")]
    Conflict(String),
    /// The participant has as many as it may.
    #[error("{participant} has {MAX_ENDPOINTS} endpoints, the most that one may have: delete one first")]
    TooMany {
        /// Whose they are.
        participant: ParticipantId,
    },
    /// The state does not allow it.
    #[error("endpoint {endpoint_id} is {state}{}: it cannot be {change}", disabled_by(.cause))]
    WrongState {
        /// The endpoint.
        endpoint_id: EndpointId,
        /// Its state.
        state: EndpointState,
        /// Why it is disabled, where it is.
        cause: Option<Cause>,
        /// What was asked.
        change: &'static str,
    },
    /// An operator stopped it.
    #[error("endpoint {0} was disabled by an operator: only an operator enables it again")]
    OperatorsOnly(EndpointId),
    /// Too many secrets sign already.
    #[error("{MAX_SIGNING} secrets sign at present, the first until {until}: rotate after that, or with no overlap")]
    TooManySecrets {
        /// When the first of them ends.
        until: Timestamp,
    },
}

fn disabled_by(cause: &Option<Cause>) -> String {
    cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
}

/// A new endpoint.
///
/// # Errors
/// [`EndpointError::TooMany`] where the participant has `present` endpoints and may have no more.
pub fn create(
    endpoint_id: EndpointId,
    participant: ParticipantId,
    wish: Wish,
    present: usize,
    by: &str,
    at: Timestamp,
) -> Result<Endpoint, EndpointError> {
    if present >= MAX_ENDPOINTS {
        return Err(EndpointError::TooMany { participant });
    }
    Ok(Endpoint {
        endpoint_id,
        participant,
        wish,
        state: EndpointState::Enabled,
        cause: None,
        note: String::new(),
        version: 1,
        created_at: at,
        changed_by: by.to_owned(),
        changed_at: at,
    })
}

impl Endpoint {
    /// The endpoint after a change.
    ///
    /// # Errors
    /// [`EndpointError::WrongState`], [`EndpointError::OperatorsOnly`].
    pub fn change(
        &self,
        change: &Change,
        actor: Actor,
        note: &str,
        by: &str,
        at: Timestamp,
    ) -> Result<Self, EndpointError> {
        use EndpointState::{Deleted, Disabled, Enabled};
        let wrong_state = EndpointError::WrongState {
            endpoint_id: self.endpoint_id,
            state: self.state,
            cause: self.cause,
            change: change.as_str(),
        };
        let by_operator = self.cause == Some(Cause::Operator);
        let (state, cause) = match (self.state, change, actor) {
            (Deleted, ..) => return Err(wrong_state),
            (Enabled, Change::Disable, Actor::Owner) => (Disabled, Some(Cause::Owner)),
            (Enabled, Change::Disable, Actor::Platform(cause)) => (Disabled, Some(cause)),
            // From then on it is the operator's to enable, whoever disabled it before.
            (Enabled, Change::Disable, Actor::Operator) => (Disabled, Some(Cause::Operator)),
            (Disabled, Change::Disable, Actor::Operator) if !by_operator => (Disabled, Some(Cause::Operator)),
            (Disabled, Change::Enable, Actor::Owner) if by_operator => {
                return Err(EndpointError::OperatorsOnly(self.endpoint_id));
            }
            (Disabled, Change::Enable, _) => (Enabled, None),
            (Enabled, Change::Replay, _) => (Enabled, None),
            (Disabled, Change::Disable | Change::Replay, _) | (Enabled, Change::Enable, _) => return Err(wrong_state),
            (_, Change::Delete, _) => (Deleted, None),
            (state, Change::Update(_) | Change::Rotate, _) => (state, self.cause),
        };
        // Nothing is refused below this line.
        let wish = if let Change::Update(wish) = change { wish.clone() } else { self.wish.clone() };
        Ok(Self {
            wish,
            state,
            cause,
            note: note.to_owned(),
            version: self.version + 1,
            changed_by: by.to_owned(),
            changed_at: at,
            ..self.clone()
        })
    }
}

/// A secret of an endpoint, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretVersion {
    /// From 1, rising with each rotation.
    pub number: u32,
    /// Until when it signs; none for the present one.
    pub expires_at: Option<Timestamp>,
}

impl SecretVersion {
    /// Whether it signs at `now`.
    pub fn signs(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// What a rotation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The number of the new secret.
    pub number: u32,
    /// Until when all earlier secrets sign at most.
    pub others_until: Timestamp,
}

/// Rotates: the secrets so far sign for `overlap` microseconds more, none of them longer than it would have.
///
/// # Errors
/// [`EndpointError::Malformed`] where the overlap is out of range, [`EndpointError::TooManySecrets`].
pub fn rotate(secrets: &[SecretVersion], overlap: i64, now: Timestamp) -> Result<Rotation, EndpointError> {
    if !(0..=LONGEST_OVERLAP).contains(&overlap) {
        let message = format!("{} s is out of range: expected 0 to 2592000 (30 days)", overlap / 1_000_000);
        return Err(EndpointError::Malformed { field: "overlap_seconds", message });
    }
    let signing: Vec<&SecretVersion> = secrets.iter().filter(|secret| secret.signs(now)).collect();
    if overlap > 0 && signing.len() >= MAX_SIGNING {
        let until = signing.iter().filter_map(|secret| secret.expires_at).min().unwrap_or(now);
        return Err(EndpointError::TooManySecrets { until });
    }
    let number = secrets.iter().map(|secret| secret.number).max().unwrap_or(0) + 1;
    Ok(Rotation { number, others_until: now.plus_micros(overlap) })
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
