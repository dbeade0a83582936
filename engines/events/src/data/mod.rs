//! The data of every event, a file per domain. The doc comments become the descriptions in
//! `schemas/`.

pub mod audit;
pub mod clearing;
pub mod compliance;
pub mod notifications;
pub mod reporting;
pub mod risk;
pub mod settlement;
pub mod transactions;

/// The domains of the platform; each has one stream and one engine that publishes on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// The token engine's.
    Transactions,
    /// The compliance engine's.
    Compliance,
    /// The settlement engine's.
    Settlement,
    /// The clearing engine's.
    Clearing,
    /// The notification engine's.
    Notifications,
    /// The reporting engine's.
    Reporting,
    /// The risk engine's.
    Risk,
    /// The audit engine's.
    Audit,
}

impl Domain {
    /// All domains, in the order of the stream table.
    pub const ALL: [Self; 8] = [
        Self::Transactions,
        Self::Compliance,
        Self::Settlement,
        Self::Clearing,
        Self::Notifications,
        Self::Reporting,
        Self::Risk,
        Self::Audit,
    ];

    /// The domain that a stream is of; none where it is of no domain.
    pub fn of_stream(stream: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|domain| domain.stream() == stream)
    }

    /// The token in subjects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Compliance => "compliance",
            Self::Settlement => "settlement",
            Self::Clearing => "clearing",
            Self::Notifications => "notifications",
            Self::Reporting => "reporting",
            Self::Risk => "risk",
            Self::Audit => "audit",
        }
    }

    /// The engine that publishes in the domain.
    pub const fn engine(self) -> &'static str {
        match self {
            Self::Transactions => "token",
            Self::Compliance => "compliance",
            Self::Settlement => "settlement",
            Self::Clearing => "clearing",
            Self::Notifications => "notification",
            Self::Reporting => "reporting",
            Self::Risk => "risk",
            Self::Audit => "audit",
        }
    }

    /// The `source` of its events.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Transactions => "token-engine",
            Self::Compliance => "compliance-engine",
            Self::Settlement => "settlement-engine",
            Self::Clearing => "clearing-engine",
            Self::Notifications => "notification-engine",
            Self::Reporting => "reporting-engine",
            Self::Risk => "risk-engine",
            Self::Audit => "audit-engine",
        }
    }

    /// The stream that stores its events.
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Transactions => "TRANSACTIONS",
            Self::Compliance => "COMPLIANCE",
            Self::Settlement => "SETTLEMENT",
            Self::Clearing => "CLEARING",
            Self::Notifications => "NOTIFICATIONS",
            Self::Reporting => "REPORTING",
            Self::Risk => "RISK",
            Self::Audit => "AUDIT",
        }
    }

    /// The domain of an engine, by the engine's name.
    pub fn of_engine(engine: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|domain| domain.engine() == engine)
    }
}

/// Derives what every event's data derives.
macro_rules! event_data {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}

/// Derives what every enumeration inside event data derives.
macro_rules! event_enum {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// The word for it in events, tables and stored rows.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The value of a word; `None` where there is no such word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}
pub(crate) use {event_data, event_enum};
