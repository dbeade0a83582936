//! ISO 4217 currencies and their number of minor digits.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Text;

/// A currency of ISO 4217 list one, by its three-letter code.
///
/// Only currencies of the table can exist, so the number of minor digits is always known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    digits: u8,
}

/// The code is not in the table of ISO 4217.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown currency {0:?}: expected an ISO 4217 code such as \"USD\"")]
pub struct UnknownCurrency(pub String);

/// Codes grouped by minor digits. Source: ISO 4217:2015 list one (active funds codes left out).
const BY_DIGITS: [(u8, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF \
         CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL \
         HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP \
         MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD \
         SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS \
         VED VES WST XCD YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// Every currency, in order of code.
static TABLE: LazyLock<Vec<Currency>> = LazyLock::new(|| {
    let mut table: Vec<Currency> = BY_DIGITS
        .iter()
        .flat_map(|(digits, codes)| codes.split_ascii_whitespace().map(|code| (*digits, code)))
        .filter_map(|(digits, code)| Some(Currency { code: code.as_bytes().try_into().ok()?, digits }))
        .collect();
    table.sort();
    table
});

impl Currency {
    /// The currency of a three-letter code in capitals.
    pub fn new(code: &str) -> Result<Self, UnknownCurrency> {
        let unknown = || UnknownCurrency(code.chars().take(16).collect());
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_| unknown())?;
        let place = TABLE.binary_search_by_key(&bytes, |currency| currency.code).map_err(|_| unknown())?;
        Ok(TABLE[place])
    }

    /// The three-letter code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or("???")
    }

    /// How many decimal digits a minor unit has: 2 for USD, 0 for JPY, 3 for BHD.
    pub fn minor_digits(&self) -> u32 {
        u32::from(self.digits)
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Text(code) = Text::deserialize(d)?;
        Self::new(&code).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Currency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Currency".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 currency code"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard() {
        for (code, digits) in [("USD", 2), ("JPY", 0), ("BHD", 3), ("KWD", 3), ("CLF", 4), ("AED", 2)] {
            assert_eq!(Currency::new(code).unwrap().minor_digits(), digits, "{code}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_with_the_value() {
        for code in ["", "usd", "US", "USDX", "XXX", "ÄÖ"] {
            assert!(Currency::new(code).unwrap_err().to_string().contains(&format!("{code:?}")), "{code}");
        }
    }
}
