//! Subscriptions: what a participant is told. Without one nobody is told anything.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::{Currency, Minor, Money, ParticipantId, SubscriptionId, Timestamp};

use super::notification::Kind;

/// The most subscriptions that a participant may have at a time.
pub const MAX_SUBSCRIPTIONS: usize = 100;

/// What somebody subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Who is told.
    pub participant: ParticipantId,
    /// Of what; at least one.
    pub kinds: BTreeSet<Kind>,
    /// In which currencies, and how much.
    pub filter: Filter,
}

/// What passes a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Only what is in this currency, or in none.
    pub currency: Option<Currency>,
    /// Only amounts of at least this, whatever their sign; what has no amount passes. Never without a currency.
    pub minimum: Option<Minor>,
}

impl Filter {
    /// Whether something about these moneys passes.
    pub fn passes(self, about: About) -> bool {
        let Some(currency) = self.currency else { return true };
        match about {
            About::NoMoney => true,
            About::Currency(of) => of == currency,
            About::Amount(money) => {
                let size = money.minor().units().unsigned_abs();
                money.currency() == currency && self.minimum.is_none_or(|least| size >= least.units().unsigned_abs())
            }
        }
    }
}

/// What filters look at in a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// It is about no currency.
    NoMoney,
    /// It is about a currency and has no amount.
    Currency(Currency),
    /// It is about an amount.
    Amount(Money),
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its id, supplied by who subscribed.
    pub id: SubscriptionId,
    /// What it is for.
    pub wish: Wish,
    /// Since when it is.
    pub created_at: Timestamp,
    /// Who subscribed.
    pub created_by: String,
    /// When it ended and by whom, where it has.
    pub ended: Option<(Timestamp, String)>,
}

/// A command that was executed now, or had been before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied<T> {
    /// It is to be stored.
    Executed(T),
    /// It is stored already.
    AlreadyApplied(T),
}

/// Why a command about a subscription is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request is wrong.
    #[error("{field}: {message}")]
    Malformed {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The id is in use with another body.
    #[error("subscription {0} was used before with another body")]
    Conflict(SubscriptionId),
    /// It has ended, and does not begin again.
    #[error("subscription {id} ended at {at}: subscribe under a new id")]
    Ended {
        /// The subscription.
        id: SubscriptionId,
        /// When it ended.
        at: Timestamp,
    },
    /// The participant has as many as it may.
    #[error("{0} has {MAX_SUBSCRIPTIONS} subscriptions, the most that one may have: end one first")]
    TooMany(ParticipantId),
}

impl Wish {
    /// A wish, checked.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn new(
        participant: ParticipantId,
        kinds: BTreeSet<Kind>,
        currency: Option<Currency>,
        minimum: Option<&str>,
    ) -> Result<Self, Refused> {
        let malformed = |field, message: String| Refused::Malformed { field, message };
        if kinds.is_empty() {
            return Err(malformed("kinds", "is missing: name at least one, such as payment.received".to_owned()));
        }
        let minimum = match (minimum, currency) {
            (None, _) => None,
            (Some(text), None) => {
                let message = format!("{text:?} says nothing without a currency: send currency too");
                return Err(malformed("minimum_amount", message));
            }
            (Some(text), Some(currency)) => {
                let money = Money::parse(text, currency).map_err(|e| malformed("minimum_amount", e.to_string()))?;
                if money.minor().is_negative() {
                    return Err(malformed("minimum_amount", format!("{text:?} is negative")));
                }
                Some(money.minor())
            }
        };
        Ok(Self { participant, kinds, filter: Filter { currency, minimum } })
    }
}

/// Subscribes. `known` is what has the id already, `present` how many the participant has at a time.
///
/// # Errors
/// [`Refused`], in the order of its variants.
pub fn subscribe(
    id: SubscriptionId,
    wish: Wish,
    known: Option<Subscription>,
    present: usize,
    by: &str,
    at: Timestamp,
) -> Result<Applied<Subscription>, Refused> {
    if let Some(known) = known {
        if known.wish != wish {
            return Err(Refused::Conflict(id));
        }
        return match known.ended {
            Some((at, _)) => Err(Refused::Ended { id, at }),
            None => Ok(Applied::AlreadyApplied(known)),
        };
    }
    if present >= MAX_SUBSCRIPTIONS {
        return Err(Refused::TooMany(wish.participant));
    }
    Ok(Applied::Executed(Subscription { id, wish, created_at: at, created_by: by.to_owned(), ended: None }))
}

/// Ends a subscription, for ever.
pub fn unsubscribe(subscription: Subscription, by: &str, at: Timestamp) -> Applied<Subscription> {
    match subscription.ended {
        Some(_) => Applied::AlreadyApplied(subscription),
        None => Applied::Executed(Subscription { ended: Some((at, by.to_owned())), ..subscription }),
    }
}

/// Who has subscribed to what, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    by_kind: BTreeMap<Kind, BTreeMap<ParticipantId, BTreeSet<Filter>>>,
}

impl Audience {
    /// Of these wishes.
    pub fn of(wishes: impl IntoIterator<Item = Wish>) -> Self {
        let mut audience = Self::default();
        for wish in wishes {
            for kind in wish.kinds {
                let filters = audience.by_kind.entry(kind).or_default().entry(wish.participant).or_default();
                filters.insert(wish.filter);
            }
        }
        audience
    }

    /// Whether anybody has subscribed to one of these kinds.
    pub fn has(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.by_kind.contains_key(kind))
    }

    /// Whether a participant is told of something.
    pub fn wants(&self, kind: Kind, participant: ParticipantId, about: About) -> bool {
        let filters = self.by_kind.get(&kind).and_then(|all| all.get(&participant));
        filters.is_some_and(|filters| filters.iter().any(|filter| filter.passes(about)))
    }

    /// Everybody who is told of something that concerns all.
    pub fn everybody(&self, kind: Kind, about: About) -> impl Iterator<Item = ParticipantId> + '_ {
        let all = self.by_kind.get(&kind).into_iter().flatten();
        all.filter(move |(_, filters)| filters.iter().any(|filter| filter.passes(about))).map(|(who, _)| *who)
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
