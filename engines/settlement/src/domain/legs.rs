//! The legs of a batch: what clearing froze, and what the ledger says stands behind it.

use std::collections::BTreeMap;

use deltran_events::data::transactions::CoverPolicy;
use deltran_kernel::{Currency, Minor, MoneyError, NettingSetId, ParticipantId, WindowId};

use super::batch::Terms;

/// The leg of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Plus receives, minus owes.
    pub net: Minor,
    /// What the ledger has locked, as it said last; never negative.
    pub reserved: Minor,
    /// What else stands behind the participant, once the ledger has said it.
    pub cover: Option<CoverPolicy>,
}

impl Leg {
    /// A leg of which the ledger has said nothing yet.
    pub const fn new(net: Minor) -> Self {
        Self { net, reserved: Minor::ZERO, cover: None }
    }

    /// What it owes; zero for a creditor.
    pub fn required(&self) -> Minor {
        self.net.neg().or_zero()
    }

    /// What is still to be locked.
    pub fn missing(&self) -> Minor {
        // Neither side is negative, so the difference is always in range.
        self.required().sub(self.reserved).unwrap_or(self.required()).or_zero()
    }

    /// Whether it has locked less than it owes.
    pub fn is_short(&self) -> bool {
        self.missing().is_positive()
    }
}

/// The legs by participant.
pub type Legs = BTreeMap<ParticipantId, Leg>;

/// A netting set as clearing answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NettingSet {
    /// Its id.
    pub id: NettingSetId,
    /// Its currency.
    pub currency: Currency,
    /// Its windows.
    pub window_ids: Vec<WindowId>,
    /// Number of transactions.
    pub transactions: u64,
    /// The sum of all transactions.
    pub gross: Minor,
    /// The value that changes hands.
    pub moved: Minor,
    /// Digest of the content, in hexadecimal.
    pub digest: String,
    /// Net per participant.
    pub positions: Vec<(ParticipantId, Minor)>,
}

/// What the ledger says about a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FundingLine {
    /// What it owes.
    pub required: Minor,
    /// What is locked.
    pub reserved: Minor,
    /// What else stands behind it.
    pub cover: CoverPolicy,
}

/// Two engines that do not say the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(pub String);

impl From<MoneyError> for Mismatch {
    fn from(error: MoneyError) -> Self {
        Self(error.to_string())
    }
}

/// S2: the legs of a netting set, where it is the one that was announced and adds up.
///
/// # Errors
/// [`Mismatch`]: the first thing that differs.
pub fn legs_of(terms: &Terms, set: &NettingSet) -> Result<Legs, Mismatch> {
    fn same<T: PartialEq + std::fmt::Debug>(what: &str, announced: &T, found: &T) -> Result<(), Mismatch> {
        if announced == found {
            return Ok(());
        }
        Err(Mismatch(format!("{what} of the netting set is {found:?}, announced was {announced:?}")))
    }
    let mut window_ids = set.window_ids.clone();
    window_ids.sort_unstable();
    same("the id", &terms.netting_set_id, &set.id)?;
    same("currency", &terms.currency, &set.currency)?;
    same("the list of windows", &terms.window_ids, &window_ids)?;
    same("count", &terms.transactions, &set.transactions)?;
    same("gross", &terms.gross, &set.gross)?;
    same("moved", &terms.moved, &set.moved)?;
    same("digest", &terms.digest, &set.digest)?;
    same("the number of positions", &(terms.participants as usize), &set.positions.len())?;
    let legs: Legs = set.positions.iter().map(|(participant, net)| (*participant, Leg::new(*net))).collect();
    same("the number of participants", &set.positions.len(), &legs.len())?;
    same("the sum of the positions", &Minor::ZERO, &Minor::sum(legs.values().map(|leg| leg.net))?)?;
    same("the sum of the debits", &terms.moved, &Minor::sum(legs.values().map(Leg::required))?)?;
    Ok(legs)
}

/// S3: the legs with what the ledger says about them, where it names exactly the net debtors with exactly
/// what they owe. Others may appear with nothing required: they had tokens locked for one of the windows.
///
/// # Errors
/// [`Mismatch`]: the first thing that differs.
pub fn funded(legs: &Legs, lines: &BTreeMap<ParticipantId, FundingLine>) -> Result<Legs, Mismatch> {
    let mut after = legs.clone();
    for (participant, line) in lines {
        let owes = legs.get(participant).map_or(Minor::ZERO, Leg::required);
        if line.required != owes {
            return Err(Mismatch(format!(
                "the ledger requires {:?} of {participant}, its leg is {owes:?}",
                line.required
            )));
        }
        if line.reserved.is_negative() {
            return Err(Mismatch(format!("the ledger has reserved {:?} of {participant}", line.reserved)));
        }
        if let Some(leg) = after.get_mut(participant) {
            leg.reserved = line.reserved;
            leg.cover = Some(line.cover);
        }
    }
    let forgotten =
        legs.iter().find(|(participant, leg)| leg.required().is_positive() && !lines.contains_key(participant));
    if let Some((participant, leg)) = forgotten {
        return Err(Mismatch(format!("the ledger says nothing of {participant}, which owes {:?}", leg.required())));
    }
    Ok(after)
}
