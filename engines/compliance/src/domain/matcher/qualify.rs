//! What is known besides the name: it raises a score a little and lowers it more, since lists are often wrong about
//! dates but seldom by much.

use serde::{Deserialize, Serialize};

use super::super::list::date::Agreement;
use super::super::list::{Entry, EntryKind};
use super::{CERTAIN, Subject};

/// The most that qualifiers raise a score by.
pub const MOST_RAISED: u32 = 400;
const SAME_COUNTRY: i32 = 100;
const OTHER_COUNTRY: i32 = -300;
const SAME_DAY: i32 = 300;
const WITHIN: i32 = 100;
const OTHER_DATE: i32 = -2_000;

/// A qualifier and by how much it changed the score, in ten-thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// "country", "date_of_birth", or the kind of an identifier.
    pub what: String,
    /// What is known of the subject.
    pub asked: String,
    /// What the list says.
    pub listed: String,
    /// Negative where it lowered the score.
    pub effect: i32,
}

/// What country and date of birth say. Where one side does not tell, nothing.
pub fn effects(subject: &Subject, entry: &Entry) -> Vec<Effect> {
    let mut effects = Vec::new();
    if let Some(country) = &subject.country
        && !entry.countries.is_empty()
    {
        let same = entry.countries.contains(country);
        effects.push(Effect {
            what: "country".to_owned(),
            asked: country.clone(),
            listed: entry.countries.join(", "),
            effect: if same { SAME_COUNTRY } else { OTHER_COUNTRY },
        });
    }
    let may_be_born = matches!(entry.kind, EntryKind::Person | EntryKind::Unknown);
    if let Some(born) = &subject.born
        && may_be_born
        && let Some((agreement, date)) = entry.born.iter().map(|date| (date.agrees(born), date)).max()
    {
        let effect = match agreement {
            Agreement::Same => SAME_DAY,
            Agreement::Within => WITHIN,
            Agreement::Near => 0,
            Agreement::Differ => OTHER_DATE,
        };
        effects.push(Effect {
            what: "date_of_birth".to_owned(),
            asked: born.to_string(),
            listed: date.to_string(),
            effect,
        });
    }
    effects
}

/// A score with its qualifiers, 0 to [`CERTAIN`].
pub fn total(score: u32, effects: &[Effect]) -> u32 {
    let sum: i32 = effects.iter().map(|effect| effect.effect).sum();
    score.saturating_add_signed(sum).min(CERTAIN)
}

#[cfg(test)]
mod tests {
    use super::super::super::list::BirthDate;
    use super::*;

    #[test]
    fn one_row_per_effect() {
        let mut entry = Entry::new("1".into(), EntryKind::Person, "X".into());
        entry.countries = vec!["IR".into(), "SY".into()];
        entry.born = vec![BirthDate::iso("1965-01-08").unwrap(), BirthDate::iso("1970").unwrap()];
        for (country, born, effect) in [
            (None, None, 0),
            (Some("SY"), None, 100),
            (Some("DE"), None, -300),
            (None, Some("1965-01-08"), 300),
            (None, Some("1970-05-05"), 100),
            (None, Some("1965-08-01"), 0),
            (None, Some("1980"), -2_000),
            (Some("IR"), Some("1965-01-08"), 400),
        ] {
            let subject = Subject {
                country: country.map(str::to_owned),
                born: born.and_then(BirthDate::iso),
                ..Subject::default()
            };
            let found: i32 = effects(&subject, &entry).iter().map(|e| e.effect).sum();
            assert_eq!(found, effect, "{country:?} {born:?}");
            assert!(found <= MOST_RAISED as i32);
        }
        entry.kind = EntryKind::Entity;
        let subject = Subject { born: BirthDate::iso("1980"), ..Subject::default() };
        assert!(effects(&subject, &entry).is_empty(), "a company is not born");
        assert_eq!(
            (total(9_900, &[]), total(100, &effects(&Subject { country: Some("DE".into()), ..subject }, &entry))),
            (9_900, 0)
        );
    }
}
