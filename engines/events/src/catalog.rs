//! The catalog: one row per event, from which schemas, subjects and decoders all come.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::data::{self, Domain};
use crate::json::Json;
use crate::schema::Invalid;

/// What a row of the catalog says about its event.
pub struct EventSpec {
    /// The domain, which names the stream.
    pub domain: Domain,
    /// What it is about.
    pub entity: &'static str,
    /// What happened to it.
    pub action: &'static str,
    /// The current `major.minor` of its data.
    pub version: &'static str,
    /// The schema of its data, generated from the Rust type.
    pub schema: fn() -> Schema,
    /// Reads its data.
    pub read: fn(&Json<'_>) -> Result<Event, Invalid>,
    event_type: &'static str,
    /// Its place in [`EVENTS`].
    pub index: usize,
}

impl std::fmt::Debug for EventSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventSpec({} {})", self.subject(), self.version)
    }
}

impl EventSpec {
    /// `<entity>.<action>`.
    pub fn event_type(&self) -> &'static str {
        self.event_type
    }

    /// `events.<domain>.<entity>.<action>`.
    pub fn subject(&self) -> String {
        format!("events.{}.{}.{}", self.domain.name(), self.entity, self.action)
    }

    /// The event of a type on a subject. The domain comes from the subject, because two domains may
    /// have events of the same type. A four-token subject must agree with the type; the older
    /// three-token form names only the domain for certain.
    pub fn of_subject(subject: &str, event_type: &str) -> Option<&'static Self> {
        let (domain, rest) = subject.strip_prefix("events.")?.split_once('.')?;
        let older = !rest.is_empty() && !rest.contains('.');
        if !older && rest != event_type {
            return None;
        }
        EVENTS.iter().find(|spec| spec.event_type == event_type && spec.domain.name() == domain)
    }

    /// The major version of its data.
    pub fn major(&self) -> &'static str {
        version_parts(self.version).map_or(self.version, |(major, _)| major)
    }

    /// Whether data of `version` can be read: the same major version. A later minor version only adds.
    pub fn reads(&self, version: &str) -> bool {
        version_parts(version).is_some_and(|(major, _)| major == self.major())
    }
}

/// Major and minor of a version; `None` where it is not of the form of [`VERSION_PATTERN`].
fn version_parts(version: &str) -> Option<(&str, &str)> {
    let number = |part: &str| {
        (1..=5).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    version.split_once('.').filter(|(major, minor)| number(major) && number(minor))
}

/// The form of a version.
pub(crate) const VERSION_PATTERN: &str = r"^(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})$";

/// The form of an event type; its parts are the last two tokens of the subject.
pub(crate) const EVENT_TYPE_PATTERN: &str = r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$";

fn read<T: DeserializeOwned + Into<Event>>(event_type: &str, value: &Json<'_>) -> Result<Event, Invalid> {
    T::deserialize(value).map(Into::into).map_err(|e| Invalid::new(event_type, e.to_string()))
}

fn schema_of<T: JsonSchema>() -> Schema {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

macro_rules! events {
    ($($domain:ident $entity:literal $action:literal $version:literal => $name:ident($module:ident);)*) => {
        /// Any event of the catalog, with its data.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Event {
            $(#[doc = concat!("`", $entity, ".", $action, "`")] $name(data::$module::$name),)*
        }

        $(impl From<data::$module::$name> for Event {
            fn from(data: data::$module::$name) -> Self {
                Self::$name(data)
            }
        })*

        #[derive(Clone, Copy)]
        enum Row { $($name,)* }

        /// Every event, in the order of the catalog.
        pub static EVENTS: &[EventSpec] = &[$(EventSpec {
            domain: Domain::$domain,
            entity: $entity,
            action: $action,
            version: $version,
            schema: schema_of::<data::$module::$name>,
            read: |value| read::<data::$module::$name>(concat!($entity, ".", $action), value),
            event_type: concat!($entity, ".", $action),
            index: Row::$name as usize,
        },)*];

        impl Event {
            /// The catalog's row of this event.
            pub fn spec(&self) -> &'static EventSpec {
                match self { $(Self::$name(_) => &EVENTS[Row::$name as usize],)* }
            }
        }
    };
}

impl Event {
    /// The data as JSON.
    pub fn to_value(&self) -> Result<Value, Invalid> {
        serde_json::to_value(self).map_err(|e| Invalid::new(self.spec().event_type(), e.to_string()))
    }
}

events! {
    Transactions "transaction" "created" "1.1" => TransactionCreated(transactions);
    Transactions "transaction" "committed" "1.0" => TransactionCommitted(transactions);
    Transactions "transaction" "rejected" "1.0" => TransactionRejected(transactions);
    Transactions "transaction" "cancelled" "1.0" => TransactionCancelled(transactions);
    Transactions "transaction" "expired" "1.0" => TransactionExpired(transactions);
    Transactions "transaction" "released" "1.0" => TransactionReleased(transactions);
    Transactions "deposit" "confirmed" "1.0" => DepositConfirmed(transactions);
    Transactions "withdrawal" "requested" "1.0" => WithdrawalRequested(transactions);
    Transactions "withdrawal" "confirmed" "1.0" => WithdrawalConfirmed(transactions);
    Transactions "withdrawal" "failed" "1.0" => WithdrawalFailed(transactions);
    Transactions "participant" "registered" "1.0" => ParticipantRegistered(transactions);
    Transactions "participant" "activated" "1.0" => ParticipantActivated(transactions);
    Transactions "participant" "suspended" "1.0" => ParticipantSuspended(transactions);
    Transactions "participant" "reinstated" "1.0" => ParticipantReinstated(transactions);
    Transactions "participant" "defaulted" "1.0" => ParticipantDefaulted(transactions);
    Transactions "participant" "exited" "1.0" => ParticipantExited(transactions);
    Transactions "currency" "enabled" "1.0" => CurrencyEnabled(transactions);
    Transactions "collateral" "changed" "1.0" => CollateralChanged(transactions);
    Transactions "window" "sealed" "1.0" => WindowSealed(transactions);
    Transactions "window" "earmarked" "1.0" => WindowEarmarked(transactions);
    Transactions "settlement" "posted" "1.0" => SettlementPosted(transactions);
    Transactions "ledger" "restored" "1.0" => LedgerRestored(transactions);
    Transactions "ledger" "resumed" "1.0" => LedgerResumed(transactions);

    Compliance "screening" "hit" "1.0" => ScreeningHit(compliance);
    Compliance "alert" "raised" "1.1" => AlertRaised(compliance);
    Compliance "case" "opened" "1.0" => CaseOpened(compliance);
    Compliance "case" "escalated" "1.0" => CaseEscalated(compliance);
    Compliance "case" "closed" "1.0" => CaseClosed(compliance);
    Compliance "rule" "changed" "1.0" => RuleChanged(compliance);
    Compliance "hold" "placed" "1.0" => HoldPlaced(compliance);
    Compliance "hold" "released" "1.0" => HoldReleased(compliance);
    Compliance "hold" "rejected" "1.0" => HoldRejected(compliance);
    Compliance "list" "loaded" "1.1" => ListLoaded(compliance);

    Risk "limit" "proposed" "1.1" => LimitProposed(risk);
    Risk "limit" "changed" "1.1" => LimitChanged(risk);
    Risk "limit" "rejected" "1.0" => LimitRejected(risk);
    Risk "limit" "withdrawn" "1.0" => LimitWithdrawn(risk);
    Risk "rate_limit" "proposed" "1.0" => RateLimitProposed(risk);
    Risk "rate_limit" "changed" "1.0" => RateLimitChanged(risk);
    Risk "breaker" "opened" "1.1" => BreakerOpened(risk);
    Risk "breaker" "half_opened" "1.0" => BreakerHalfOpened(risk);
    Risk "breaker" "closed" "1.0" => BreakerClosed(risk);
    Risk "threshold" "breached" "1.0" => ThresholdBreached(risk);
    Risk "threshold" "cleared" "1.0" => ThresholdCleared(risk);
    Risk "exposure" "snapshot" "1.0" => ExposureSnapshot(risk);

    Clearing "window" "scheduled" "1.0" => WindowScheduled(clearing);
    Clearing "window" "opened" "1.0" => WindowOpened(clearing);
    Clearing "window" "extended" "1.0" => WindowExtended(clearing);
    Clearing "window" "closing" "1.0" => WindowClosing(clearing);
    Clearing "window" "closed" "1.0" => WindowClosed(clearing);
    Clearing "window" "netted" "1.0" => WindowNetted(clearing);
    Clearing "window" "settling" "1.0" => WindowSettling(clearing);
    Clearing "window" "settled" "1.0" => WindowSettled(clearing);
    Clearing "window" "failed" "1.0" => WindowFailed(clearing);
    Clearing "window" "aborted" "1.0" => WindowAborted(clearing);
    Clearing "netting" "completed" "1.0" => NettingCompleted(clearing);

    Settlement "batch" "created" "1.0" => BatchCreated(settlement);
    Settlement "batch" "reserved" "1.0" => BatchReserved(settlement);
    Settlement "batch" "awaiting_funds" "1.0" => BatchAwaitingFunds(settlement);
    Settlement "batch" "settled" "1.0" => BatchSettled(settlement);
    Settlement "batch" "aborted" "1.0" => BatchAborted(settlement);

    Notifications "payment" "received" "1.0" => PaymentReceived(notifications);
    Notifications "payment" "sent" "1.0" => PaymentSent(notifications);
    Notifications "payment" "held" "1.0" => PaymentHeld(notifications);
    Notifications "payment" "rejected" "1.0" => PaymentRejected(notifications);
    Notifications "payment" "expired" "1.0" => PaymentExpired(notifications);
    Notifications "deposit" "credited" "1.0" => DepositCredited(notifications);
    Notifications "withdrawal" "paid" "1.0" => WithdrawalPaid(notifications);
    Notifications "withdrawal" "returned" "1.0" => WithdrawalReturned(notifications);
    Notifications "window" "closed" "1.0" => WindowClosedNotice(notifications);
    Notifications "position" "changed" "1.0" => PositionChanged(notifications);
    Notifications "funding" "required" "1.0" => FundingRequired(notifications);
    Notifications "settlement" "completed" "1.0" => SettlementCompleted(notifications);
    Notifications "settlement" "failed" "1.0" => SettlementFailed(notifications);
    Notifications "limit" "changed" "1.0" => LimitNotice(notifications);
    Notifications "rate_limit" "changed" "1.0" => RateLimitNotice(notifications);
    Notifications "threshold" "breached" "1.0" => ThresholdBreachedNotice(notifications);
    Notifications "threshold" "cleared" "1.0" => ThresholdClearedNotice(notifications);
    Notifications "alert" "raised" "1.0" => AlertNotice(notifications);
    Notifications "delivery" "failed" "1.0" => DeliveryFailed(notifications);
    Notifications "endpoint" "disabled" "1.0" => EndpointDisabled(notifications);

    Reporting "report" "requested" "1.0" => ReportRequested(reporting);
    Reporting "report" "completed" "1.0" => ReportCompleted(reporting);
    Reporting "report" "failed" "1.0" => ReportFailed(reporting);
    Reporting "schedule" "changed" "1.0" => ScheduleChanged(reporting);

    Audit "dead_letter" "recorded" "1.0" => DeadLetterRecorded(audit);
    Audit "dead_letter" "replayed" "1.0" => DeadLetterReplayed(audit);
    Audit "dead_letter" "dropped" "1.0" => DeadLetterDropped(audit);
    Audit "access" "granted" "1.0" => AccessGranted(audit);
    Audit "checkpoint" "signed" "1.0" => CheckpointSigned(audit);
    Audit "export" "completed" "1.0" => ExportCompleted(audit);
    Audit "hold" "placed" "1.0" => LegalHoldPlaced(audit);
    Audit "hold" "released" "1.0" => LegalHoldReleased(audit);
    Audit "partition" "archived" "1.0" => PartitionArchived(audit);
    Audit "partition" "detached" "1.0" => PartitionDetached(audit);
    Audit "reconciliation" "completed" "1.0" => LedgerReconciled(audit);
    Audit "reconciliation" "mismatch" "1.0" => LedgerMismatch(audit);
}
