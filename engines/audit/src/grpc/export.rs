//! `ExportEvents`: a range of the ledger for a regulator.

use std::sync::Arc;

use deltran_api::audit::v1 as pb;
use deltran_kernel::ParticipantId;
use deltran_messaging::Door;
use deltran_runtime::{Caller, EngineContext, Failure, FailureKind, wire};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::note_access;
use crate::checkpoints::Publisher;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::export::is_export_file;
use crate::domain::export::manifest::{Filter, Range};
use crate::export::pass::Formats;
use crate::export::{Exporter, Order};
use crate::history::History;

/// Exports at once.
const EXPORTS: usize = 2;
/// Pieces under way to a slow reader.
const AHEAD: usize = 16;

/// Starts exports.
pub struct Exports {
    context: EngineContext,
    door: Door,
    publisher: Publisher,
    exporter: Exporter,
    running: Arc<Semaphore>,
}

impl Exports {
    /// Exports out of the engine's database.
    pub fn new(context: EngineContext, door: Door, publisher: Publisher, history: History) -> Self {
        let exporter = Exporter::new(context.clone(), door.clone(), publisher.clone(), history);
        Self { context, door, publisher, exporter, running: Arc::new(Semaphore::new(EXPORTS)) }
    }

    /// `ExportEvents`.
    pub async fn start(
        &self,
        request: Request<pb::ExportEventsRequest>,
    ) -> Result<ReceiverStream<Result<pb::ExportEventsResponse, Status>>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (filter, formats) = (filter(&request)?, formats(&request.formats)?);
        let since = self.since(&request)?;
        if let Some(name) = request.have.keys().find(|name| !is_export_file(name)) {
            return Err(Failure::malformed("have", format!("{name:?} is no file of an export")));
        }
        if !self.publisher.notary().can_sign() {
            let message = "an export is signed, and this ledger has no key: name one in audit.key_files";
            return Err(Failure::new(FailureKind::WrongState, "no_key", message));
        }
        let asked = self.asked(&request)?;
        let permit =
            self.running.clone().try_acquire_owned().map_err(|_| {
                Failure::overloaded(format!("{EXPORTS} exports run already: try again when one has ended"))
            })?;
        let query = format!("ExportEvents {} {}", words(&asked), filter.words());
        note_access(&self.context, &self.door, &caller, query).await?;
        let range = self.range(asked).await?;
        if let Some(held) = since.as_ref().filter(|held| held.size > range.to_leaf) {
            let message = format!("the checkpoint has {} leaves, the range ends at {}", held.size, range.to_leaf);
            return Err(Failure::malformed("since", message));
        }
        let order = Order {
            range,
            filter,
            formats,
            since,
            have: request.have.into_iter().collect(),
            user: caller.user.clone(),
            role: caller.role.as_str().to_owned(),
        };
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (exporter, closing) = (self.exporter.clone(), self.context.closing.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = tokio::select! {
                outcome = exporter.run(&order, true, &sender) => outcome.map(|_| ()),
                () = sender.closed() => return,
                () = closing.cancelled() => Err(Failure::unavailable("the process stops: the same export goes on later")),
            };
            if let Err(failure) = outcome {
                let _nobody = sender.send(Err(failure.into())).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn since(&self, request: &pb::ExportEventsRequest) -> Result<Option<Checkpoint>, Failure> {
        if request.since.is_empty() {
            return Ok(None);
        }
        let notary = self.publisher.notary();
        let held = Checkpoint::verify(&request.since, notary.origin(), notary.verifiers());
        held.map(Some).map_err(|e| Failure::malformed("since", e))
    }

    /// Which leaves are asked for, as far as that can be judged without the ledger. By leaf where the leaves are said.
    fn asked(&self, request: &pb::ExportEventsRequest) -> Result<Range, Failure> {
        let from = wire::timestamp("from", request.from.as_ref())?;
        let to = wire::timestamp("to", request.to.as_ref())?;
        let range = Range { from_leaf: request.from_leaf, to_leaf: request.to_leaf, from, to };
        if range.from_leaf > range.to_leaf {
            let message = format!("{} is after to_leaf {}", range.from_leaf, range.to_leaf);
            return Err(Failure::malformed("from_leaf", message));
        }
        let now = self.context.clock.now();
        for (field, at) in [("from", from), ("to", to)] {
            if let Some(at) = at.filter(|at| *at > now) {
                return Err(Failure::malformed(field, format!("{at} is in the future: it is {now}")));
            }
        }
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(Failure::malformed("from", format!("{from} is not before {to}")));
        }
        Ok(range)
    }

    async fn range(&self, asked: Range) -> Result<Range, Failure> {
        let found = self.exporter.range(asked.from, asked.to).await?;
        if asked.to_leaf == 0 {
            self.exporter.check_online(found.from_leaf).await?;
            return Ok(found);
        }
        let from_fits = asked.from.is_none() || asked.from_leaf == found.from_leaf;
        let to_fits = asked.to.is_none() || asked.to_leaf == found.to_leaf;
        if !from_fits || !to_fits {
            let message = format!(
                "{} to {} are not the leaves of that time, which are {} to {}",
                asked.from_leaf, asked.to_leaf, found.from_leaf, found.to_leaf
            );
            return Err(Failure::malformed("from_leaf", message));
        }
        if asked.to_leaf > found.to_leaf {
            let message = format!("{} is beyond the ledger, which has {} leaves", asked.to_leaf, found.to_leaf);
            return Err(Failure::malformed("to_leaf", message));
        }
        self.exporter.check_online(asked.from_leaf).await?;
        Ok(asked)
    }
}

fn filter(request: &pb::ExportEventsRequest) -> Result<Filter, Failure> {
    let text = |field: &str, value: &str| -> Result<Option<String>, Failure> {
        Ok(if value.is_empty() { None } else { Some(wire::required_text(field, value, 256)?) })
    };
    let participant = wire::parse_optional::<ParticipantId>("participant", &request.participant)?;
    Ok(Filter {
        domain: text("domain", &request.domain)?,
        participant: participant.map(|id| id.to_string()),
        correlation_id: text("correlation_id", &request.correlation_id)?,
    })
}

fn formats(names: &[String]) -> Result<Formats, Failure> {
    let mut formats = Formats::default();
    for name in names {
        match name.as_str() {
            "jsonl" => {}
            "csv" => formats.csv = true,
            "parquet" => formats.parquet = true,
            other => {
                let message = format!("{other:?} is none: jsonl, csv and parquet are");
                return Err(Failure::malformed("formats", message));
            }
        }
    }
    Ok(formats)
}

fn words(range: &Range) -> String {
    let time = |at: Option<deltran_kernel::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    format!("from={} to={} leaves={}..{}", time(range.from), time(range.to), range.from_leaf, range.to_leaf)
}
