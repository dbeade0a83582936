//! Sealing: the ledger's control totals against what was consumed.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Minor, ParticipantId};

use super::netting::{self, PairTotal};
use super::obligations::Tally;
use super::window::Seal;

/// What follows from comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// Obligations are still on their way.
    Wait {
        /// How many.
        missing: u64,
        /// The lowest `window_seq` that is missing.
        first_missing: u64,
    },
    /// All control totals are equal.
    Agree,
    /// They can never become equal. The window must not be netted.
    Contradiction(String),
}

/// Whether everything that the ledger sealed was consumed, and nothing else. Cheap: sums and net
/// positions come with [`compare`].
pub fn complete(currency: Currency, seal: &Seal, tally: Option<&Tally>) -> Agreement {
    let Some(tally) = tally else {
        return match seal.count {
            0 => Agreement::Agree,
            missing => Agreement::Wait { missing, first_missing: 1 },
        };
    };
    let n = seal.count;
    if tally.currency != currency {
        return Agreement::Contradiction(format!(
            "the window is of {currency}, its obligations are of {}",
            tally.currency
        ));
    }
    if tally.highest > n {
        return Agreement::Contradiction(format!(
            "the ledger sealed {n} transactions, window_seq {} was consumed",
            tally.highest
        ));
    }
    if tally.folded < n {
        return Agreement::Wait { missing: n - tally.count.min(n), first_missing: tally.folded + 1 };
    }
    Agreement::Agree
}

/// Compares all control totals: n, gross, net per participant, digest.
pub fn compare(
    currency: Currency,
    seal: &Seal,
    net: &BTreeMap<ParticipantId, Minor>,
    tally: Option<&Tally>,
    pairs: &[PairTotal],
) -> Agreement {
    match complete(currency, seal, tally) {
        Agreement::Agree => {}
        other => return other,
    }
    let empty = Tally::new(currency);
    let tally = tally.unwrap_or(&empty);
    let contradiction = |what: &str, ledger: String, consumed: String| {
        Agreement::Contradiction(format!("{what}: the ledger sealed {ledger}, consumed was {consumed}"))
    };
    let (count, gross, positions) = match netting::totals(pairs) {
        Ok(totals) => totals,
        Err(error) => return Agreement::Contradiction(error.to_string()),
    };
    if tally.count != seal.count || count != seal.count {
        return contradiction(
            "count",
            seal.count.to_string(),
            format!("{} in sequence, {count} by pairs", tally.count),
        );
    }
    if tally.gross != seal.gross || gross != seal.gross {
        return contradiction(
            "gross",
            format!("{:?}", seal.gross),
            format!("{:?} in sequence, {gross:?} by pairs", tally.gross),
        );
    }
    let digest = tally.digest.value();
    if digest != seal.digest {
        return contradiction("digest", hex::encode(seal.digest), hex::encode(digest));
    }
    if *net != positions {
        let differs = net.keys().chain(positions.keys()).find(|p| net.get(p) != positions.get(p));
        let who = differs.map(ToString::to_string).unwrap_or_default();
        let (ledger, own) = differs.map_or((None, None), |p| (net.get(p), positions.get(p)));
        return contradiction(&format!("net of {who}"), format!("{ledger:?}"), format!("{own:?}"));
    }
    Agreement::Agree
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
