//! Which role may call which RPC: one table, checked before any service sees a request.

use crate::identity::Role::{self, Auditor, Bank, Compliance, Engine, Operator, Risk};

/// Roles by service and RPC. What is not in the table may be called by nobody.
pub static RIGHTS: &[(&str, &str, &[Role])] = &[
    ("deltran.token.v1.TokenService", "SubmitTransaction", &[Bank]),
    ("deltran.token.v1.TokenService", "SubmitTransactions", &[Bank]),
    ("deltran.token.v1.TokenService", "CommitTransaction", &[Bank]),
    ("deltran.token.v1.TokenService", "CancelTransaction", &[Bank]),
    ("deltran.token.v1.TokenService", "ReturnTransaction", &[Bank]),
    ("deltran.token.v1.TokenService", "GetTransaction", &[Bank, Operator, Compliance, Risk, Auditor, Engine]),
    ("deltran.token.v1.TokenService", "ListTransactions", &[Bank, Operator, Compliance, Risk, Auditor, Engine]),
    ("deltran.token.v1.TokenService", "WatchTransactions", &[Bank, Operator, Auditor]),
    ("deltran.token.v1.TokenService", "ConfirmDeposit", &[Operator, Engine]),
    ("deltran.token.v1.TokenService", "RequestWithdrawal", &[Bank]),
    ("deltran.token.v1.TokenService", "ConfirmWithdrawal", &[Operator, Engine]),
    ("deltran.token.v1.TokenService", "FailWithdrawal", &[Operator, Engine]),
    ("deltran.token.v1.TokenService", "GetBalances", &[Bank, Operator, Risk, Auditor, Engine]),
    ("deltran.token.v1.TokenService", "ListPostings", &[Bank, Operator, Auditor]),
    ("deltran.token.v1.TokenService", "VerifyLedger", &[Operator, Auditor, Engine]),
    ("deltran.token.v1.TokenService", "RegisterParticipant", &[Operator]),
    ("deltran.token.v1.TokenService", "SetParticipantState", &[Operator]),
    ("deltran.token.v1.TokenService", "ListParticipants", &[Bank, Operator, Compliance, Risk, Auditor, Engine]),
    ("deltran.token.v1.TokenService", "EnableCurrency", &[Operator]),
    ("deltran.token.v1.TokenService", "SetCollateral", &[Operator, Risk]),
    ("deltran.token.v1.TokenService", "ResumeLedger", &[Operator]),
    ("deltran.token.v1.TokenService", "OpenWindow", &[Engine]),
    ("deltran.token.v1.TokenService", "SealWindow", &[Engine]),
    ("deltran.token.v1.TokenService", "PostLinked", &[Engine]),
    ("deltran.token.v1.TokenService", "SetLimit", &[Engine]),
    ("deltran.token.v1.TokenService", "ReleaseTransaction", &[Engine]),
    ("deltran.compliance.v1.ComplianceService", "ScreenBatch", &[Engine]),
    ("deltran.compliance.v1.ComplianceService", "Screen", &[Engine, Compliance]),
    ("deltran.compliance.v1.ComplianceService", "Search", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "LoadList", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "ListLists", &[Compliance, Operator, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "AddAllowance", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "RevokeAllowance", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "ListAllowances", &[Compliance, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "ListHolds", &[Compliance, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "GetHold", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "ProposeHold", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "DecideHold", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "OpenCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "AssignCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "NoteCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "EscalateCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "CloseCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "ReopenCase", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "GetCase", &[Compliance, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "ListCases", &[Compliance, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "ListAlerts", &[Compliance, Auditor]),
    ("deltran.compliance.v1.ComplianceService", "SetRule", &[Compliance]),
    ("deltran.compliance.v1.ComplianceService", "ListRules", &[Compliance, Auditor]),
    ("deltran.risk.v1.RiskService", "AssessBatch", &[Engine]),
    ("deltran.risk.v1.RiskService", "Assess", &[Engine, Risk]),
    ("deltran.risk.v1.RiskService", "ProposeLimit", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "ApproveLimit", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "RejectLimit", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "WithdrawLimit", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "ListLimits", &[Risk, Operator, Auditor]),
    ("deltran.risk.v1.RiskService", "ListLimitHistory", &[Risk, Operator, Auditor]),
    ("deltran.risk.v1.RiskService", "TripBreaker", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "CloseBreaker", &[Risk, Operator]),
    ("deltran.risk.v1.RiskService", "ListBreakers", &[Risk, Operator, Auditor]),
    ("deltran.risk.v1.RiskService", "GetExposures", &[Risk, Operator, Auditor]),
    ("deltran.risk.v1.RiskService", "GetLiquidity", &[Risk, Operator, Auditor]),
    ("deltran.clearing.v1.ClearingService", "GetWindow", &[Bank, Operator, Risk, Auditor, Engine]),
    ("deltran.clearing.v1.ClearingService", "ListWindows", &[Bank, Operator, Risk, Auditor, Engine]),
    ("deltran.clearing.v1.ClearingService", "WatchWindows", &[Bank, Operator, Risk, Auditor]),
    ("deltran.clearing.v1.ClearingService", "OpenWindow", &[Operator]),
    ("deltran.clearing.v1.ClearingService", "CloseWindow", &[Operator]),
    ("deltran.clearing.v1.ClearingService", "ExtendWindow", &[Operator]),
    ("deltran.clearing.v1.ClearingService", "AbortWindow", &[Operator]),
    ("deltran.clearing.v1.ClearingService", "NetWindows", &[Operator]),
    ("deltran.clearing.v1.ClearingService", "GetNettingSet", &[Operator, Risk, Auditor, Engine]),
    ("deltran.clearing.v1.ClearingService", "GetPositions", &[Bank, Operator, Risk, Auditor, Engine]),
    ("deltran.clearing.v1.ClearingService", "PreviewNetting", &[Operator, Risk]),
    ("deltran.settlement.v1.SettlementService", "GetBatch", &[Operator, Risk, Auditor, Engine]),
    ("deltran.settlement.v1.SettlementService", "ListBatches", &[Operator, Risk, Auditor, Engine]),
    ("deltran.settlement.v1.SettlementService", "FundingStatus", &[Bank, Operator, Risk, Auditor]),
    ("deltran.settlement.v1.SettlementService", "WatchSettlements", &[Operator, Risk, Auditor]),
    ("deltran.notification.v1.NotificationService", "Subscribe", &[Bank, Operator]),
    ("deltran.notification.v1.NotificationService", "Unsubscribe", &[Bank, Operator]),
    ("deltran.notification.v1.NotificationService", "ListSubscriptions", &[Bank, Operator, Auditor]),
    ("deltran.notification.v1.NotificationService", "ListNotifications", &[Bank, Operator, Auditor]),
    ("deltran.notification.v1.NotificationService", "StreamNotifications", &[Bank, Operator, Auditor]),
    ("deltran.notification.v1.NotificationService", "CreateEndpoint", &[Bank]),
    ("deltran.notification.v1.NotificationService", "UpdateEndpoint", &[Bank]),
    ("deltran.notification.v1.NotificationService", "DisableEndpoint", &[Bank, Operator]),
    ("deltran.notification.v1.NotificationService", "EnableEndpoint", &[Bank, Operator]),
    ("deltran.notification.v1.NotificationService", "DeleteEndpoint", &[Bank]),
    ("deltran.notification.v1.NotificationService", "RotateSecret", &[Bank]),
    ("deltran.notification.v1.NotificationService", "ListEndpoints", &[Bank, Operator, Auditor]),
    ("deltran.notification.v1.NotificationService", "ListAttempts", &[Bank, Operator, Auditor]),
    ("deltran.notification.v1.NotificationService", "ReplayDeliveries", &[Bank]),
    ("deltran.reporting.v1.ReportingService", "CreateReport", &[Bank, Operator, Risk, Auditor]),
    ("deltran.reporting.v1.ReportingService", "GetReport", &[Bank, Operator, Risk, Auditor]),
    ("deltran.reporting.v1.ReportingService", "ListReports", &[Bank, Operator, Risk, Auditor]),
    ("deltran.reporting.v1.ReportingService", "DownloadReport", &[Bank, Operator, Risk, Auditor]),
    ("deltran.reporting.v1.ReportingService", "SetSchedule", &[Operator]),
    ("deltran.reporting.v1.ReportingService", "ListSchedules", &[Operator, Auditor]),
    ("deltran.audit.v1.AuditService", "ListEvents", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "GetEvent", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "Verify", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "GetCheckpoint", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "ListCheckpoints", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "GetInclusionProof", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "GetConsistencyProof", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "GetTiles", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "ExportEvents", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "PlaceHold", &[Auditor]),
    ("deltran.audit.v1.AuditService", "ReleaseHold", &[Auditor]),
    ("deltran.audit.v1.AuditService", "ListHolds", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "ListDays", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "Reconcile", &[Auditor, Operator]),
    ("deltran.audit.v1.AuditService", "ConfirmedThrough", &[Engine]),
    ("deltran.audit.v1.AuditService", "ReadRange", &[Engine]),
    ("deltran.audit.v1.DeadLetterService", "ListDeadLetters", &[Operator, Auditor]),
    ("deltran.audit.v1.DeadLetterService", "GetDeadLetter", &[Operator, Auditor]),
    ("deltran.audit.v1.DeadLetterService", "ReplayDeadLetter", &[Operator]),
    ("deltran.audit.v1.DeadLetterService", "DropDeadLetter", &[Operator]),
    ("deltran.platform.v1.PlatformService", "GetStatus", &[Operator, Auditor, Engine]),
    ("deltran.platform.v1.PlatformService", "ReadOutbox", &[Engine]),
    ("deltran.platform.v1.PlatformService", "ListBeyond", &[Operator, Auditor]),
];

/// Services that tell nothing about anyone and are open to all: health and reflection.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// What the table says about a request path such as `/deltran.token.v1.TokenService/GetTransaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone may call it.
    Open,
    /// Only these roles.
    Roles(&'static [Role]),
    /// There is no such RPC.
    Unknown,
}

/// Looks a request path up.
pub fn access(path: &str) -> Access {
    if OPEN.iter().any(|prefix| path.starts_with(prefix)) {
        return Access::Open;
    }
    let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.split_once('/')) else {
        return Access::Unknown;
    };
    RIGHTS
        .iter()
        .find(|(s, m, _)| *s == service && *m == method)
        .map_or(Access::Unknown, |(_, _, roles)| Access::Roles(roles))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use std::collections::BTreeSet;

    /// Every RPC of the contract stands in the table once, and nothing else does.
    #[test]
    fn the_table_covers_the_contract() {
        let contract = prost_types::FileDescriptorSet::decode(deltran_api::DESCRIPTORS).unwrap();
        let mut expected = BTreeSet::new();
        for file in &contract.file {
            for service in &file.service {
                for method in &service.method {
                    expected.insert((format!("{}.{}", file.package(), service.name()), method.name().to_owned()));
                }
            }
        }
        let listed: BTreeSet<_> = RIGHTS.iter().map(|(s, m, _)| ((*s).to_owned(), (*m).to_owned())).collect();
        assert_eq!(listed.len(), RIGHTS.len(), "no RPC stands twice");
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_bank_runs_no_engine_command_and_nobody_else_pays() {
        for (_, method, roles) in RIGHTS {
            if ["OpenWindow", "SealWindow", "PostLinked", "SetLimit"].contains(method) {
                assert!(!roles.contains(&Bank), "{method}");
            }
            if ["SubmitTransaction", "CommitTransaction", "RequestWithdrawal"].contains(method) {
                assert_eq!(*roles, [Bank], "{method}");
            }
        }
        assert_eq!(access("/deltran.token.v1.TokenService/Nothing"), Access::Unknown);
        assert_eq!(access("/grpc.health.v1.Health/Check"), Access::Open);
    }
}
