//! The gate: may a transaction pass the breakers and the single transaction maximum.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Money, ParticipantId};

use super::breaker::Scope;

/// The limits and breakers that are in force, at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Rises with every change.
    pub version: u64,
    /// Open breakers with their reason.
    pub open: BTreeMap<Scope, String>,
    /// The largest transaction by currency, for all.
    pub maxima: BTreeMap<Currency, Money>,
    /// The largest transaction by payer and currency.
    pub maxima_of: BTreeMap<(ParticipantId, Currency), Money>,
}

/// A transaction to be assessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Who pays.
    pub payer: ParticipantId,
    /// Who receives.
    pub payee: ParticipantId,
    /// How much.
    pub amount: Money,
}

/// Why a transaction may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A breaker is open.
    BreakerOpen {
        /// Its scope.
        scope: Scope,
        /// Why it was tripped.
        reason: String,
    },
    /// It is larger than a single transaction may be.
    SingleTransactionMaximum {
        /// The largest amount that may pass.
        maximum: Money,
    },
}

/// Assesses a transaction: breakers first (global, currency, payer, payee), then the single transaction
/// maximum, of which the smaller counts where there is one for all and one for the payer (R3).
pub fn assess(rules: &Rules, subject: &Subject) -> Option<Stop> {
    let currency = subject.amount.currency();
    let scopes = [
        Scope::Global,
        Scope::Currency(currency),
        Scope::Participant(subject.payer),
        Scope::Participant(subject.payee),
    ];
    for scope in scopes {
        if let Some(reason) = rules.open.get(&scope) {
            return Some(Stop::BreakerOpen { scope, reason: reason.clone() });
        }
    }
    let for_all = rules.maxima.get(&currency);
    let of_payer = rules.maxima_of.get(&(subject.payer, currency));
    let maximum = for_all.into_iter().chain(of_payer).min_by_key(|maximum| maximum.minor())?;
    (subject.amount.minor() > maximum.minor()).then_some(Stop::SingleTransactionMaximum { maximum: *maximum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usd(amount: &str) -> Money {
        Money::parse(amount, Currency::new("USD").unwrap()).unwrap()
    }

    fn bank(id: &str) -> ParticipantId {
        id.parse().unwrap()
    }

    fn subject(amount: &str) -> Subject {
        Subject { payer: bank("ALFAAEXX"), payee: bank("BRAVINXX"), amount: usd(amount) }
    }

    fn open(scopes: &[&str]) -> Rules {
        let open = scopes.iter().map(|s| (s.parse().unwrap(), format!("because {s}"))).collect();
        Rules { open, ..Rules::default() }
    }

    #[test]
    fn breakers_come_in_their_order() {
        let all = ["global", "currency:USD", "participant:ALFAAEXX", "participant:BRAVINXX"];
        for first in 0..all.len() {
            let Some(Stop::BreakerOpen { scope, reason }) = assess(&open(&all[first..]), &subject("1.00")) else {
                panic!()
            };
            assert_eq!((scope.to_string().as_str(), reason), (all[first], format!("because {}", all[first])));
        }
        for other in ["currency:EUR", "participant:CHARUSXX"] {
            assert_eq!(assess(&open(&[other]), &subject("1.00")), None, "{other}");
        }
    }

    #[test]
    fn the_smaller_maximum_counts() {
        let payer = (bank("ALFAAEXX"), Currency::new("USD").unwrap());
        let payee = (bank("BRAVINXX"), Currency::new("USD").unwrap());
        for (for_all, of, amount, stopped_at) in [
            (None, None, "999999999.99", None),
            (Some("100.00"), None, "100.00", None),
            (Some("100.00"), None, "100.01", Some("100.00")),
            (None, Some((payer, "50.00")), "50.01", Some("50.00")),
            (Some("100.00"), Some((payer, "50.00")), "60.00", Some("50.00")),
            (Some("50.00"), Some((payer, "100.00")), "60.00", Some("50.00")),
            (None, Some((payee, "50.00")), "60.00", None),
        ] {
            let mut rules = Rules::default();
            rules.maxima.extend(for_all.map(|m| (payer.1, usd(m))));
            rules.maxima_of.extend(of.map(|(key, m)| (key, usd(m))));
            let expected = stopped_at.map(|m| Stop::SingleTransactionMaximum { maximum: usd(m) });
            assert_eq!(assess(&rules, &subject(amount)), expected, "{for_all:?} {of:?} {amount}");
        }
    }

    #[test]
    fn a_breaker_comes_before_a_maximum_and_currencies_do_not_mix() {
        let mut rules = open(&["global"]);
        rules.maxima.insert(Currency::new("USD").unwrap(), usd("1.00"));
        assert!(matches!(assess(&rules, &subject("2.00")), Some(Stop::BreakerOpen { .. })));
        rules.open.clear();
        assert!(matches!(assess(&rules, &subject("2.00")), Some(Stop::SingleTransactionMaximum { .. })));
        let jpy = Currency::new("JPY").unwrap();
        let yen = Subject { amount: Money::parse("1000", jpy).unwrap(), ..subject("1.00") };
        assert_eq!(assess(&rules, &yen), None);
    }

    proptest! {
        /// R3: nothing above any maximum in force passes, and everything within all of them does.
        #[test]
        fn the_maximum_is_exact(amount in 1i64..10_000, all in prop::option::of(1i64..10_000), own in prop::option::of(1i64..10_000)) {
            let money = |units: i64| Money::new(deltran_kernel::Minor::new(units.into()).unwrap(), Currency::new("USD").unwrap());
            let mut rules = Rules::default();
            let subject = Subject { amount: money(amount), ..subject("1.00") };
            rules.maxima.extend(all.map(|m| (subject.amount.currency(), money(m))));
            rules.maxima_of.extend(own.map(|m| ((subject.payer, subject.amount.currency()), money(m))));
            let within = [all, own].into_iter().flatten().all(|m| amount <= m);
            prop_assert_eq!(assess(&rules, &subject).is_none(), within);
        }
    }
}
