//! `ClearingService`: decode, command, encode.

use std::pin::Pin;

use deltran_api::clearing::v1 as pb;
use deltran_api::clearing::v1::clearing_service_server::ClearingService;
use deltran_api::common::v1::NetPosition;
use deltran_events::{Domain, Envelope, Event};
use deltran_kernel::{Currency, Minor, NettingSetId, ParticipantId, WindowId};
use deltran_messaging::Broker;
use deltran_messaging::watch::{self, Seen};
use deltran_runtime::wire::{self, minor_to_money, to_timestamp};
use deltran_runtime::{Caller, Failure, Role};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::commands::Clearing;
use crate::domain::netting::{self, NettingSet};
use crate::domain::window::{Window, WindowState};
use crate::store::{self, Counted, Filter, StoredSet};

/// The service.
pub struct Service {
    clearing: Clearing,
    broker: Broker,
}

impl Service {
    /// The service over the engine's commands.
    pub fn new(clearing: Clearing, broker: Broker) -> Self {
        Self { clearing, broker }
    }
}

fn state_to_wire(state: WindowState) -> i32 {
    let state = match state {
        WindowState::Scheduled => pb::WindowState::Scheduled,
        WindowState::Open => pb::WindowState::Open,
        WindowState::Closing => pb::WindowState::Closing,
        WindowState::Closed => pb::WindowState::Closed,
        WindowState::Netted => pb::WindowState::Netted,
        WindowState::Settling => pb::WindowState::Settling,
        WindowState::Settled => pb::WindowState::Settled,
        WindowState::Failed => pb::WindowState::Failed,
        WindowState::Aborted => pb::WindowState::Aborted,
    };
    state.into()
}

fn state_of_wire(number: i32) -> Result<WindowState, Failure> {
    WindowState::ALL
        .iter()
        .copied()
        .find(|state| state_to_wire(*state) == number)
        .ok_or_else(|| Failure::malformed("states", format!("{number} is no state of a window")))
}

/// A window for an answer. A bank sees where it stands, not what all banks together have in it.
fn window_to_wire(window: &Window, counted: Option<&Counted>, caller: &Caller) -> pb::Window {
    let money = |minor: Minor| minor_to_money(minor, window.currency);
    let mut wire = pb::Window {
        window_id: window.id.to_string(),
        schedule: window.schedule.clone(),
        currency: window.currency.code().to_owned(),
        state: state_to_wire(window.state),
        opens_at: Some(to_timestamp(window.opens_at)),
        closes_at: window.closes_at.map(to_timestamp),
        opened_at: window.opened_at.map(to_timestamp),
        closed_at: window.closed_at.map(to_timestamp),
        settled_at: window.settled_at.map(to_timestamp),
        ..pb::Window::default()
    };
    if caller.role != Role::Bank {
        wire.count = counted.map_or(0, |c| c.count);
        wire.gross = Some(money(counted.map_or(Minor::ZERO, |c| c.gross)));
        wire.sealed_count = window.sealed.as_ref().map_or(0, |s| s.count);
        wire.sealed_gross = window.sealed.as_ref().map(|s| money(s.gross));
        wire.netting_set_id = window.netting_set.map(|id| id.to_string()).unwrap_or_default();
        wire.note = window.note.clone().unwrap_or_default();
    }
    wire
}

fn position_to_wire(participant: &ParticipantId, net: Minor, currency: Currency) -> NetPosition {
    NetPosition { participant: participant.to_string(), net: Some(minor_to_money(net, currency)) }
}

fn content_to_wire(set: &NettingSet) -> pb::NettingSet {
    let money = |minor| Some(minor_to_money(minor, set.currency));
    pb::NettingSet {
        netting_set_id: String::new(),
        currency: set.currency.code().to_owned(),
        window_ids: set.windows.iter().map(ToString::to_string).collect(),
        count: set.count,
        gross: money(set.gross),
        moved: money(set.moved),
        efficiency: set.efficiency,
        largest_debtor: set.largest_debtor.map(|p| p.to_string()).unwrap_or_default(),
        digest: hex::encode(set.digest),
        positions: set.positions.iter().map(|(p, net)| position_to_wire(p, *net, set.currency)).collect(),
        netted_at: None,
    }
}

fn set_to_wire(stored: &StoredSet) -> pb::NettingSet {
    let netted_at = Some(to_timestamp(stored.netted_at));
    pb::NettingSet { netting_set_id: stored.id.to_string(), netted_at, ..content_to_wire(&stored.set) }
}

impl Service {
    async fn encode(&self, windows: &[Window], caller: &Caller) -> Result<Vec<pb::Window>, Failure> {
        let ids: Vec<WindowId> = windows.iter().map(|w| w.id).collect();
        let counted = store::counted(self.clearing.context.db.pool(), &ids).await?;
        Ok(windows.iter().map(|w| window_to_wire(w, counted.get(&w.id), caller)).collect())
    }

    async fn encode_one(&self, window: &Window, caller: &Caller) -> Result<Option<pb::Window>, Failure> {
        Ok(self.encode(std::slice::from_ref(window), caller).await?.pop())
    }

    /// What netting a window would give at present.
    async fn content(&self, id: WindowId) -> Result<NettingSet, Failure> {
        let pool = self.clearing.context.db.pool();
        let currency = match store::window(pool, id).await? {
            Some(window) => window.currency,
            // The ledger may have told of a window first.
            None => store::counted_of(pool, id).await?.ok_or_else(|| Failure::not_found("window", id))?.currency,
        };
        let pairs = store::pairs_of(pool, &[id]).await?;
        netting::net(currency, [id].into(), &pairs).map_err(Failure::internal)
    }

    async fn positions(&self, request: &pb::GetPositionsRequest, caller: &Caller) -> Result<Vec<NetPosition>, Failure> {
        let id: WindowId = wire::parse("window_id", &request.window_id)?;
        let asked: Option<ParticipantId> = wire::parse_optional("participant", &request.participant)?;
        let scope = caller.scope(asked)?;
        let pool = self.clearing.context.db.pool();
        let set = NettingSetId::new(id.uuid());
        let (currency, positions) = match store::currency_of_set(pool, set).await? {
            Some(currency) => (currency, store::positions_of_set(pool, set).await?),
            None => {
                let content = self.content(id).await?;
                (content.currency, content.positions)
            }
        };
        let seen = positions.iter().filter(|(p, _)| scope.is_none_or(|own| own == **p));
        Ok(seen.map(|(p, net)| position_to_wire(p, *net, currency)).collect())
    }

    /// A window's event for a watcher; nothing where it is not one of this engine's.
    async fn seen(&self, seen: &Seen, caller: &Caller) -> Result<Option<pb::WatchWindowsResponse>, Failure> {
        let Ok((envelope, _)) = Envelope::decode(&seen.subject, &seen.payload) else { return Ok(None) };
        if envelope.source != Domain::Clearing.source() || envelope.metadata.producer.is_none() {
            return Ok(None);
        }
        let Some(id) = window_of(&envelope.data) else { return Ok(None) };
        let Some(window) = store::window(self.clearing.context.db.pool(), id).await? else { return Ok(None) };
        let window = self.encode_one(&window, caller).await?;
        Ok(Some(pb::WatchWindowsResponse { position: seen.position, window, event_type: envelope.event_type }))
    }
}

/// The window that an event is about, where it is about one.
fn window_of(event: &Event) -> Option<WindowId> {
    match event {
        Event::WindowScheduled(e) => Some(e.window_id),
        Event::WindowOpened(e) => Some(e.window_id),
        Event::WindowExtended(e) => Some(e.window_id),
        Event::WindowClosing(e) => Some(e.window_id),
        Event::WindowClosed(e) => Some(e.window_id),
        Event::WindowNetted(e) => Some(e.window_id),
        Event::WindowSettling(e) => Some(e.window_id),
        Event::WindowSettled(e) => Some(e.window_id),
        Event::WindowFailed(e) => Some(e.window_id),
        Event::WindowAborted(e) => Some(e.window_id),
        _ => None,
    }
}

type Watched = Pin<Box<dyn Stream<Item = Result<pb::WatchWindowsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClearingService for Service {
    type WatchWindowsStream = Watched;

    async fn get_window(
        &self,
        request: Request<pb::GetWindowRequest>,
    ) -> Result<Response<pb::GetWindowResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = wire::parse("window_id", &request.get_ref().window_id)?;
        let window = self.clearing.find(id).await?;
        Ok(Response::new(pb::GetWindowResponse { window: self.encode_one(&window, &caller).await? }))
    }

    async fn list_windows(
        &self,
        request: Request<pb::ListWindowsRequest>,
    ) -> Result<Response<pb::ListWindowsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let page = wire::page::<i64>(request.page.as_ref())?;
        let schedule = wire::text("schedule", &request.schedule, 32)?;
        let filter = Filter {
            currency: wire::parse_optional("currency", &request.currency)?,
            schedule: (!schedule.is_empty()).then_some(schedule),
            states: request.states.iter().map(|s| state_of_wire(*s)).collect::<Result<_, _>>()?,
        };
        let rows = store::list(self.clearing.context.db.pool(), &filter, &page).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|(number, _)| number));
        let windows: Vec<Window> = rows.into_iter().map(|(_, window)| window).collect();
        let windows = self.encode(&windows, &caller).await?;
        Ok(Response::new(pb::ListWindowsResponse { windows, next_page_token }))
    }

    async fn watch_windows(
        &self,
        request: Request<pb::WatchWindowsRequest>,
    ) -> Result<Response<Self::WatchWindowsStream>, Status> {
        let caller = Caller::of(&request)?;
        let from = watch::From::After(request.get_ref().after_position);
        let away = |e: deltran_messaging::BrokerError| Status::from(Failure::unavailable(e.to_string()));
        let messages = watch::watch(&self.broker, Domain::Clearing.stream(), "events.clearing.window.>", from).await;
        let service = Self { clearing: self.clearing.clone(), broker: self.broker.clone() };
        let closing = self.clearing.context.closing.clone();
        let changes = messages.map_err(away)?.filter_map(move |message| {
            let (service, caller) =
                (Self { clearing: service.clearing.clone(), broker: service.broker.clone() }, caller.clone());
            async move {
                match message {
                    Err(error) => Some(Err(away(error))),
                    Ok(seen) => service.seen(&seen, &caller).await.map_err(Status::from).transpose(),
                }
            }
        });
        Ok(Response::new(Box::pin(changes.take_until(closing.cancelled_owned()))))
    }

    async fn open_window(
        &self,
        request: Request<pb::OpenWindowRequest>,
    ) -> Result<Response<pb::OpenWindowResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let id = wire::parse("window_id", &request.window_id)?;
        let schedule = wire::required_text("schedule", &request.schedule, 32)?;
        let currency = wire::parse("currency", &request.currency)?;
        let window = self.clearing.open(id, &schedule, currency, &caller).await?;
        Ok(Response::new(pb::OpenWindowResponse { window: self.encode_one(&window, &caller).await? }))
    }

    async fn close_window(
        &self,
        request: Request<pb::CloseWindowRequest>,
    ) -> Result<Response<pb::CloseWindowResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let id = wire::parse("window_id", &request.window_id)?;
        let next = wire::parse_optional("next_window_id", &request.next_window_id)?;
        let (window, next) = self.clearing.close(id, next, &caller).await?;
        let window = self.encode_one(&window, &caller).await?;
        let next = match next {
            Some(next) => self.encode_one(&next, &caller).await?,
            None => None,
        };
        Ok(Response::new(pb::CloseWindowResponse { window, next }))
    }

    async fn extend_window(
        &self,
        request: Request<pb::ExtendWindowRequest>,
    ) -> Result<Response<pb::ExtendWindowResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let id = wire::parse("window_id", &request.window_id)?;
        let closes_at = wire::timestamp("closes_at", request.closes_at.as_ref())?
            .ok_or_else(|| Failure::malformed("closes_at", "is missing"))?;
        let reason = wire::required_text("reason", &request.reason, 200)?;
        let window = self.clearing.extend(id, closes_at, &reason, &caller).await?;
        Ok(Response::new(pb::ExtendWindowResponse { window: self.encode_one(&window, &caller).await? }))
    }

    async fn abort_window(
        &self,
        request: Request<pb::AbortWindowRequest>,
    ) -> Result<Response<pb::AbortWindowResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let id = wire::parse("window_id", &request.window_id)?;
        let reason = wire::required_text("reason", &request.reason, 200)?;
        let window = self.clearing.abort(id, &reason, &caller).await?;
        Ok(Response::new(pb::AbortWindowResponse { window: self.encode_one(&window, &caller).await? }))
    }

    async fn net_windows(
        &self,
        request: Request<pb::NetWindowsRequest>,
    ) -> Result<Response<pb::NetWindowsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.get_ref();
        let id = wire::parse("netting_set_id", &request.netting_set_id)?;
        let windows =
            request.window_ids.iter().map(|id| wire::parse("window_ids", id)).collect::<Result<Vec<WindowId>, _>>()?;
        let set = self.clearing.net_windows(id, &windows, &caller).await?;
        Ok(Response::new(pb::NetWindowsResponse { netting_set: Some(set_to_wire(&set)) }))
    }

    async fn get_netting_set(
        &self,
        request: Request<pb::GetNettingSetRequest>,
    ) -> Result<Response<pb::GetNettingSetResponse>, Status> {
        let id = wire::parse("netting_set_id", &request.get_ref().netting_set_id)?;
        let set = self.clearing.netting_set(id).await?;
        Ok(Response::new(pb::GetNettingSetResponse { netting_set: Some(set_to_wire(&set)) }))
    }

    async fn get_positions(
        &self,
        request: Request<pb::GetPositionsRequest>,
    ) -> Result<Response<pb::GetPositionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let positions = self.positions(request.get_ref(), &caller).await?;
        Ok(Response::new(pb::GetPositionsResponse { positions }))
    }

    async fn preview_netting(
        &self,
        request: Request<pb::PreviewNettingRequest>,
    ) -> Result<Response<pb::PreviewNettingResponse>, Status> {
        let id = wire::parse("window_id", &request.get_ref().window_id)?;
        let set = self.content(id).await?;
        Ok(Response::new(pb::PreviewNettingResponse { netting_set: Some(content_to_wire(&set)) }))
    }
}
