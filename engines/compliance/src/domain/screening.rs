//! What becomes of the parties of a transaction.

use super::list::NameList;

/// The version of the rules that are applied here; it stands with every decision.
pub const RULE_VERSION: &str = "exact-name/1";

/// The score of a match that leaves no doubt, in ten-thousandths.
pub const CERTAIN: u32 = 10_000;

/// The longest name that is kept with a hold, in characters.
const KEPT_NAME: usize = 300;

/// A decision. The greatest over all parties counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It may pass.
    Approve,
    /// It is held: nothing certain is known.
    Review,
    /// It is held: a party stands on a list.
    BlockAndReview,
    /// It is refused.
    Decline,
}

impl Decision {
    /// The word for it in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "APPROVE",
            Self::Review => "REVIEW",
            Self::BlockAndReview => "BLOCK_AND_REVIEW",
            Self::Decline => "DECLINE",
        }
    }
}

/// What led to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// No party was named.
    NoParties,
    /// No party stands on the list.
    NoMatch,
    /// A party's name is that of the list.
    ExactName,
    /// Parties are named and there is no list.
    NoList,
    /// A name could not be checked: it has neither letter nor digit.
    Error,
}

impl Evidence {
    /// The word for it in answers, events and stored rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoParties => "no_parties",
            Self::NoMatch => "no_match",
            Self::ExactName => "exact_name",
            Self::NoList => "no_list",
            Self::Error => "error",
        }
    }
}

/// A decision with what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screened {
    /// The decision.
    pub decision: Decision,
    /// What led to it.
    pub evidence: Evidence,
    /// 0 to [`CERTAIN`].
    pub score: u32,
    /// The names that led to it, where it is not an approval. Personal data: for the hold only.
    pub names: Option<String>,
}

/// Screens the names of a transaction's parties against the list, or against none where there is no
/// list. Blank names count as not given.
///
/// Never approves a name that was not looked up (K2).
pub fn screen(list: Option<&NameList>, parties: &[&str]) -> Screened {
    let mut worst = Screened { decision: Decision::Approve, evidence: Evidence::NoParties, score: 0, names: None };
    for name in parties.iter().filter(|name| !name.trim().is_empty()) {
        let (decision, evidence, score) = match list.map(|list| list.contains(name)) {
            None => (Decision::Review, Evidence::NoList, 0),
            Some(None) => (Decision::Review, Evidence::Error, 0),
            Some(Some(true)) => (Decision::BlockAndReview, Evidence::ExactName, CERTAIN),
            Some(Some(false)) => (Decision::Approve, Evidence::NoMatch, 0),
        };
        let names = (decision > Decision::Approve).then(|| name.trim().chars().take(KEPT_NAME).collect::<String>());
        if decision > worst.decision || worst.evidence == Evidence::NoParties {
            worst = Screened { decision, evidence, score, names };
        } else if decision == worst.decision
            && let (Some(all), Some(name)) = (&mut worst.names, names)
            && *all != name
        {
            all.push_str("; ");
            all.push_str(&name);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list() -> NameList {
        NameList::parse("Vostok Shadow Trading LLC\nIvan Petrovich Example\n".as_bytes()).unwrap()
    }

    #[test]
    fn one_row_per_decision() {
        use Decision::{Approve, BlockAndReview, Review};
        let bad = "Vostok Shadow Trading LLC";
        for (loaded, parties, decision, evidence, score, names) in [
            (true, &[][..], Approve, "no_parties", 0, None),
            (true, &["", "  "], Approve, "no_parties", 0, None),
            (false, &["", ""], Approve, "no_parties", 0, None),
            (false, &["Ada", ""], Review, "no_list", 0, Some("Ada")),
            (false, &["Ada", "Bob"], Review, "no_list", 0, Some("Ada; Bob")),
            (true, &["Ada", "Bob"], Approve, "no_match", 0, None),
            (true, &[bad, "Bob"], BlockAndReview, "exact_name", 10_000, Some(bad)),
            (true, &["Bob", bad], BlockAndReview, "exact_name", 10_000, Some(bad)),
            (true, &["???", "Bob"], Review, "error", 0, Some("???")),
            (true, &["Bob", "\u{200b}"], Review, "error", 0, Some("\u{200b}")),
            (true, &["???", bad], BlockAndReview, "exact_name", 10_000, Some(bad)),
            (true, &[bad, "???"], BlockAndReview, "exact_name", 10_000, Some(bad)),
            (
                true,
                &[bad, "EXAMPLE, Ivan Petrovich"],
                BlockAndReview,
                "exact_name",
                10_000,
                Some("Vostok Shadow Trading LLC; EXAMPLE, Ivan Petrovich"),
            ),
        ] {
            let list = list();
            let found = screen(loaded.then_some(&list), parties);
            assert_eq!(
                (found.decision, found.evidence.as_str(), found.score),
                (decision, evidence, score),
                "{parties:?}"
            );
            assert_eq!(found.names.as_deref(), names, "{parties:?}");
        }
    }

    #[test]
    fn decisions_are_ordered() {
        assert!(Decision::Approve < Decision::Review);
        assert!(Decision::Review < Decision::BlockAndReview);
        assert!(Decision::BlockAndReview < Decision::Decline);
    }

    proptest! {
        /// K2: without a list no name passes, and a second party never softens the decision on the first.
        #[test]
        fn fails_closed(a in "\\PC{0,20}", b in "\\PC{0,20}") {
            let list = list();
            let named = !a.trim().is_empty() || !b.trim().is_empty();
            prop_assert_eq!(screen(None, &[&a, &b]).decision > Decision::Approve, named);
            let both = screen(Some(&list), &[&a, &b]).decision;
            prop_assert_eq!(both, screen(Some(&list), &[&a]).decision.max(screen(Some(&list), &[&b]).decision));
        }
    }
}
