//! The integrity manifest of a report: what its files must be, and what they cover. It can be checked without the
//! platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::job::File;

/// The manifest's file name.
pub const NAME: &str = "manifest.json";

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form: 1.
    pub version: u32,
    /// The report.
    pub report_id: String,
    /// STATEMENT, SETTLEMENT or TRIAL_BALANCE.
    pub kind: String,
    /// What it is about, such as participant, currency and day.
    pub subject: BTreeMap<String, String>,
    /// The deployment that made it.
    pub deployment: String,
    /// When it was made: RFC 3339, UTC.
    pub generated_at: String,
    /// Whether it is of a day that was not over.
    pub interim: bool,
    /// What the report says in sum. Amounts are integer minor units, by names that end in `_minor`.
    pub totals: BTreeMap<String, String>,
    /// Per producer, such as `token-engine/1`, the number up to which every event was applied.
    pub positions: BTreeMap<String, u64>,
    /// Every other file.
    pub files: Vec<File>,
}

/// What is wrong with a file of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The manifest names it, and it is not there.
    Missing,
    /// It has another size than the manifest says.
    Size(u64),
    /// Its content is not what it was.
    Digest(String),
    /// It is there, and the manifest does not name it.
    Unlisted,
    /// The manifest gives it a name that is none of a file in the folder.
    Name,
}

/// Whether a text is a plain file name: no folder, nothing hidden, nothing odd.
pub fn is_file_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| format!("{NAME} cannot be read: {e}"))?;
        if manifest.version != 1 {
            return Err(format!("{NAME} has version {}: this program reads version 1", manifest.version));
        }
        Ok(manifest)
    }

    /// As the bytes of its file.
    ///
    /// # Errors
    /// Where it cannot be written as JSON: a defect.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Adds the totals up: a statement's opening and payments are its closing, debits are credits, nets sum to zero.
    ///
    /// # Errors
    /// The sum that does not come out.
    pub fn check_totals(&self) -> Result<(), String> {
        let units = |name: &str| -> Result<Option<i128>, String> {
            let value = self.totals.get(name);
            let parsed = value.map(|text| text.parse::<i128>().map_err(|_| format!("{name} {text:?} is no amount")));
            parsed.transpose()
        };
        let statement =
            [units("opening_minor")?, units("received_minor")?, units("paid_minor")?, units("closing_minor")?];
        if let [Some(opening), Some(received), Some(paid), Some(closing)] = statement
            && opening.checked_add(received).and_then(|sum| sum.checked_sub(paid)) != Some(closing)
        {
            return Err(format!(
                "opening {opening} and received {received} less paid {paid} are not closing {closing}"
            ));
        }
        let mut nets = Vec::new();
        for name in self.totals.keys() {
            if let Some(currency) = name.strip_suffix("_debit_minor")
                && units(name)? != units(&format!("{currency}_credit_minor"))?
            {
                return Err(format!("debits and credits of {currency} differ"));
            }
            if name.starts_with("net_") {
                nets.extend(units(name)?);
            }
        }
        match nets.iter().try_fold(0i128, |sum, net| sum.checked_add(*net)) {
            Some(0) => Ok(()),
            sum => Err(format!("net positions sum to {sum:?}")),
        }
    }

    /// Compares the manifest with the files that are there, by name: size and SHA-256 in hexadecimal.
    pub fn check(&self, there: &BTreeMap<String, (u64, String)>) -> Vec<(String, Fault)> {
        let mut faults = Vec::new();
        for file in &self.files {
            let fault = match there.get(&file.name) {
                _ if !is_file_name(&file.name) || file.name == NAME => Some(Fault::Name),
                None => Some(Fault::Missing),
                Some((size, _)) if *size != file.size => Some(Fault::Size(*size)),
                Some((_, digest)) if *digest != file.sha256 => Some(Fault::Digest(digest.clone())),
                Some(_) => None,
            };
            faults.extend(fault.map(|fault| (file.name.clone(), fault)));
        }
        for name in there.keys().filter(|name| *name != NAME) {
            if !self.files.iter().any(|file| file.name == *name) {
                faults.push((name.clone(), Fault::Unlisted));
            }
        }
        faults
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there"),
            Self::Size(size) => write!(f, "has {size} bytes, which is not what the manifest says"),
            Self::Digest(digest) => write!(f, "was changed: its SHA-256 is {digest}"),
            Self::Unlisted => f.write_str("is not in the manifest"),
            Self::Name => f.write_str("is no name of a file of a report"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = |name: &str, size, sha: &str| File { name: name.into(), size, sha256: sha.into(), entries: 1 };
        Manifest {
            version: 1,
            report_id: "0190c3d5-0000-7000-8000-000000000001".into(),
            kind: "STATEMENT".into(),
            subject: [("currency".to_owned(), "USD".to_owned())].into(),
            deployment: "local".into(),
            generated_at: "2026-04-01T00:15:00.000000Z".into(),
            interim: false,
            totals: [("closing_minor".to_owned(), "-5".to_owned())].into(),
            positions: [("token-engine/1".to_owned(), 42)].into(),
            files: vec![file("statement.csv", 3, "aa"), file("statement.html", 4, "bb")],
        }
    }

    fn there(files: &[(&str, u64, &str)]) -> BTreeMap<String, (u64, String)> {
        files.iter().map(|(name, size, sha)| ((*name).to_owned(), (*size, (*sha).to_owned()))).collect()
    }

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let bytes = manifest().to_bytes().unwrap();
        assert_eq!(Manifest::read(&bytes), Ok(manifest()));
        let text = String::from_utf8(bytes).unwrap();
        assert!(Manifest::read(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).is_err());
        assert!(Manifest::read(text.replace("\"kind\"", "\"kinds\"").as_bytes()).is_err());
        assert!(Manifest::read(b"").is_err());
    }

    #[test]
    fn every_fault_is_found() {
        let whole = [("manifest.json", 9, "cc"), ("statement.csv", 3, "aa"), ("statement.html", 4, "bb")];
        assert_eq!(manifest().check(&there(&whole)), []);
        for (files, fault) in [
            (&[whole[0], whole[1]][..], ("statement.html", Fault::Missing)),
            (&[whole[1], ("statement.html", 5, "bb")], ("statement.html", Fault::Size(5))),
            (&[("statement.csv", 3, "ab"), whole[2]], ("statement.csv", Fault::Digest("ab".into()))),
            (&[whole[1], whole[2], ("extra.exe", 1, "dd")], ("extra.exe", Fault::Unlisted)),
        ] {
            assert_eq!(manifest().check(&there(files)), [(fault.0.to_owned(), fault.1)]);
        }
        let mut elsewhere = manifest();
        elsewhere.files[0].name = "../../etc/passwd".into();
        assert_eq!(elsewhere.check(&there(&whole[2..]))[0].1, Fault::Name);
    }

    #[test]
    fn totals_are_added_up() {
        let with = |totals: &[(&str, &str)]| {
            let totals = totals.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Manifest { totals, ..manifest() }.check_totals().is_ok()
        };
        let statement = |closing| {
            [("opening_minor", "5"), ("received_minor", "7"), ("paid_minor", "20"), ("closing_minor", closing)]
        };
        assert!(with(&statement("-8")) && !with(&statement("8")) && !with(&statement("x")));
        assert!(with(&[("USD_debit_minor", "5"), ("USD_credit_minor", "5"), ("count", "9")]));
        assert!(!with(&[("USD_debit_minor", "5"), ("USD_credit_minor", "6")]));
        assert!(!with(&[("USD_debit_minor", "5")]));
        assert!(with(&[("net_ALFAAEXX_minor", "-5"), ("net_BRAVINXX_minor", "5")]));
        assert!(!with(&[("net_ALFAAEXX_minor", "-5"), ("net_BRAVINXX_minor", "4")]));
    }

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["statement.csv", "statement.camt.053.xml", "manifest.json"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "/etc/passwd", "a%2Fb", "a b", "ä.csv", "c:x", "a\0"] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
