//! Events of the reporting engine.

use deltran_kernel::{Currency, NettingSetId, ParticipantId, ReportId, WindowId};

use super::{event_data, event_enum};

event_enum! {
    /// What a report is.
    ReportKind {
        /// What a participant had, received and paid in a currency, over a business day or in a window.
        Statement = "STATEMENT",
        /// A settled window or netting set.
        Settlement = "SETTLEMENT",
        /// Every account, compared with the ledger.
        TrialBalance = "TRIAL_BALANCE",
    }
    /// The form of a report's file.
    ReportFormat {
        /// Comma-separated values (RFC 4180).
        Csv = "CSV",
        /// A page for people.
        Html = "HTML",
        /// ISO 20022 camt.053.001.08.
        Camt053 = "CAMT053",
    }
}

event_data! {
    /// A report was asked for.
    ReportRequested {
        report_id: ReportId,
        kind: ReportKind,
        formats: Vec<ReportFormat>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        currency: Option<Currency>,
        /// A business day: YYYY-MM-DD.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        day: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_id: Option<WindowId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netting_set_id: Option<NettingSetId>,
        /// The schedule that asked for it, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<String>,
    }

    /// A file of a report.
    ReportFile {
        name: String,
        /// In bytes.
        size: u64,
        /// In hexadecimal.
        sha256: String,
        /// Rows of entries, legs or accounts.
        entries: u64,
    }

    /// The files of a report can be downloaded.
    ReportCompleted {
        report_id: ReportId,
        kind: ReportKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        /// The last one is its manifest.
        files: Vec<ReportFile>,
    }

    /// A report cannot be written.
    ReportFailed {
        report_id: ReportId,
        kind: ReportKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<ParticipantId>,
        reason: String,
    }

    /// A schedule of reports was created or changed.
    ScheduleChanged {
        name: String,
        kind: ReportKind,
        /// Five fields, or six with seconds first.
        cron: String,
        /// IANA name.
        time_zone: String,
        formats: Vec<ReportFormat>,
        enabled: bool,
        changed_by: String,
    }
}
