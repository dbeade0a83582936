//! `deltran participant import`: participants from a file, with ids derived from its content so that a second import is
//! harmless.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use deltran_api::risk::v1::{ApproveLimitRequest, LimitKind, ListLimitsRequest, ProposeLimitRequest};
use deltran_api::token::v1::{
    ConfirmDepositRequest, EnableCurrencyRequest, Participant, ParticipantState, RegisterParticipantRequest,
    SetParticipantStateRequest,
};
use deltran_kernel::{Currency, ParticipantId};
use deltran_runtime::Role;
use deltran_runtime::wire::to_money;
use futures::StreamExt;
use serde_json::json;
use tonic::Status;
use uuid::Uuid;

use super::{Caller, Rows, Session, pages, participant};
use crate::file::participants::{Entry, InCurrency, read};
use crate::output::table;
use crate::problem::{Kind, Problem};

/// Participants that are brought in at once.
const AT_ONCE: usize = 16;
/// How long a cap may take from approval to the ledger.
const LIMIT_PATIENCE: Duration = Duration::from_secs(60);
const LIMIT_POLL: Duration = Duration::from_millis(100);
const TRIES: u32 = 5;

/// The help after the options.
pub const HELP: &str = "Columns: participant, name, currency, opening_deposit, net_debit_cap; one line per participant and \
currency. \
Each participant is registered and activated, each currency enabled; the cap is proposed by --user and approved by \
--approver, who must be two people; the opening deposit is confirmed. All ids come from the file's content: a second import \
of the same file changes nothing. Another deposit for a participant and currency that has had its opening one is a conflict: \
use `deltran account deposit`.

Exit code 1 where a line could not be used or was refused; the others are brought in.

Examples:
  deltran participant import --file participants.csv
  deltran participant import --file participants.csv --user ada --approver grace --json";

/// What the import takes.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The CSV file
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Who approves the caps that --user proposes
    #[arg(long, value_name = "NAME", default_value = "approver")]
    approver: String,
}

/// What became of a participant in one currency.
struct Outcome {
    participant: ParticipantId,
    currency: Currency,
    detail: InCurrency,
    error: Option<Problem>,
}

/// Runs the import.
///
/// # Errors
/// Where the file cannot be used at all, a line was refused, or the platform does not answer.
pub async fn run(session: &Session, args: &ImportArgs) -> Result<(), Problem> {
    let named = args.file.display();
    let file = File::open(&args.file).map_err(|e| Problem::refused(format!("{named}: {e}")))?;
    let file = read(BufReader::new(file)).map_err(|e| Problem::refused(format!("{named}: {e}")))?;
    let importer = Importer {
        session,
        operator: session.operator()?,
        approver: session.caller_named(Role::Operator, &args.approver)?,
        known: participant::all(session).await?,
    };
    let bar = session.out.bar_like("{bar:40} {pos}/{len} participants", file.entries.len() as u64);
    let outcomes: Vec<Outcome> = futures::stream::iter(&file.entries)
        .map(|(id, entry)| {
            let (importer, bar) = (&importer, &bar);
            async move {
                let outcomes = importer.bring_in(*id, entry).await;
                bar.inc(1);
                outcomes
            }
        })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .flatten()
        .collect();
    bar.finish_and_clear();
    tell(session, &outcomes, &file.refused);

    let failed = outcomes.iter().filter(|o| o.error.is_some()).count();
    if let Some(away) = outcomes.iter().filter_map(|o| o.error.as_ref()).find(|e| e.kind == Kind::Unavailable) {
        return Err(Problem::unavailable(format!("{away}; run the same command again to continue")));
    }
    match (failed, file.refused.len()) {
        (0, 0) => Ok(()),
        (failed, bad) => Err(Problem::refused(format!(
            "{named}: {bad} lines could not be used and {failed} were refused; {} are in",
            outcomes.len() - failed
        ))),
    }
}

fn tell(session: &Session, outcomes: &[Outcome], refused: &[crate::file::report::RefusedLine]) {
    if session.out.json {
        let lines: Vec<_> = outcomes
            .iter()
            .map(|o| {
                json!({
                    "line": o.detail.line, "participant": o.participant, "currency": o.currency,
                    "opening_deposit": o.detail.opening_deposit.amount(), "net_debit_cap": o.detail.net_debit_cap.amount(),
                    "ok": o.error.is_none(),
                    "reason": o.error.as_ref().map(|e| e.reason.as_str()), "message": o.error.as_ref().map(|e| e.message.as_str()),
                })
            })
            .collect();
        let bad: Vec<_> = refused
            .iter()
            .map(|r| json!({"line": r.line, "participant": r.end_to_end_id, "reason": r.reason, "message": r.message}))
            .collect();
        session.out.value(&json!({ "imported": lines, "refused_lines": bad }));
        return;
    }
    let mut by_participant: BTreeMap<ParticipantId, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        by_participant.entry(outcome.participant).or_default().push(outcome);
    }
    let rows = by_participant.iter().map(|(participant, outcomes)| {
        let each = |f: &dyn Fn(&Outcome) -> String| outcomes.iter().map(|o| f(o)).collect::<Vec<_>>().join("\n");
        let result =
            each(&|o| o.error.as_ref().map_or_else(|| "in".to_owned(), |e| format!("line {}: {e}", o.detail.line)));
        [
            participant.to_string(),
            each(&|o| o.currency.to_string()),
            each(&|o| o.detail.opening_deposit.amount()),
            each(&|o| o.detail.net_debit_cap.amount()),
            result,
        ]
    });
    crate::output::say(&table(["participant", "currency", "opening deposit", "net debit cap", "result"], rows));
    if !refused.is_empty() {
        let rows = refused.iter().map(|r| [r.line.to_string(), r.end_to_end_id.clone(), r.message.clone()]);
        crate::output::say(&table(["line", "participant", "why it could not be used"], rows));
    }
}

struct Importer<'a> {
    session: &'a Session,
    operator: Caller,
    approver: Caller,
    known: BTreeMap<String, Participant>,
}

impl Importer<'_> {
    async fn bring_in(&self, id: ParticipantId, entry: &Entry) -> Vec<Outcome> {
        let admitted = self.admit(id, &entry.name).await;
        let mut outcomes = Vec::with_capacity(entry.currencies.len());
        let mut limits = BTreeMap::new();
        for (currency, detail) in &entry.currencies {
            let result = match &admitted {
                Ok(()) => self.equip(id, *currency, detail).await,
                Err(problem) => Err(problem.clone()),
            };
            let error = match result {
                Ok(limit) => {
                    limits.extend(limit.map(|limit| (limit, outcomes.len())));
                    None
                }
                Err(problem) => Some(problem),
            };
            outcomes.push(Outcome { participant: id, currency: *currency, detail: detail.clone(), error });
        }
        self.wait_for(id, limits, &mut outcomes).await;
        outcomes
    }

    /// Registers and activates, where that was not done before.
    async fn admit(&self, id: ParticipantId, name: &str) -> Result<(), Problem> {
        let token = self.session.token(self.operator.clone());
        let known = self.known.get(id.as_str());
        if let Some(other) = known.filter(|known| known.name != name) {
            return Err(Problem::refused(format!("{id} is registered as {:?}, not as {name:?}", other.name)));
        }
        if known.is_none() {
            let request = RegisterParticipantRequest {
                command_id: derived("register", &[id.as_str(), name]),
                participant: id.to_string(),
                name: name.to_owned(),
            };
            again(async || token.clone().register_participant(request.clone()).await).await?;
        }
        if known.is_none_or(|known| known.state() == ParticipantState::Onboarding) {
            let request = SetParticipantStateRequest {
                command_id: derived("activate", &[id.as_str()]),
                participant: id.to_string(),
                state: ParticipantState::Active.into(),
                reason: "import".into(),
            };
            again(async || token.clone().set_participant_state(request.clone()).await).await?;
        }
        Ok(())
    }

    /// Enables a currency, sets the cap and confirms the deposit; the id of the cap's limit.
    async fn equip(
        &self,
        id: ParticipantId,
        currency: Currency,
        detail: &InCurrency,
    ) -> Result<Option<String>, Problem> {
        let key = [id.as_str(), currency.code()];
        let token = self.session.token(self.operator.clone());
        let enabled = self.known.get(id.as_str()).is_some_and(|k| k.currencies.iter().any(|c| c == currency.code()));
        if !enabled {
            let request = EnableCurrencyRequest {
                command_id: derived("enable", &key),
                participant: id.to_string(),
                currency: currency.to_string(),
            };
            again(async || token.clone().enable_currency(request.clone()).await).await?;
        }
        let limit = if detail.net_debit_cap.minor().is_zero() { None } else { Some(self.cap(id, detail).await?) };
        if !detail.opening_deposit.minor().is_zero() {
            let request = ConfirmDepositRequest {
                command_id: derived("opening deposit", &key),
                participant: id.to_string(),
                amount: Some(to_money(detail.opening_deposit)),
                reference: "opening deposit".into(),
            };
            again(async || token.clone().confirm_deposit(request.clone()).await).await?;
        }
        Ok(limit)
    }

    async fn cap(&self, id: ParticipantId, detail: &InCurrency) -> Result<String, Problem> {
        let cap = detail.net_debit_cap;
        let limit_id = derived("net debit cap", &[id.as_str(), cap.currency().code(), &cap.amount()]);
        let request = ProposeLimitRequest {
            limit_id: limit_id.clone(),
            kind: LimitKind::NetDebitCap.into(),
            participant: id.to_string(),
            amount: Some(to_money(cap)),
            reason: "import".into(),
            ..Default::default()
        };
        let proposer = self.session.risk(self.operator.clone());
        let proposed = again(async || proposer.clone().propose_limit(request.clone()).await).await?.into_inner();
        if proposed.limit.is_some_and(|limit| limit.state == "PROPOSED") {
            let approver = self.session.risk(self.approver.clone());
            let request = ApproveLimitRequest { limit_id: limit_id.clone() };
            again(async || approver.clone().approve_limit(request.clone()).await).await?;
        }
        Ok(limit_id)
    }

    /// Returns when the ledger has all these caps; says in their outcomes where it has not.
    async fn wait_for(&self, id: ParticipantId, mut limits: BTreeMap<String, usize>, outcomes: &mut [Outcome]) {
        let deadline = tokio::time::Instant::now() + LIMIT_PATIENCE;
        while !limits.is_empty() {
            let states = match self.limit_states(id).await {
                Ok(states) => states,
                Err(problem) => {
                    limits.into_values().for_each(|at| outcomes[at].error = Some(problem.clone()));
                    return;
                }
            };
            limits.retain(|limit, at| match states.get(limit).map(String::as_str) {
                Some("ACTIVE") => false,
                Some("SUPERSEDED") => {
                    let currency = outcomes[*at].currency;
                    outcomes[*at].error = Some(Problem::refused(format!(
                        "the {currency} cap of {id} was changed after this file was imported first: use `deltran limit propose`"
                    )));
                    false
                }
                _ => true,
            });
            if limits.is_empty() {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                let seconds = LIMIT_PATIENCE.as_secs();
                for at in limits.into_values() {
                    let late = format!("the ledger has not taken a cap of {id} after {seconds} s");
                    outcomes[at].error = Some(Problem::unavailable(late));
                }
                return;
            }
            tokio::time::sleep(LIMIT_POLL).await;
        }
    }

    async fn limit_states(&self, id: ParticipantId) -> Result<BTreeMap<String, String>, Problem> {
        let client = self.session.risk(self.operator.clone());
        let (found, _) = pages(&Rows { limit: 0 }, async |page| {
            let request = ListLimitsRequest { page, participant: id.to_string(), ..Default::default() };
            let answer = client.clone().list_limits(request).await?.into_inner();
            Ok((answer.limits, answer.next_page_token))
        })
        .await?;
        Ok(found.into_iter().map(|limit| (limit.limit_id, limit.state)).collect())
    }
}

/// An id that the file's content determines.
fn derived(command: &str, key: &[&str]) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("participant import: {command}").as_bytes());
    // Columns cannot hold this separator: control characters are refused by the platform.
    Uuid::new_v5(&namespace, key.join("\u{1f}").as_bytes()).to_string()
}

/// Asks again where the outcome is unknown; the ids make that harmless.
async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Problem> {
    let mut pause = Duration::from_millis(200);
    for _ in 1..TRIES {
        match call().await.map_err(Problem::from) {
            Err(problem) if problem.kind == Kind::Unavailable => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            other => return other,
        }
    }
    Ok(call().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_repeat_with_the_content_and_differ_otherwise() {
        assert_eq!(derived("enable", &["A", "USD"]), derived("enable", &["A", "USD"]));
        assert_ne!(derived("enable", &["A", "USD"]), derived("register", &["A", "USD"]));
        assert_ne!(derived("enable", &["A", "USD"]), derived("enable", &["AU", "SD"]));
    }
}
