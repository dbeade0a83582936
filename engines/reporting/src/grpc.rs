//! `ReportingService`: asking for reports, reading them, their schedules.

mod encode;

use std::sync::Arc;

use deltran_api::reporting::v1 as pb;
use deltran_api::reporting::v1::reporting_service_server::ReportingService;
use deltran_kernel::ReportId;
use deltran_messaging::Door;
use deltran_runtime::{Caller, EngineContext, Failure, wire};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::config::Checked;
use crate::domain::day::Day;
use crate::domain::job::{File, Report, State, Subject};
use crate::domain::timetable::{self, Schedule};
use crate::files::Files;
use crate::schedule::changed;
use crate::store::{self, Filter};
use crate::worker::requested;

/// What the service and the pages work with. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    /// The engine's context.
    pub context: EngineContext,
    /// Its database and outbox.
    pub door: Door,
    /// Its settings.
    pub checked: Arc<Checked>,
    /// Where files are.
    pub files: Files,
    /// Told when a schedule was set.
    pub scheduled: Arc<Notify>,
}

impl Service {
    /// A report that the caller may see. P7: to a bank, those of others are not there.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn visible(&self, caller: &Caller, id: ReportId) -> Result<Report, Failure> {
        let report = store::report(self.door.db().pool(), id).await?;
        let visible = |report: &Report| match (caller.participant, report.subject.about.participant()) {
            (None, _) => true,
            (Some(own), of) => of == Some(own),
        };
        report.filter(visible).ok_or_else(|| Failure::not_found("report", id))
    }

    /// A file of a report that is there.
    ///
    /// # Errors
    /// `not_found`, or `wrong_state` where the report has no files.
    pub fn file<'a>(&self, report: &'a Report, name: &str) -> Result<&'a File, Failure> {
        if report.state != State::Completed {
            let state = report.state.as_str();
            let message = format!("report {} is {state}: it has no files to download", report.id);
            return Err(Failure::wrong_state(message, state));
        }
        let names = || report.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
        report.files.iter().find(|file| file.name == name).ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            Failure::not_found("file", format!("{name:?} of report {}: it has {}", report.id, names()))
        })
    }

    async fn create(&self, caller: &Caller, request: pb::CreateReportRequest) -> Result<(Report, bool), Failure> {
        let id: ReportId = wire::parse("report_id", &request.report_id)?;
        let subject = request.subject.as_ref().ok_or_else(|| Failure::malformed("subject", "is missing"))?;
        let mut fields = encode::fields(subject)?;
        if caller.participant.is_some() {
            if fields.kind != Some(deltran_events::data::reporting::ReportKind::Statement) {
                return Err(Failure::unauthorised("a bank gets statements of its own only"));
            }
            fields.participant = caller.scope(fields.participant)?;
        }
        let now = self.context.clock.now();
        let known = store::report(self.door.db().pool(), id).await?;
        // The day on which it was asked for first decides what lies ahead, so that the same request gets the same.
        let today = Day::of(known.as_ref().map_or(now, |known| known.requested_at), &self.checked.zone);
        let subject = Subject::new(fields, today).map_err(|(field, what)| Failure::malformed(field, what))?;
        if known.is_none() {
            let mut tx = self.door.begin("create_report").await?;
            if store::insert(&mut tx, id, &subject, &caller.user, now).await? {
                let event = requested(id, &subject, None, &caller.user).traced(caller.trace.clone());
                tx.commit(&[event]).await?;
                return Ok((self.stored(id).await?, false));
            }
        }
        let stored = self.stored(id).await?;
        if stored.subject != subject {
            return Err(Failure::conflict("report id", id));
        }
        Ok((stored, true))
    }

    async fn stored(&self, id: ReportId) -> Result<Report, Failure> {
        let report = store::report(self.door.db().pool(), id).await?;
        report.ok_or_else(|| Failure::internal(format!("report {id} was stored and is not there")))
    }

    async fn set(&self, caller: &Caller, request: pb::SetScheduleRequest) -> Result<(Schedule, bool), Failure> {
        let asked = request.schedule.ok_or_else(|| Failure::malformed("schedule", "is missing"))?;
        let now = self.context.clock.now();
        let mut schedule = encode::schedule(&asked, &caller.user, now)?;
        let (_, formats) = timetable::read(&schedule, now).map_err(|(field, what)| Failure::malformed(field, what))?;
        schedule.formats = formats;
        let mut tx = self.door.begin("set_schedule").await?;
        if let Some(stored) = store::schedule(&mut tx, &schedule.name).await?
            && stored.says_the_same(&schedule)
        {
            return Ok((stored, true));
        }
        store::save_schedule(&mut tx, &schedule).await?;
        tx.commit(&[changed(&schedule, &caller.user).traced(caller.trace.clone())]).await?;
        self.scheduled.notify_one();
        Ok((schedule, false))
    }
}

#[tonic::async_trait]
impl ReportingService for Service {
    type DownloadReportStream = BoxStream<'static, Result<pb::DownloadReportResponse, Status>>;

    async fn create_report(
        &self,
        request: Request<pb::CreateReportRequest>,
    ) -> Result<Response<pb::CreateReportResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (report, replayed) = self.create(&caller, request.into_inner()).await?;
        Ok(Response::new(pb::CreateReportResponse { report: Some(encode::report(&report)), replayed }))
    }

    async fn get_report(
        &self,
        request: Request<pb::GetReportRequest>,
    ) -> Result<Response<pb::GetReportResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id: ReportId = wire::parse("report_id", &request.into_inner().report_id)?;
        let report = self.visible(&caller, id).await?;
        Ok(Response::new(pb::GetReportResponse { report: Some(encode::report(&report)) }))
    }

    async fn list_reports(
        &self,
        request: Request<pb::ListReportsRequest>,
    ) -> Result<Response<pb::ListReportsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = wire::page::<i64>(request.page.as_ref())?;
        let filter = Filter {
            kind: encode::optional_kind(request.kind)?,
            states: request.states.iter().map(|number| encode::state(*number)).collect::<Result<_, _>>()?,
            participant: caller.scope(wire::parse_optional("participant", &request.participant)?)?,
            currency: wire::parse_optional("currency", &request.currency)?,
            day: wire::parse_optional("day", &request.day)?,
            window: wire::parse_optional("window_id", &request.window_id)?,
            schedule: Some(request.schedule).filter(|name| !name.is_empty()),
        };
        let rows = store::list(self.door.db().pool(), &filter, page.after, page.size).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.number));
        Ok(Response::new(pb::ListReportsResponse {
            reports: rows.iter().map(encode::report).collect(),
            next_page_token,
        }))
    }

    async fn download_report(
        &self,
        request: Request<pb::DownloadReportRequest>,
    ) -> Result<Response<Self::DownloadReportStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id: ReportId = wire::parse("report_id", &request.report_id)?;
        let report = self.visible(&caller, id).await?;
        let file = self.file(&report, &request.file)?;
        if request.offset > file.size {
            let what = format!("{} is beyond the end: {} has {} bytes", request.offset, file.name, file.size);
            return Err(Failure::malformed("offset", what).into());
        }
        let chunks = self.files.read(&report, &file.name, request.offset, file.size).await;
        let chunks = chunks.map_err(|e| Failure::internal(format!("report {id}: {e}")))?;
        let (size, sha256) = (file.size, file.sha256.clone());
        let mut offset = request.offset;
        // An empty file, or its end, is told by a message without data.
        let nothing_left = offset == size;
        let answer = move |offset, data: bytes::Bytes| pb::DownloadReportResponse {
            offset,
            data: data.to_vec(),
            size,
            sha256: sha256.clone(),
        };
        if nothing_left {
            let last = answer(offset, bytes::Bytes::new());
            return Ok(Response::new(futures::stream::once(async move { Ok(last) }).boxed()));
        }
        let answers = chunks
            .map_err(|e| Status::from(Failure::unavailable(format!("{e}: go on from the last offset"))))
            .map_ok(move |data| {
                let at = offset;
                offset += data.len() as u64;
                answer(at, data)
            })
            .take_until(self.context.closing.clone().cancelled_owned());
        Ok(Response::new(answers.boxed()))
    }

    async fn set_schedule(
        &self,
        request: Request<pb::SetScheduleRequest>,
    ) -> Result<Response<pb::SetScheduleResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (schedule, unchanged) = self.set(&caller, request.into_inner()).await?;
        let schedule = encode::schedule_of(&schedule, self.context.clock.now());
        Ok(Response::new(pb::SetScheduleResponse { schedule: Some(schedule), unchanged }))
    }

    async fn list_schedules(
        &self,
        request: Request<pb::ListSchedulesRequest>,
    ) -> Result<Response<pb::ListSchedulesResponse>, Status> {
        let page = wire::page::<String>(request.into_inner().page.as_ref())?;
        let after = page.after.unwrap_or_default();
        let rows = store::schedules(self.door.db().pool(), &after, page.size).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.name.clone()));
        let now = self.context.clock.now();
        let schedules = rows.iter().map(|row| encode::schedule_of(row, now)).collect();
        Ok(Response::new(pb::ListSchedulesResponse { schedules, next_page_token }))
    }
}
