//! Between the contract's words and the domain's.

use deltran_api::reporting::v1 as pb;
use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::Timestamp;
use deltran_runtime::{Failure, wire};

use crate::domain::job::{Fields, Report, State, content_type};
use crate::domain::timetable::{self, Schedule};

const fn to_kind(kind: ReportKind) -> pb::ReportKind {
    match kind {
        ReportKind::Statement => pb::ReportKind::Statement,
        ReportKind::Settlement => pb::ReportKind::Settlement,
        ReportKind::TrialBalance => pb::ReportKind::TrialBalance,
    }
}

const fn to_state(state: State) -> pb::ReportState {
    match state {
        State::Requested => pb::ReportState::Requested,
        State::Waiting => pb::ReportState::Waiting,
        State::Writing => pb::ReportState::Writing,
        State::Completed => pb::ReportState::Completed,
        State::Failed => pb::ReportState::Failed,
        State::Expired => pb::ReportState::Expired,
    }
}

const fn to_format(format: ReportFormat) -> pb::ReportFormat {
    match format {
        ReportFormat::Csv => pb::ReportFormat::Csv,
        ReportFormat::Html => pb::ReportFormat::Html,
        ReportFormat::Camt053 => pb::ReportFormat::Camt053,
    }
}

/// A kind, or none where it is not given.
pub(super) fn optional_kind(number: i32) -> Result<Option<ReportKind>, Failure> {
    if number == 0 {
        return Ok(None);
    }
    let known = ReportKind::ALL.iter().copied().find(|kind| i32::from(to_kind(*kind)) == number);
    known.map(Some).ok_or_else(|| Failure::malformed("kind", format!("{number} is no kind of report")))
}

pub(super) fn state(number: i32) -> Result<State, Failure> {
    let known = State::ALL.into_iter().find(|state| i32::from(to_state(*state)) == number);
    known.ok_or_else(|| Failure::malformed("states", format!("{number} is no state of a report")))
}

fn format(number: &i32) -> Result<ReportFormat, Failure> {
    let known = ReportFormat::ALL.iter().copied().find(|format| i32::from(to_format(*format)) == *number);
    known.ok_or_else(|| Failure::malformed("formats", format!("{number} is no format of a report")))
}

pub(super) fn fields(subject: &pb::ReportSubject) -> Result<Fields, Failure> {
    Ok(Fields {
        kind: optional_kind(subject.kind)?,
        participant: wire::parse_optional("participant", &subject.participant)?,
        currency: wire::parse_optional("currency", &subject.currency)?,
        day: wire::parse_optional("day", &subject.day)?,
        window: wire::parse_optional("window_id", &subject.window_id)?,
        set: wire::parse_optional("netting_set_id", &subject.netting_set_id)?,
        formats: subject.formats.iter().map(format).collect::<Result<_, _>>()?,
        verify_ledger: subject.verify_ledger,
    })
}

fn text<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

pub(super) fn report(report: &Report) -> pb::Report {
    let fields = report.subject.about.fields();
    let files = report.files.iter().map(|file| pb::ReportFile {
        name: file.name.clone(),
        content_type: content_type(&file.name).to_owned(),
        size: file.size,
        sha256: file.sha256.clone(),
        entries: file.entries,
    });
    pb::Report {
        report_id: report.id.to_string(),
        subject: Some(pb::ReportSubject {
            kind: to_kind(report.subject.about.kind()).into(),
            participant: text(fields.participant),
            currency: text(fields.currency),
            day: text(fields.day),
            window_id: text(fields.window),
            netting_set_id: text(fields.set),
            formats: report.subject.formats.iter().map(|f| to_format(*f).into()).collect(),
            verify_ledger: fields.verify_ledger,
        }),
        state: to_state(report.state).into(),
        note: report.note.clone(),
        requested_by: report.requested_by.clone(),
        schedule: report.schedule.clone().unwrap_or_default(),
        requested_at: Some(wire::to_timestamp(report.requested_at)),
        completed_at: report.completed_at.map(wire::to_timestamp),
        expires_at: report.expires_at.map(wire::to_timestamp),
        files: files.collect(),
    }
}

pub(super) fn schedule(asked: &pb::Schedule, user: &str, now: Timestamp) -> Result<Schedule, Failure> {
    let kind = optional_kind(asked.kind)?.ok_or_else(|| Failure::malformed("kind", "is missing"))?;
    let time_zone = if asked.time_zone.is_empty() { "UTC" } else { &asked.time_zone };
    Ok(Schedule {
        name: asked.name.clone(),
        kind,
        cron: wire::required_text("cron", &asked.cron, 100)?,
        time_zone: wire::text("time_zone", time_zone, 64)?,
        formats: asked.formats.iter().map(format).collect::<Result<_, _>>()?,
        enabled: asked.enabled,
        changed_by: user.to_owned(),
        // A schedule that was created or changed begins now.
        last_at: now,
    })
}

pub(super) fn schedule_of(schedule: &Schedule, now: Timestamp) -> pb::Schedule {
    let next = timetable::read(schedule, now).ok().filter(|_| schedule.enabled);
    let next_at = next.and_then(|(timetable, _)| timetable.next(schedule.last_at.max(now)));
    pb::Schedule {
        name: schedule.name.clone(),
        kind: to_kind(schedule.kind).into(),
        cron: schedule.cron.clone(),
        time_zone: schedule.time_zone.clone(),
        formats: schedule.formats.iter().map(|f| to_format(*f).into()).collect(),
        enabled: schedule.enabled,
        next_at: next_at.map(wire::to_timestamp),
        last_at: Some(wire::to_timestamp(schedule.last_at)),
        changed_by: schedule.changed_by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_number_and_nothing_else_has() {
        for known in State::ALL {
            assert_eq!(state(to_state(known).into()).unwrap(), known);
            assert_eq!(to_state(known).as_str_name(), known.as_str());
        }
        for known in ReportKind::ALL {
            assert_eq!(optional_kind(to_kind(*known).into()).unwrap(), Some(*known));
            assert_eq!(to_kind(*known).as_str_name(), known.as_str());
        }
        for known in ReportFormat::ALL {
            assert_eq!(format(&to_format(*known).into()).unwrap(), *known);
            assert_eq!(to_format(*known).as_str_name(), known.as_str());
        }
        assert!(state(0).is_err() && state(7).is_err());
        assert!(optional_kind(4).is_err() && format(&0).is_err() && format(&4).is_err());
    }
}
