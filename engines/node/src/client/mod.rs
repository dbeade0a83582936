//! The operator's tools: a module per noun, all of them gRPC clients of a running platform.

pub mod account;
pub mod alert;
pub mod audit;
pub mod audit_days;
pub mod audit_export;
pub mod audit_hold;
pub mod audit_proof;
pub mod audit_reconcile;
mod audit_verify;
pub mod breaker;
pub mod case;
pub mod dlq;
pub mod endpoint;
mod export_folder;
pub mod exposure;
pub mod hold;
pub mod import;
pub mod limit;
pub mod list;
pub mod list_files;
pub mod notification;
pub mod participant;
pub mod report;
pub mod report_files;
pub mod restored;
pub mod rule;
pub mod settlement;
pub mod status;
pub mod submit;
pub mod subscription;
pub mod transaction;
pub mod window;
pub mod window_close;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use deltran_api::audit::v1::audit_service_client::AuditServiceClient;
use deltran_api::audit::v1::dead_letter_service_client::DeadLetterServiceClient;
use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::common::v1::{Money, Page};
use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_api::notification::v1::notification_service_client::NotificationServiceClient;
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::reporting::v1::reporting_service_client::ReportingServiceClient;
use deltran_api::risk::v1::risk_service_client::RiskServiceClient;
use deltran_api::settlement::v1::settlement_service_client::SettlementServiceClient;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_runtime::identity::{PARTICIPANT_HEADER, ROLE_HEADER, Role, USER_HEADER};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Transport};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::endpoint::{DEFAULT_DATA, Endpoint};
use crate::output::Output;
use crate::problem::Problem;

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);
const PAGE: usize = 1000;

/// What every client command takes.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Address of the platform, such as http://127.0.0.1:50051 [default: what ./data/endpoint.json says, else that]
    #[arg(long, global = true, env = "DELTRAN_CLIENT_ENDPOINT", value_name = "URL", help_heading = "Connection")]
    pub endpoint: Option<String>,
    /// Who you are, for the record and for four eyes [default: a name that fits the command]
    #[arg(long, global = true, env = "DELTRAN_CLIENT_USER", value_name = "NAME", help_heading = "Connection")]
    pub user: Option<String>,
    /// In which role you call: bank, operator, compliance, risk, auditor [default: the one the command is for]
    #[arg(long, global = true, env = "DELTRAN_CLIENT_ROLE", value_name = "ROLE", value_parser = role, help_heading = "Connection")]
    pub role: Option<Role>,
}

fn role(word: &str) -> Result<Role, String> {
    let callable = || Role::ALL.into_iter().filter(|role| *role != Role::Engine);
    callable().find(|role| role.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = callable().map(Role::as_str).collect();
        format!("expected one of {}", words.join(", "))
    })
}

impl ClientArgs {
    /// The platform at an address, under each command's own identity.
    pub fn at(endpoint: &str) -> Self {
        Self { endpoint: Some(endpoint.to_owned()), user: None, role: None }
    }
}

/// How many rows of a list to show.
#[derive(Debug, Clone, Args)]
pub struct Rows {
    /// At most this many rows; 0 shows all
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// The caller that goes with each request, and how long an answer may take.
#[derive(Debug, Clone)]
pub struct Caller {
    headers: Vec<(&'static str, MetadataValue<Ascii>)>,
    timeout: Option<Duration>,
}

impl Caller {
    fn new(role: Role, user: Option<&str>, participant: Option<&str>) -> Result<Self, Problem> {
        let mut headers = Vec::with_capacity(3);
        for (name, value) in
            [(ROLE_HEADER, Some(role.as_str())), (USER_HEADER, user), (PARTICIPANT_HEADER, participant)]
        {
            let Some(value) = value else { continue };
            let value =
                value.parse().map_err(|_| Problem::usage(format!("{value:?} takes visible ASCII characters only")))?;
            headers.push((name, value));
        }
        Ok(Self { headers, timeout: Some(ANSWER) })
    }

    /// The same caller for an answer that may take as long as it likes.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.timeout = None;
        self
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.headers {
            request.metadata_mut().insert(*name, value.clone());
        }
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        Ok(request)
    }
}

/// The way to the platform on behalf of a caller.
pub type Way = InterceptedService<Channel, Caller>;

/// A connection to the platform, and how to print.
#[derive(Clone)]
pub struct Session {
    channel: Channel,
    /// Where the platform is.
    pub uri: String,
    /// How to print.
    pub out: Output,
    args: ClientArgs,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// [`Problem`] of kind usage where the address is none, unavailable where nobody answers there.
    pub async fn open(args: &ClientArgs, out: Output) -> Result<Self, Problem> {
        let uri = address(args.endpoint.as_deref(), Path::new(DEFAULT_DATA));
        let transport = Transport::from_shared(uri.clone())
            .map_err(|e| {
                Problem::usage(format!("--endpoint {uri:?} is not an address such as {DEFAULT_ENDPOINT}: {e}"))
            })?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .tcp_nodelay(true);
        let channel = transport.connect().await.map_err(|error| {
            let cause = deepest(&error);
            Problem::unavailable(format!(
                "nobody answers at {uri} ({cause}): start the platform with `deltran up`, or name it with --endpoint"
            ))
        })?;
        Ok(Self { channel, uri, out, args: args.clone() })
    }

    /// The caller: `role` and `user` unless --role and --user say otherwise. A bank calls for `participant`.
    ///
    /// # Errors
    /// Where a bank is named by nobody.
    pub fn caller(&self, role: Role, user: &str, participant: Option<&str>) -> Result<Caller, Problem> {
        let (role, fallback) = match self.args.role {
            Some(given) if given != role => (given, given.as_str()),
            _ => (role, user),
        };
        let user = self.args.user.as_deref();
        match (role, participant) {
            (Role::Bank, Some(participant)) => Caller::new(role, user, Some(participant)),
            (Role::Bank, None) => Err(Problem::usage("role bank calls for a participant: name it with --participant")),
            _ => Caller::new(role, Some(user.unwrap_or(fallback)), None),
        }
    }

    /// A caller under a name of its own, whatever --user says.
    ///
    /// # Errors
    /// Where the name is no header value.
    pub fn caller_named(&self, role: Role, user: &str) -> Result<Caller, Problem> {
        Caller::new(self.args.role.unwrap_or(role), Some(user), None)
    }

    /// An operator.
    ///
    /// # Errors
    /// As [`Session::caller`].
    pub fn operator(&self) -> Result<Caller, Problem> {
        self.caller(Role::Operator, "operator", None)
    }

    /// An operator, or with --role bank this participant.
    ///
    /// # Errors
    /// As [`Session::caller`].
    pub fn operator_or_bank(&self, participant: Option<&str>) -> Result<Caller, Problem> {
        self.caller(Role::Operator, "operator", participant)
    }

    /// A participant, who acts for itself only.
    ///
    /// # Errors
    /// As [`Session::caller`].
    pub fn bank(&self, participant: &str) -> Result<Caller, Problem> {
        Caller::new(Role::Bank, self.args.user.as_deref(), Some(participant))
    }

    fn way(&self, caller: Caller) -> Way {
        InterceptedService::new(self.channel.clone(), caller)
    }

    /// The token engine.
    pub fn token(&self, caller: Caller) -> TokenServiceClient<Way> {
        TokenServiceClient::new(self.way(caller))
    }

    /// The clearing engine.
    pub fn clearing(&self, caller: Caller) -> ClearingServiceClient<Way> {
        ClearingServiceClient::new(self.way(caller))
    }

    /// The settlement engine.
    pub fn settlement(&self, caller: Caller) -> SettlementServiceClient<Way> {
        SettlementServiceClient::new(self.way(caller))
    }

    /// The risk engine.
    pub fn risk(&self, caller: Caller) -> RiskServiceClient<Way> {
        RiskServiceClient::new(self.way(caller))
    }

    /// The notification engine.
    pub fn notification(&self, caller: Caller) -> NotificationServiceClient<Way> {
        NotificationServiceClient::new(self.way(caller))
    }

    /// The reporting engine.
    pub fn reporting(&self, caller: Caller) -> ReportingServiceClient<Way> {
        ReportingServiceClient::new(self.way(caller))
    }

    /// The compliance engine.
    pub fn compliance(&self, caller: Caller) -> ComplianceServiceClient<Way> {
        ComplianceServiceClient::new(self.way(caller))
    }

    /// The audit engine.
    pub fn audit(&self, caller: Caller) -> AuditServiceClient<Way> {
        AuditServiceClient::new(self.way(caller))
    }

    /// The dead letters.
    pub fn dead_letters(&self, caller: Caller) -> DeadLetterServiceClient<Way> {
        DeadLetterServiceClient::new(self.way(caller))
    }

    /// What processes tell of themselves.
    pub fn platform(&self, caller: Caller) -> PlatformServiceClient<Way> {
        PlatformServiceClient::new(self.way(caller))
    }
}

fn address(given: Option<&str>, data: &Path) -> String {
    match given {
        Some(given) if given.contains("://") => given.to_owned(),
        Some(given) => format!("http://{given}"),
        None => Endpoint::find(data).map_or_else(|| DEFAULT_ENDPOINT.to_owned(), |endpoint| endpoint.grpc),
    }
}

/// The cause of all causes, in its words.
pub fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The id that was given, or a fresh one.
pub fn id_or_fresh(given: &Option<String>) -> String {
    match given {
        Some(id) => id.clone(),
        None => fresh_id().to_string(),
    }
}

/// A fresh id.
pub fn fresh_id() -> Uuid {
    SystemIds::new().next_id(SystemClock.now())
}

/// An amount as it was typed; the platform judges it.
pub fn amount_of(amount: &str, currency: &str) -> Option<Money> {
    Some(Money { amount: amount.to_owned(), currency: currency.to_owned() })
}

/// Reads a list page by page up to `limit` rows (0: all), and whether there are more.
///
/// # Errors
/// What the platform answers.
pub async fn pages<T>(
    rows: &Rows,
    mut fetch: impl AsyncFnMut(Option<Page>) -> Result<(Vec<T>, String), Status>,
) -> Result<(Vec<T>, bool), Problem> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let left = if rows.limit == 0 { PAGE } else { rows.limit - all.len() };
        let size = left.min(PAGE) as u32;
        let (items, next) = fetch(Some(Page { size, token })).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok((all, false));
        }
        if rows.limit != 0 && all.len() >= rows.limit {
            return Ok((all, true));
        }
        token = next;
    }
}

/// The end of a watch that broke off.
pub fn interrupted(status: Status, position: u64) -> Problem {
    let mut problem = Problem::from(status);
    problem.message = format!("{}; go on with --after {position}", problem.message);
    problem
}

/// The end of a watch that the platform ended.
pub fn ended(position: u64) -> Problem {
    Problem::unavailable(format!("the platform ended the watch; go on with --after {position}"))
}

/// Reads a word of an enumeration of the contract in any case, with - or _; for clap.
macro_rules! word_parser {
    ($name:ident, $enumeration:ty) => {
        /// Reads a word of the enumeration.
        fn $name(word: &str) -> Result<$enumeration, String> {
            let wanted = word.to_ascii_uppercase().replace('-', "_");
            match <$enumeration>::from_str_name(&wanted) {
                Some(value) if value as i32 != 0 => Ok(value),
                _ => {
                    let words: Vec<_> = (1..32)
                        .filter_map(|n| <$enumeration>::try_from(n).ok())
                        .map(|value| value.as_str_name().to_ascii_lowercase().replace('_', "-"))
                        .collect();
                    Err(format!("expected one of {}", words.join(", ")))
                }
            }
        }
    };
}
pub(crate) use word_parser;

#[cfg(test)]
mod tests {
    use deltran_api::platform::v1::GetStatusRequest;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Whether a client of HTTP/2 has asked for something: after the preface, a frame of headers.
    fn asks(bytes: &[u8]) -> bool {
        let mut rest = bytes.get(24..).unwrap_or_default();
        while let [high, middle, low, kind, ..] = *rest {
            if kind == 1 {
                return true;
            }
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        false
    }

    #[tokio::test]
    async fn a_connection_that_breaks_in_the_middle_of_a_call_exits_with_3() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        // Takes what is asked and goes away without an answer.
        let away = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut taken = Vec::new();
                while !asks(&taken) && stream.read_buf(&mut taken).await.unwrap() > 0 {}
            }
        });
        let session = Session::open(&ClientArgs::at(&address.to_string()), Output { json: false }).await.unwrap();
        let caller = session.operator().unwrap();
        let status = session.platform(caller).get_status(GetStatusRequest {}).await.unwrap_err();
        let problem = Problem::from(status);
        assert_eq!((problem.kind.code(), problem.reason.as_str()), (3, "unavailable"), "{problem}");
        away.abort();
    }

    #[test]
    fn the_address_is_the_given_one_or_that_of_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(address(Some("https://h:1"), folder.path()), "https://h:1");
        assert_eq!(address(Some("h:1"), folder.path()), "http://h:1");
        assert_eq!(address(None, folder.path()), DEFAULT_ENDPOINT);
        let endpoint = Endpoint {
            grpc: "http://127.0.0.1:7".into(),
            http: String::new(),
            nats: String::new(),
            pid: std::process::id().cast_signed(),
        };
        let _written = endpoint.write(folder.path()).unwrap();
        assert_eq!(address(None, folder.path()), "http://127.0.0.1:7");
    }

    #[tokio::test]
    async fn lists_are_read_page_by_page() {
        let list = |limit| async move {
            pages(&Rows { limit }, async |page: Option<Page>| {
                let page = page.unwrap();
                let from: u32 = page.token.parse().unwrap_or(0);
                let to = (from + page.size).min(2500);
                Ok(((from..to).collect(), if to < 2500 { to.to_string() } else { String::new() }))
            })
            .await
            .unwrap()
        };
        let (all, more) = list(0).await;
        assert_eq!((all.len(), all[2499], more), (2500, 2499, false));
        let (some, more) = list(1200).await;
        assert_eq!((some.len(), more), (1200, true));
    }
}
