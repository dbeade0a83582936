//! Screening: the gate of the submit path, and the search for people.

use deltran_api::compliance::v1 as pb;
use deltran_api::token::v1::Party as PbParty;
use deltran_runtime::{Caller, Failure, Role, wire};

use super::{by, shown};
use crate::domain::list::{BirthDate, IdKind, country, id_key};
use crate::domain::matcher::{Effect, Match, Pair, Subject as Person};
use crate::domain::screening::{Decision, Party, Screened};
use crate::handle::{Answers, Desk, Subject};

/// The most subjects of one batch.
const MAX_BATCH: usize = 10_000;
/// The longest name that is searched, in characters.
const MAX_NAME: usize = 350;
/// What a search shows at least, in ten-thousandths.
const LEAST_SHOWN: u32 = 6_000;

fn party(party: Option<PbParty>) -> Party {
    let Some(party) = party else { return Party::default() };
    Party {
        name: party.name,
        country: party.country,
        date_of_birth: party.date_of_birth,
        identifiers: party.identifiers.into_iter().collect(),
    }
}

fn subject(subject: pb::ScreenSubject) -> Result<Subject, Failure> {
    Ok(Subject {
        transaction_id: wire::parse("transaction_id", &subject.transaction_id)?,
        payer: wire::parse_optional("payer", &subject.payer)?,
        parties: [party(subject.originator), party(subject.beneficiary)],
    })
}

fn decision(decision: Decision) -> pb::Decision {
    match decision {
        Decision::Approve => pb::Decision::Approve,
        Decision::Review => pb::Decision::Review,
        Decision::BlockAndReview => pb::Decision::BlockAndReview,
        Decision::Decline => pb::Decision::Decline,
    }
}

fn result(transaction_id: String, screened: &Screened, answers: &Answers) -> pb::ScreenResult {
    pb::ScreenResult {
        transaction_id,
        decision: decision(screened.decision).into(),
        evidence: screened.evidence.as_str().to_owned(),
        list_versions: answers.list_versions.clone(),
        rule_version: answers.rule_version.clone(),
        score: screened.score,
    }
}

fn results(subjects: &[Subject], answers: &Answers) -> Vec<pb::ScreenResult> {
    let of = |(subject, found): (&Subject, &Screened)| result(subject.transaction_id.to_string(), found, answers);
    subjects.iter().zip(&answers.screened).map(of).collect()
}

/// A match for an answer.
pub fn encode_match(decided: Decision, allowance: Option<String>, found: Match) -> pb::Match {
    let pair = |pair: Pair| pb::TokenPair {
        asked: pair.asked,
        listed: pair.listed,
        how: pair.how.as_str().to_owned(),
        score: pair.score,
        weight: pair.weight,
    };
    let qualifier = |effect: Effect| pb::Qualifier {
        what: effect.what,
        asked: effect.asked,
        listed: effect.listed,
        effect: effect.effect,
    };
    pb::Match {
        source: found.source.as_str().to_owned(),
        list_version: found.list_version,
        entry_id: found.entry_id,
        kind: found.kind.as_str().to_owned(),
        primary_name: found.primary_name,
        matched_name: found.matched_name,
        quality: found.quality.as_str().to_owned(),
        score: found.score,
        name_score: found.name_score,
        decision: decision(decided).into(),
        pairs: found.pairs.into_iter().map(pair).collect(),
        qualifiers: found.qualifiers.into_iter().map(qualifier).collect(),
        countries: found.countries,
        dates_of_birth: found.dates_of_birth,
        identifiers: found.identifiers,
        allowance_id: allowance.unwrap_or_default(),
        asked_name: found.asked_name,
    }
}

/// One decision per subject, in their order.
pub async fn screen_batch(
    desk: &Desk,
    caller: Caller,
    request: pb::ScreenBatchRequest,
) -> Result<pb::ScreenBatchResponse, Failure> {
    let subjects = request.subjects;
    if subjects.len() > MAX_BATCH {
        let message = format!("has {} entries: at most {MAX_BATCH} are allowed", subjects.len());
        return Err(Failure::malformed("subjects", message));
    }
    let subjects = subjects.into_iter().map(subject).collect::<Result<Vec<_>, _>>()?;
    let answers = desk.screen(&subjects, &by(caller)).await?;
    Ok(pb::ScreenBatchResponse { results: results(&subjects, &answers) })
}

/// One decision. An officer who tries a name holds nothing by that.
pub async fn screen(desk: &Desk, caller: Caller, request: pb::ScreenRequest) -> Result<pb::ScreenResponse, Failure> {
    let asked = request.subject.ok_or_else(|| Failure::malformed("subject", "is missing"))?;
    if caller.role != Role::Engine {
        let id = asked.transaction_id;
        let answers = desk.look_up([party(asked.originator), party(asked.beneficiary)]).await?;
        let result = answers.screened.first().map(|found| result(id, found, &answers));
        return Ok(pb::ScreenResponse { result });
    }
    let subjects = [subject(asked)?];
    let answers = desk.screen(&subjects, &by(caller)).await?;
    Ok(pb::ScreenResponse { result: results(&subjects, &answers).pop() })
}

/// Who is like a name, and why.
pub async fn search(desk: &Desk, request: pb::SearchRequest) -> Result<pb::SearchResponse, Failure> {
    let name = wire::text("name", request.name.trim(), MAX_NAME)?;
    let mut identifiers = Vec::with_capacity(request.identifiers.len());
    for (kind, value) in request.identifiers {
        let words = IdKind::ALL.map(IdKind::as_str).join(", ");
        let unknown =
            || Failure::malformed("identifiers", format!("{} is no kind: expected one of {words}", shown(&kind)));
        let known = IdKind::from_word(&kind).ok_or_else(unknown)?;
        if id_key(known, &value).is_none() {
            let message = format!("{} is too short to be compared: at least 5 characters are needed", shown(&value));
            return Err(Failure::malformed("identifiers", message));
        }
        identifiers.push((known, value));
    }
    if name.is_empty() && identifiers.is_empty() {
        return Err(Failure::malformed("name", "is missing, and there is no identifier either"));
    }
    let country = match request.country.trim() {
        "" => None,
        text => Some(country::code_of(text).ok_or_else(|| {
            let message = format!("{} is no country: expected a code such as IR (ISO 3166-1)", shown(text));
            Failure::malformed("country", message)
        })?),
    };
    let born = match request.date_of_birth.trim() {
        "" => None,
        text => Some(BirthDate::iso(text).ok_or_else(|| {
            let message = format!("{} is no date: expected YYYY, YYYY-MM or YYYY-MM-DD", shown(text));
            Failure::malformed("date_of_birth", message)
        })?),
    };
    let most = match request.limit {
        0 => 10,
        limit @ 1..=100 => limit as usize,
        limit => return Err(Failure::malformed("limit", format!("{limit} is too many: at most 100"))),
    };
    let normalised_name = crate::domain::matcher::Name::read(&name).normal();
    let person = Person { name, country: country.map(str::to_owned), born, identifiers };
    let found = desk.search(person, LEAST_SHOWN, most).await?;
    Ok(pb::SearchResponse {
        matches: found
            .matches
            .into_iter()
            .map(|(found, decided, allowed)| encode_match(decided, allowed, found))
            .collect(),
        list_versions: found.list_versions,
        rule_version: found.rule_version,
        normalised_name,
    })
}
