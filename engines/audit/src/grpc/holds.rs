//! Legal holds, and the days of the ledger.

use deltran_api::audit::v1 as pb;
use deltran_events::data::audit::{LegalHoldPlaced, LegalHoldReleased};
use deltran_kernel::{HoldId, ParticipantId, Timestamp};
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{Caller, EngineContext, Failure, wire};
use tonic::Request;

use super::note_access;
use crate::config::Settings;
use crate::domain::hold::{self, Hold, Refused, Release, Scope, Wanted};
use crate::domain::letter::Outcome;
use crate::domain::retention::DayState;
use crate::store::{DayRow, Days, Holds as Store, parse_day};

/// The longest reason, in characters.
const MAX_REASON: usize = 500;
/// The longest correlation id, as leaves keep it.
const MAX_TEXT: usize = 256;

/// Answers about holds and days.
#[derive(Clone)]
pub struct Holds {
    context: EngineContext,
    door: Door,
    settings: Settings,
    holds: Store,
    days: Days,
}

impl Holds {
    /// Answers out of the engine's database.
    pub fn new(context: EngineContext, door: Door, settings: Settings) -> Self {
        let (holds, days) = (Store::new(context.db.clone()), Days::new(context.db.clone()));
        Self { context, door, settings, holds, days }
    }

    /// `PlaceHold`.
    pub async fn place(&self, request: Request<pb::PlaceHoldRequest>) -> Result<pb::PlaceHoldResponse, Failure> {
        let caller = Caller::of(&request)?;
        let wanted = wanted(&request.into_inner())?;
        let id = wanted.id;
        loop {
            let mut tx = self.door.begin("place_hold").await?;
            let there = Store::lock(&mut tx, id).await?;
            match (hold::place(there.as_ref(), &wanted).map_err(|refused| refusal(id, &refused))?, there) {
                (Outcome::AlreadyApplied, Some(hold)) => return Ok(pb::PlaceHoldResponse { hold: Some(encode(hold)) }),
                (Outcome::Executed(()), _) | (Outcome::AlreadyApplied, None) => {}
            }
            // Where somebody places it at the same moment, it is looked at again.
            let Some(hold) = Store::place(&mut tx, &wanted, &caller.user, self.context.clock.now()).await? else {
                continue;
            };
            let scope = wanted.scope;
            let event = LegalHoldPlaced {
                hold_id: id,
                participant_id: scope.participant,
                correlation_id: scope.correlation_id,
                from: scope.from,
                to: scope.to,
                reason: wanted.reason,
                placed_by: caller.user.clone(),
            };
            tx.commit(&[Outgoing::new(event, id, caller.user).traced(caller.trace)]).await?;
            return Ok(pb::PlaceHoldResponse { hold: Some(encode(hold)) });
        }
    }

    /// `ReleaseHold`.
    pub async fn release(&self, request: Request<pb::ReleaseHoldRequest>) -> Result<pb::ReleaseHoldResponse, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = wire::parse::<HoldId>("hold_id", &request.hold_id)?;
        let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
        let mut tx = self.door.begin("release_hold").await?;
        let hold = Store::lock(&mut tx, id).await?.ok_or_else(|| Failure::not_found("legal hold", id))?;
        let hold = match hold::release(&hold) {
            Outcome::AlreadyApplied => hold,
            Outcome::Executed(()) => {
                let release = Release { reason: reason.clone(), by: caller.user.clone(), at: self.context.clock.now() };
                Store::release(&mut tx, id, &release).await?;
                let event = LegalHoldReleased { hold_id: id, reason, released_by: caller.user.clone() };
                tx.commit(&[Outgoing::new(event, id, caller.user).traced(caller.trace)]).await?;
                Hold { release: Some(release), ..hold }
            }
        };
        Ok(pb::ReleaseHoldResponse { hold: Some(encode(hold)) })
    }

    /// `ListHolds`.
    pub async fn list(&self, request: Request<pb::ListHoldsRequest>) -> Result<pb::ListHoldsResponse, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = wire::page::<u64>(request.page.as_ref())?;
        let query = format!("ListHolds active_only={}", request.active_only);
        note_access(&self.context, &self.door, &caller, query).await?;
        let holds = self.holds.page(page.after, request.active_only, page.size).await?;
        let next_page_token = wire::next_token(holds.len(), page.size, holds.last().map(|hold| hold.number));
        Ok(pb::ListHoldsResponse { holds: holds.into_iter().map(encode).collect(), next_page_token })
    }

    /// `ListDays`.
    pub async fn list_days(&self, request: Request<pb::ListDaysRequest>) -> Result<pb::ListDaysResponse, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = wire::page::<String>(request.page.as_ref())?;
        let below = match page.after.as_deref() {
            None => None,
            Some(day) => {
                Some(parse_day(day).ok_or_else(|| Failure::malformed("page.token", format!("{day:?} is no day")))?)
            }
        };
        let state = match request.state.as_str() {
            "" => None,
            word => Some(DayState::from_word(word).ok_or_else(|| {
                let words = DayState::ALL.map(DayState::as_str).join(", ");
                Failure::malformed("state", format!("{word:?} is no state: expected one of {words}"))
            })?),
        };
        note_access(&self.context, &self.door, &caller, format!("ListDays state={}", request.state)).await?;
        let days = self.days.page(below, state, self.settings.retention_days, page.size).await?;
        let next_page_token = wire::next_token(days.len(), page.size, days.last().map(|day| day.name()));
        Ok(pb::ListDaysResponse { days: days.into_iter().map(|day| self.encode_day(day)).collect(), next_page_token })
    }

    /// What the database says of a day, and then what the engine was told to do.
    fn encode_day(&self, day: DayRow) -> pb::Day {
        let stays = match (day.state, day.stays_because.clone()) {
            (DayState::Detached, _) => String::new(),
            (DayState::Online, Some(reason)) if !self.settings.archives() && day.closed => {
                format!("{reason}; nothing is archived: audit.archive_directory and audit.archive_url are empty")
            }
            (_, Some(reason)) => reason,
            (_, None) if !self.settings.detach => "nothing is detached: audit.detach is false".to_owned(),
            (_, None) => String::new(),
        };
        let (archive, manifest_sha256, archived_at) = day.archive.clone().map_or_else(Default::default, |archived| {
            (archived.place, hex::encode(archived.manifest_sha256), Some(wire::to_timestamp(archived.archived_at)))
        });
        pb::Day {
            day: day.name(),
            from_leaf: day.from,
            to_leaf: day.to,
            state: day.state.as_str().to_owned(),
            archive,
            manifest_sha256,
            archived_at,
            detached_at: day.detached_at.map(wire::to_timestamp),
            stays_because: stays,
        }
    }
}

fn wanted(request: &pb::PlaceHoldRequest) -> Result<Wanted, Failure> {
    let correlation_id = wire::text("correlation_id", &request.correlation_id, MAX_TEXT)?;
    Ok(Wanted {
        id: wire::parse::<HoldId>("hold_id", &request.hold_id)?,
        scope: Scope {
            participant: wire::parse_optional::<ParticipantId>("participant", &request.participant)?,
            correlation_id: Some(correlation_id).filter(|text| !text.is_empty()),
            from: wire::timestamp("from", request.from.as_ref())?,
            to: wire::timestamp("to", request.to.as_ref())?,
        },
        reason: wire::required_text("reason", &request.reason, MAX_REASON)?,
    })
}

fn refusal(id: HoldId, refused: &Refused) -> Failure {
    match refused {
        Refused::NoCondition => Failure::malformed("participant", refused),
        Refused::OutOfRange(_) => Failure::malformed("from", refused),
        Refused::Empty { .. } => Failure::malformed("to", refused),
        Refused::Conflict => Failure::conflict("legal hold", id),
    }
}

fn encode(hold: Hold) -> pb::LegalHold {
    let moment = |at: Option<Timestamp>| at.map(wire::to_timestamp);
    let Wanted { id, scope, reason } = hold.wanted;
    let released_at = hold.release.as_ref().map(|release| release.at);
    let (release_reason, released_by) = hold.release.map(|release| (release.reason, release.by)).unwrap_or_default();
    pb::LegalHold {
        hold_id: id.to_string(),
        participant: scope.participant.map(|p| p.to_string()).unwrap_or_default(),
        correlation_id: scope.correlation_id.unwrap_or_default(),
        from: moment(scope.from),
        to: moment(scope.to),
        reason,
        placed_by: hold.placed_by,
        placed_at: moment(Some(hold.placed_at)),
        released_by,
        released_at: moment(released_at),
        release_reason,
    }
}
