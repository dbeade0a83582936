//! Who calls: participant, role and user.

use deltran_kernel::ParticipantId;
use http::HeaderMap;
use tonic::Request;

use crate::error::{Failure, FailureKind};

/// Header that names the participant of a caller where TLS is off.
pub const PARTICIPANT_HEADER: &str = "deltran-participant";
/// Header that names the role of a caller where TLS is off.
pub const ROLE_HEADER: &str = "deltran-role";
/// Header that names the user of a caller where TLS is off.
pub const USER_HEADER: &str = "deltran-user";
/// W3C trace context.
pub const TRACE_HEADER: &str = "traceparent";

/// What a caller is to the platform; decides which RPCs it may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A participant: sees and moves its own.
    Bank,
    /// Runs windows, participants and deposits.
    Operator,
    /// Decides holds and keeps lists.
    Compliance,
    /// Keeps limits and breakers.
    Risk,
    /// Reads everything, changes nothing.
    Auditor,
    /// Another engine of the platform.
    Engine,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [Self::Bank, Self::Operator, Self::Compliance, Self::Risk, Self::Auditor, Self::Engine];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Operator => "operator",
            Self::Compliance => "compliance",
            Self::Risk => "risk",
            Self::Auditor => "auditor",
            Self::Engine => "engine",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// The caller of an RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The bank that calls; only role `bank` has one.
    pub participant: Option<ParticipantId>,
    /// Its role.
    pub role: Role,
    /// The user, for four eyes and the record.
    pub user: String,
    /// W3C `traceparent` of the call, where it came with one.
    pub trace: Option<String>,
}

impl Caller {
    /// An engine calling another.
    pub fn engine(name: &str) -> Self {
        Self { participant: None, role: Role::Engine, user: format!("{name}-engine"), trace: None }
    }

    /// Reads the caller from request headers.
    ///
    /// # Errors
    /// `unauthenticated` where the headers do not say who it is, or contradict each other.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Failure> {
        let text =
            |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty());
        let unauthenticated = |message: String| Failure::new(FailureKind::Unauthenticated, "unauthenticated", message);
        let role = match text(ROLE_HEADER) {
            None if headers.contains_key(PARTICIPANT_HEADER) => Role::Bank,
            None => {
                return Err(unauthenticated(format!(
                    "the call does not say who it is: send {PARTICIPANT_HEADER} (a bank), or {ROLE_HEADER} with {USER_HEADER}"
                )));
            }
            Some(word) => Role::parse(word).ok_or_else(|| {
                let words = Role::ALL.map(Role::as_str).join(", ");
                unauthenticated(format!("{ROLE_HEADER} {word:?} is no role: expected one of {words}"))
            })?,
        };
        let participant = text(PARTICIPANT_HEADER)
            .map(|p| p.parse::<ParticipantId>().map_err(|e| unauthenticated(format!("{PARTICIPANT_HEADER}: {e}"))))
            .transpose()?;
        match (role, participant) {
            (Role::Bank, None) => return Err(unauthenticated(format!("role bank needs {PARTICIPANT_HEADER}"))),
            (Role::Bank, Some(_)) | (_, None) => {}
            (other, Some(_)) => {
                return Err(unauthenticated(format!(
                    "role {} does not act for a participant: drop {PARTICIPANT_HEADER}",
                    other.as_str()
                )));
            }
        }
        let user = match (text(USER_HEADER), participant) {
            (Some(user), _) if user.len() <= 64 && user.chars().all(|c| c.is_ascii_graphic()) => user.to_owned(),
            (Some(_), _) => {
                return Err(unauthenticated(format!("{USER_HEADER} takes at most 64 visible ASCII characters")));
            }
            (None, Some(participant)) => participant.to_string(),
            (None, None) => return Err(unauthenticated(format!("role {} needs {USER_HEADER}", role.as_str()))),
        };
        let trace = text(TRACE_HEADER).filter(|t| is_traceparent(t)).map(str::to_owned);
        Ok(Self { participant, role, user, trace })
    }

    /// The caller that the server stack attached to a request.
    ///
    /// # Errors
    /// `internal` where the stack was left out: a defect.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Failure> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Failure::internal("a request reached a service without passing the identity layer"))
    }

    /// Whether the caller may see what belongs to `participant`.
    pub fn may_see(&self, participant: ParticipantId) -> bool {
        self.participant.is_none_or(|own| own == participant)
    }

    /// The participant whose things may be listed: a bank's own, else the one asked for.
    ///
    /// # Errors
    /// `unauthorised` where a bank asks for another's.
    pub fn scope(&self, asked: Option<ParticipantId>) -> Result<Option<ParticipantId>, Failure> {
        match (self.participant, asked) {
            (Some(own), Some(other)) if own != other => {
                Err(Failure::unauthorised(format!("{own} may not see what belongs to {other}")))
            }
            (Some(own), _) => Ok(Some(own)),
            (None, asked) => Ok(asked),
        }
    }
}

/// Whether a text has the form of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 4 && hex(parts[0], 2) && hex(parts[1], 32) && hex(parts[2], 16) && hex(parts[3], 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(headers: &[(&'static str, &str)]) -> Result<Caller, String> {
        let map = headers.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect();
        Caller::from_headers(&map).map_err(|e| e.message)
    }

    #[test]
    fn says_who_it_is_or_is_refused() {
        let bank = caller(&[("deltran-participant", "ALFAAEXX")]).unwrap();
        assert_eq!((bank.role, bank.user.as_str()), (Role::Bank, "ALFAAEXX"));
        let operator = caller(&[("deltran-role", "operator"), ("deltran-user", "ada")]).unwrap();
        assert_eq!((operator.role, operator.participant), (Role::Operator, None));
        for bad in [
            &[][..],
            &[("deltran-role", "king"), ("deltran-user", "ada")],
            &[("deltran-role", "operator")],
            &[("deltran-role", "bank"), ("deltran-user", "ada")],
            &[("deltran-role", "operator"), ("deltran-user", "ada"), ("deltran-participant", "ALFAAEXX")],
            &[("deltran-participant", "alfa")],
            &[("deltran-role", "operator"), ("deltran-user", "a b")],
        ] {
            assert!(caller(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bank_sees_its_own_only() {
        let bank = caller(&[("deltran-participant", "ALFAAEXX")]).unwrap();
        let other: ParticipantId = "BRAVINXX".parse().unwrap();
        assert!(!bank.may_see(other));
        assert!(bank.scope(Some(other)).is_err());
        assert_eq!(bank.scope(None).unwrap(), bank.participant);
    }
}
