//! Alerts of monitoring: a rule that was crossed, with the figures.

use deltran_events::data::compliance::{AlertRaised, AmountOf, RuleKind};
use deltran_kernel::{AlertId, CaseId, Money, Timestamp, TransactionId};

use super::rule::{Limit, Thread};
use super::window::Sum;

/// An alert, or what a shadow run recorded instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its id.
    pub alert_id: AlertId,
    /// The rule.
    pub rule: String,
    /// The version that was crossed.
    pub version: u32,
    /// What the rule looks for.
    pub kind: RuleKind,
    /// Recorded only: nobody is alerted.
    pub shadow: bool,
    /// Whose transactions.
    pub thread: Thread,
    /// The beginning of the window.
    pub from: Timestamp,
    /// Its end, exclusive.
    pub to: Timestamp,
    /// What it came to.
    pub sum: Sum,
    /// What was exceeded.
    pub limit: Limit,
    /// The transaction that did.
    pub transaction_id: TransactionId,
    /// Transactions of the window, at most 50; the one that crossed it last.
    pub transactions: Vec<TransactionId>,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// The case that it belongs to; none in a shadow run.
    pub case_id: Option<CaseId>,
}

impl Alert {
    /// The sum of the window, where all is of one currency.
    pub fn amount(&self) -> Option<Money> {
        self.thread.currency.map(|currency| Money::new(self.sum.amount, currency))
    }

    /// The number of transactions that was exceeded, where it was one.
    pub const fn limit_count(&self) -> Option<u64> {
        match self.limit {
            Limit::CountOver(n) | Limit::CountReaches(n) => Some(n),
            Limit::AmountOver(_) => None,
        }
    }

    /// The amount that was exceeded, where it was one.
    pub fn limit_amount(&self) -> Option<Money> {
        match (self.limit, self.thread.currency) {
            (Limit::AmountOver(most), Some(currency)) => Some(Money::new(most, currency)),
            _ => None,
        }
    }

    /// What is published about it: identifiers and amounts.
    pub fn event(&self) -> AlertRaised {
        AlertRaised {
            alert_id: Some(self.alert_id),
            rule: Some(self.rule.clone()),
            rule_version: Some(self.version),
            participant: Some(self.thread.payer),
            counterparty: self.thread.payee,
            transaction_id: Some(self.transaction_id),
            case_id: self.case_id,
            count: Some(self.sum.count),
            sum: self.amount().map(|sum| AmountOf { amount: sum.into(), currency: sum.currency() }),
            window_from: Some(self.from),
            window_to: Some(self.to),
            ..AlertRaised::new(self.kind.as_str(), self.message())
        }
    }

    fn message(&self) -> String {
        let Thread { payer, payee, .. } = self.thread;
        let to = payee.map(|payee| format!(" to {payee}")).unwrap_or_default();
        let sum = self.amount().map(|amount| format!(" of {amount} together")).unwrap_or_default();
        let limit = match self.limit {
            Limit::CountOver(most) => format!("more than {most}"),
            Limit::CountReaches(least) => format!("at least {least} just under the threshold"),
            Limit::AmountOver(_) => self.limit_amount().map(|most| format!("more than {most}")).unwrap_or_default(),
        };
        format!(
            "rule {} version {}: {} transactions of {payer}{to}{sum} from {} to {}: {limit}",
            self.rule, self.version, self.sum.count, self.from, self.to
        )
    }
}

#[cfg(test)]
mod tests {
    use deltran_events::Amount;
    use deltran_kernel::{Currency, Minor};
    use uuid::Uuid;

    use super::*;

    fn alert(limit: Limit, payee: Option<&str>, currency: Option<&str>) -> Alert {
        Alert {
            alert_id: AlertId::new(Uuid::from_u128(1)),
            rule: "r".into(),
            version: 3,
            kind: RuleKind::Velocity,
            shadow: false,
            thread: Thread {
                payer: "ALFAAEXX".parse().unwrap(),
                payee: payee.map(|p| p.parse().unwrap()),
                currency: currency.map(|c| Currency::new(c).unwrap()),
            },
            from: Timestamp::from_micros(0),
            to: Timestamp::from_micros(60_000_000),
            sum: Sum { count: 4, amount: Minor::new(123).unwrap() },
            limit,
            transaction_id: TransactionId::new(Uuid::from_u128(2)),
            transactions: vec![TransactionId::new(Uuid::from_u128(2))],
            raised_at: Timestamp::from_micros(9),
            case_id: Some(CaseId::new(Uuid::from_u128(3))),
        }
    }

    #[test]
    fn tells_its_figures() {
        let hour = "from 1970-01-01T00:00:00.000000Z to 1970-01-01T00:01:00.000000Z";
        let most = Minor::new(100).unwrap();
        for (limit, payee, currency, words, amount) in [
            (Limit::CountOver(3), None, None, format!("4 transactions of ALFAAEXX {hour}: more than 3"), None),
            (
                Limit::AmountOver(most),
                None,
                Some("USD"),
                format!("4 transactions of ALFAAEXX of 1.23 USD together {hour}: more than 1.00 USD"),
                Some("1.23"),
            ),
            (
                Limit::CountReaches(3),
                Some("BRAVINXX"),
                Some("JPY"),
                format!(
                    "4 transactions of ALFAAEXX to BRAVINXX of 123 JPY together {hour}: \
                     at least 3 just under the threshold"
                ),
                Some("123"),
            ),
        ] {
            let alert = alert(limit, payee, currency);
            let event = alert.event();
            assert_eq!(event.message, format!("rule r version 3: {words}"));
            assert_eq!(event.sum.map(|sum| sum.amount), amount.map(|text| Amount::Text(text.to_owned())));
            assert_eq!((event.count, event.rule_version), (Some(4), Some(3)));
            assert_eq!((event.case_id, event.counterparty), (alert.case_id, alert.thread.payee));
            assert_eq!(alert.limit_count().is_some(), alert.limit_amount().is_none());
        }
    }
}
