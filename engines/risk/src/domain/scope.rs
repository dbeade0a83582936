//! What breakers and corridor limits stand for.

use std::fmt;
use std::str::FromStr;

use deltran_kernel::{Currency, ParticipantId};

/// From one country to another, by the countries in the BICs of payer and payee: `AE-IN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Corridor {
    from: [u8; 2],
    to: [u8; 2],
}

/// A text that is no corridor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no corridor: expected the countries of payer and payee, such as \"AE-IN\"")]
pub struct UnknownCorridor(pub String);

impl Corridor {
    /// The corridor of a transaction.
    pub fn of(payer: ParticipantId, payee: ParticipantId) -> Self {
        Self { from: letters(payer.country()), to: letters(payee.country()) }
    }
}

/// The first two bytes; a country has no others.
fn letters(country: &str) -> [u8; 2] {
    let mut bytes = country.bytes();
    [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')]
}

impl FromStr for Corridor {
    type Err = UnknownCorridor;
    fn from_str(text: &str) -> Result<Self, UnknownCorridor> {
        let country = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_uppercase());
        match text.split_once('-') {
            Some((from, to)) if country(from) && country(to) => Ok(Self { from: letters(from), to: letters(to) }),
            _ => Err(UnknownCorridor(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Corridor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = [self.from[0], self.from[1], b'-', self.to[0], self.to[1]];
        f.pad(std::str::from_utf8(&word).unwrap_or("??-??"))
    }
}

/// What a breaker stands for. The order is that in which breakers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every transaction.
    Global,
    /// Transactions of a currency.
    Currency(Currency),
    /// Transactions from one country to another.
    Corridor(Corridor),
    /// Transactions that a participant pays or receives.
    Participant(ParticipantId),
}

impl Scope {
    /// The scopes that cover a transaction, in the order in which they are asked; the payee's is the last.
    pub fn of(payer: ParticipantId, payee: ParticipantId, currency: Currency) -> [Self; 5] {
        [
            Self::Global,
            Self::Currency(currency),
            Self::Corridor(Corridor::of(payer, payee)),
            Self::Participant(payer),
            Self::Participant(payee),
        ]
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: expected \"global\", \"currency:USD\", \"corridor:AE-IN\" or \"participant:ALFAAEXX\"")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let unknown = || UnknownScope(text.chars().take(64).collect());
        match text.split_once(':') {
            None if text == "global" => Ok(Self::Global),
            Some(("currency", code)) => Currency::new(code).map(Self::Currency).map_err(|_| unknown()),
            Some(("corridor", word)) => word.parse().map(Self::Corridor).map_err(|_| unknown()),
            Some(("participant", id)) => id.parse().map(Self::Participant).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Currency(currency) => write!(f, "currency:{currency}"),
            Self::Corridor(corridor) => write!(f, "corridor:{corridor}"),
            Self::Participant(participant) => write!(f, "participant:{participant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_back() {
        for text in ["global", "currency:USD", "corridor:AE-IN", "participant:ALFAAEXX"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "Global",
            "global:",
            "currency:",
            "currency:XXX",
            "currency:usd",
            "participant:alfa",
            "corridor:AE",
            "corridor:ae-in",
            "corridor:AE-IND",
            "corridor:A1-IN",
            "AE-IN",
        ] {
            assert!(bad.parse::<Scope>().unwrap_err().to_string().contains(&format!("{bad:?}")), "{bad}");
        }
    }

    #[test]
    fn a_corridor_is_that_of_the_bics() {
        let (alfa, bravo) = ("ALFAAEXX".parse().unwrap(), "BRAVINXX".parse().unwrap());
        assert_eq!(Corridor::of(alfa, bravo).to_string(), "AE-IN");
        assert_eq!(Corridor::of(bravo, alfa), "IN-AE".parse().unwrap());
        assert!("AE".parse::<Corridor>().unwrap_err().to_string().contains("\"AE\""));
    }
}
