#![allow(clippy::all, unused)]

use deltran_api::token::v1 as t;
use deltran_api::token::v1::token_service_server::{TokenService, TokenServiceServer};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::{Request, Response, Status};
use deltran_runtime::{Engine, EngineContext, Db};
use deltran_runtime::db::DbOptions;
use deltran_messaging::{Broker, Outbox};
use deltran_kernel::*;

type Script = Arc<dyn Fn(&str, &str, bool) -> Result<t::TransactionState, Status> + Send + Sync>;
#[derive(Clone)]
struct Fake { calls: Arc<Mutex<Vec<String>>>, script: Script }
#[tonic::async_trait]
impl TokenService for Fake {
async fn submit_transaction(&self, _: Request<t::SubmitTransactionRequest>) -> Result<Response<t::SubmitTransactionResponse>, Status> { Err(Status::unimplemented("x")) }
type SubmitTransactionsStream = futures::stream::Empty<Result<t::SubmitTransactionsResponse, Status>>;
async fn submit_transactions(&self, _: Request<tonic::Streaming<t::SubmitTransactionsRequest>>) -> Result<Response<Self::SubmitTransactionsStream>, Status> { Err(Status::unimplemented("x")) }
async fn commit_transaction(&self, _: Request<t::CommitTransactionRequest>) -> Result<Response<t::CommitTransactionResponse>, Status> { Err(Status::unimplemented("x")) }
async fn cancel_transaction(&self, _: Request<t::CancelTransactionRequest>) -> Result<Response<t::CancelTransactionResponse>, Status> { Err(Status::unimplemented("x")) }
async fn return_transaction(&self, _: Request<t::ReturnTransactionRequest>) -> Result<Response<t::ReturnTransactionResponse>, Status> { Err(Status::unimplemented("x")) }
async fn list_transactions(&self, _: Request<t::ListTransactionsRequest>) -> Result<Response<t::ListTransactionsResponse>, Status> { Err(Status::unimplemented("x")) }
type WatchTransactionsStream = futures::stream::Empty<Result<t::WatchTransactionsResponse, Status>>;
async fn watch_transactions(&self, _: Request<t::WatchTransactionsRequest>) -> Result<Response<Self::WatchTransactionsStream>, Status> { Err(Status::unimplemented("x")) }
async fn confirm_deposit(&self, _: Request<t::ConfirmDepositRequest>) -> Result<Response<t::ConfirmDepositResponse>, Status> { Err(Status::unimplemented("x")) }
async fn request_withdrawal(&self, _: Request<t::RequestWithdrawalRequest>) -> Result<Response<t::RequestWithdrawalResponse>, Status> { Err(Status::unimplemented("x")) }
async fn confirm_withdrawal(&self, _: Request<t::ConfirmWithdrawalRequest>) -> Result<Response<t::ConfirmWithdrawalResponse>, Status> { Err(Status::unimplemented("x")) }
async fn fail_withdrawal(&self, _: Request<t::FailWithdrawalRequest>) -> Result<Response<t::FailWithdrawalResponse>, Status> { Err(Status::unimplemented("x")) }
async fn get_balances(&self, _: Request<t::GetBalancesRequest>) -> Result<Response<t::GetBalancesResponse>, Status> { Err(Status::unimplemented("x")) }
async fn list_postings(&self, _: Request<t::ListPostingsRequest>) -> Result<Response<t::ListPostingsResponse>, Status> { Err(Status::unimplemented("x")) }
async fn verify_ledger(&self, _: Request<t::VerifyLedgerRequest>) -> Result<Response<t::VerifyLedgerResponse>, Status> { Err(Status::unimplemented("x")) }
async fn register_participant(&self, _: Request<t::RegisterParticipantRequest>) -> Result<Response<t::RegisterParticipantResponse>, Status> { Err(Status::unimplemented("x")) }
async fn set_participant_state(&self, _: Request<t::SetParticipantStateRequest>) -> Result<Response<t::SetParticipantStateResponse>, Status> { Err(Status::unimplemented("x")) }
async fn list_participants(&self, _: Request<t::ListParticipantsRequest>) -> Result<Response<t::ListParticipantsResponse>, Status> { Err(Status::unimplemented("x")) }
async fn enable_currency(&self, _: Request<t::EnableCurrencyRequest>) -> Result<Response<t::EnableCurrencyResponse>, Status> { Err(Status::unimplemented("x")) }
async fn set_collateral(&self, _: Request<t::SetCollateralRequest>) -> Result<Response<t::SetCollateralResponse>, Status> { Err(Status::unimplemented("x")) }
async fn open_window(&self, _: Request<t::OpenWindowRequest>) -> Result<Response<t::OpenWindowResponse>, Status> { Err(Status::unimplemented("x")) }
async fn seal_window(&self, _: Request<t::SealWindowRequest>) -> Result<Response<t::SealWindowResponse>, Status> { Err(Status::unimplemented("x")) }
async fn post_linked(&self, _: Request<t::PostLinkedRequest>) -> Result<Response<t::PostLinkedResponse>, Status> { Err(Status::unimplemented("x")) }
    async fn release_transaction(&self, r: Request<t::ReleaseTransactionRequest>) -> Result<Response<t::ReleaseTransactionResponse>, Status> {
        let r = r.into_inner();
        self.calls.lock().unwrap().push(format!("release {} {} {}", r.transaction_id, r.release, r.reason));
        let state = (self.script)("release", &r.transaction_id, r.release)?;
        Ok(Response::new(t::ReleaseTransactionResponse { transaction: Some(t::TransactionView { state: state.into(), ..Default::default() }) }))
    }
    async fn get_transaction(&self, r: Request<t::GetTransactionRequest>) -> Result<Response<t::GetTransactionResponse>, Status> {
        let r = r.into_inner();
        let state = (self.script)("get", &r.transaction_id, false)?;
        Ok(Response::new(t::GetTransactionResponse { transaction: Some(t::TransactionView { state: state.into(), ..Default::default() }) }))
    }
    async fn set_limit(&self, r: Request<t::SetLimitRequest>) -> Result<Response<t::SetLimitResponse>, Status> {
        let r = r.into_inner();
        self.calls.lock().unwrap().push(format!("limit {} {} {}", r.command_id, r.participant, r.net_debit_cap.unwrap().amount));
        (self.script)("limit", &r.participant, false)?;
        Ok(Response::new(t::SetLimitResponse { replayed: false }))
    }
}

const URL: &str = "postgres://postgres@127.0.0.1:54399/postgres";
struct Up { address: String, db: Db, calls: Arc<Mutex<Vec<String>>>, stop: Option<tokio::sync::oneshot::Sender<()>>, task: tokio::task::JoinHandle<()>, metrics: deltran_runtime::metrics::Metrics }
async fn up(name: &'static str, domain: deltran_events::Domain, migrator: &sqlx::migrate::Migrator, env: &[(&str,&str)], script: Script,
    make: impl Fn(EngineContext, Broker, Outbox) -> Result<Engine, deltran_runtime::boot::BootError>) -> Up {
    use deltran_runtime::*;
    db::migrate(name, URL, &deltran_messaging::SHARED_TABLES, migrator).await.unwrap();
    let config = Arc::new(config::Config::load(None, env.iter().map(|(a,b)| (a.to_string(), b.to_string()))).unwrap());
    let metrics = metrics::Metrics::new().unwrap();
    let db = Db::open(name, &DbOptions { url: URL.into(), max_connections: 5, acquire_timeout: Duration::from_secs(2) }, metrics.clone()).unwrap();
    let peers = peers::Peers::new(vec![name, "token"], &Default::default()).unwrap();
    let health = health::Health::default();
    let closing = tokio_util::sync::CancellationToken::new();
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(SystemIds::new()));
    let context = EngineContext { engine: name, config, db: db.clone(), clock: clock.clone(), ids: ids.clone(), peers: peers.clone(), metrics: metrics.clone(), health: health.clone(), holder: uuid::Uuid::from_u128(ids.next_id(clock.now()).as_u128()).to_string(), closing: closing.clone() };
    let broker = Broker::connect("nats://127.0.0.1:9", "x").await.unwrap();
    let engine = make(context, broker, Outbox::new(domain, clock, ids)).unwrap();
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let fake = Fake { calls: calls.clone(), script };
    let token = Engine::new("token", move |r| { r.add_service(TokenServiceServer::new(fake)); });
    let listeners = boot::Listeners::bind("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = format!("http://{}", listeners.grpc_address);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shared = boot::Shared { peers, metrics: metrics.clone(), health, closing };
    let task = tokio::spawn(async move { boot::serve(vec![engine, token], listeners, shared, || {}, async { stopped.await.ok(); }).await.unwrap(); });
    Up { address, db, calls, stop: Some(stop), task, metrics }
}
impl Up { async fn down(mut self) { self.stop.take().unwrap().send(()).ok(); self.task.await.unwrap(); } 
  async fn outbox(&self) -> Vec<String> { sqlx::query_scalar::<_, Vec<u8>>("SELECT envelope FROM outbox ORDER BY seq").fetch_all(self.db.pool()).await.unwrap().into_iter().map(|b| String::from_utf8(b).unwrap()).collect() } }
fn as_<T>(role: &str, user: &str, m: T) -> Request<T> { let mut r = Request::new(m); r.metadata_mut().insert("deltran-role", role.parse().unwrap()); r.metadata_mut().insert("deltran-user", user.parse().unwrap()); r }
async fn until<F: Future<Output = bool>>(what: &str, f: impl Fn() -> F) { for _ in 0..200 { if f().await { return; } tokio::time::sleep(Duration::from_millis(50)).await; } panic!("never: {what}"); }

use deltran_api::risk::v1 as k;
use deltran_api::common::v1 as cm;
use k::risk_service_client::RiskServiceClient;
fn id(n: u32) -> String { format!("0190c3d5-0000-7000-8000-{n:012}") }
fn usd(a: &str) -> Option<cm::Money> { Some(cm::Money { amount: a.into(), currency: "USD".into() }) }
fn show<T: std::fmt::Debug>(what: &str, r: Result<Response<T>, Status>) -> Option<T> { match r { Ok(r) => { let r = r.into_inner(); println!("{what} {r:?}"); Some(r) } Err(e) => { println!("{what} {:?} {}", e.code(), e.message()); None } } }

#[tokio::test(flavor = "multi_thread")]
async fn whole() {
    let away = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let a2 = away.clone();
    let script: Script = Arc::new(move |_, p, _| { if a2.load(std::sync::atomic::Ordering::SeqCst) { return Err(Status::unavailable("away")); } match p { "NOSUUSXX" => Err(Status::not_found("unknown participant NOSUUSXX")), _ => Ok(t::TransactionState::Committed) } });
    let u = up("risk", deltran_events::Domain::Risk, &deltran_risk::MIGRATOR, &[], script, deltran_risk::engine).await;
    let mut cl = RiskServiceClient::connect(u.address.clone()).await.unwrap();
    let assess = |amount: &str| k::AssessBatchRequest { subjects: vec![k::AssessSubject { transaction_id: id(1), payer: "ALFAAEXX".into(), payee: "BRAVINXX".into(), amount: usd(amount) }] };
    until("ready", || { let mut cl = cl.clone(); let r = as_("engine", "token-engine", assess("1.00")); async move { cl.assess_batch(r).await.is_ok() } }).await;
    let p = |n: u32, kind: k::LimitKind, participant: &str, amount: &str| k::ProposeLimitRequest { limit_id: id(n), kind: kind.into(), participant: participant.into(), amount: usd(amount), reason: "r".into() };
    use k::LimitKind::*;
    show("P", cl.propose_limit(as_("risk", "ada", p(1, NetDebitCap, "ALFAAEXX", "100.00"))).await);
    show("P again", cl.propose_limit(as_("risk", "ada", p(1, NetDebitCap, "ALFAAEXX", "100.00"))).await);
    show("P conflict", cl.propose_limit(as_("risk", "ada", p(1, NetDebitCap, "ALFAAEXX", "101.00"))).await);
    show("A self", cl.approve_limit(as_("risk", "ada", k::ApproveLimitRequest { limit_id: id(1) })).await);
    show("A none", cl.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(99) })).await);
    until("lease", || { let mut cl = cl.clone(); async move { cl.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(1) })).await.unwrap().into_inner().limit.unwrap().state == "ACTIVE" } }).await;
    show("A again", cl.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(1) })).await);
    show("A other", cl.approve_limit(as_("risk", "cyd", k::ApproveLimitRequest { limit_id: id(1) })).await);
    show("P unknown", cl.propose_limit(as_("risk", "ada", p(2, NetDebitCap, "NOSUUSXX", "100.00"))).await);
    show("A unknown", cl.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(2) })).await);
    let s = tokio::time::Instant::now();
    for n in 0..72u32 {
        let bank = format!("BK{:02}AEXX", n / 3);
        cl.propose_limit(as_("risk", "ada", p(100 + n, NetDebitCap, &bank, &format!("{n}.00")))).await.unwrap();
        let l = cl.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(100 + n) })).await.unwrap().into_inner().limit.unwrap();
        assert_eq!(l.state, "ACTIVE");
    }
    println!("72 caps {:?}", s.elapsed());
    let counts: Vec<(String, i64)> = sqlx::query_as("SELECT state, count(*) FROM limits GROUP BY 1 ORDER BY 1").fetch_all(u.db.pool()).await.unwrap();
    println!("{counts:?}");
    cl.propose_limit(as_("risk", "ada", p(3, SingleTransactionMaximum, "", "1000.00"))).await.unwrap();
    show("A max", cl.approve_limit(as_("operator", "bob", k::ApproveLimitRequest { limit_id: id(3) })).await);
    for a in ["1000.00", "1000.01"] { show("ASSESS", cl.assess_batch(as_("engine", "token-engine", assess(a))).await); }
    let trip = |n: u32, scope: &str| k::TripBreakerRequest { command_id: id(n), scope: scope.into(), reason: "odd traffic".into() };
    show("TRIP", cl.trip_breaker(as_("risk", "ada", trip(50, "participant:BRAVINXX"))).await);
    show("TRIP again", cl.trip_breaker(as_("risk", "ada", trip(50, "participant:BRAVINXX"))).await);
    show("TRIP conflict", cl.trip_breaker(as_("risk", "ada", trip(50, "global"))).await);
    show("TRIP open", cl.trip_breaker(as_("risk", "ada", trip(51, "participant:BRAVINXX"))).await);
    show("TRIP bad", cl.trip_breaker(as_("risk", "ada", trip(52, "corridor:AE-IN"))).await);
    show("ASSESS", cl.assess_batch(as_("engine", "token-engine", assess("1.00"))).await);
    show("CLOSE", cl.close_breaker(as_("risk", "ada", k::CloseBreakerRequest { command_id: id(53), scope: "participant:BRAVINXX".into(), reason: "fine".into() })).await);
    show("ASSESS", cl.assess_batch(as_("engine", "token-engine", assess("1.00"))).await);
    show("LIST", cl.list_breakers(as_("auditor", "x", k::ListBreakersRequest {})).await);
    show("LIST", cl.list_limits(as_("auditor", "x", k::ListLimitsRequest { page: Some(cm::Page { size: 2, token: "".into() }), participant: "BK01AEXX".into(), state: "SUPERSEDED".into() })).await);
    // the ledger away: two caps of one bank keep their order
    away.store(true, std::sync::atomic::Ordering::SeqCst);
    let from = u.calls.lock().unwrap().len();
    for (n, amount) in [(60, "1.00"), (61, "2.00")] {
        cl.propose_limit(as_("risk", "ada", p(n, NetDebitCap, "ALFAAEXX", amount))).await.unwrap();
        let mut c2 = cl.clone();
        tokio::spawn(async move { let r = c2.approve_limit(as_("risk", "bob", k::ApproveLimitRequest { limit_id: id(n) })).await.unwrap().into_inner().limit.unwrap(); println!("away {n} {}", r.state); });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    away.store(false, std::sync::atomic::Ordering::SeqCst);
    until("both", || { let db = u.db.clone(); async move { sqlx::query_scalar::<_, i64>("SELECT count(*) FROM limits WHERE state='APPROVED'").fetch_one(db.pool()).await.unwrap() == 0 } }).await;
    println!("{:#?}", &u.calls.lock().unwrap()[from..]);
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT limit_id::text, state FROM limits WHERE participant = 'ALFAAEXX' ORDER BY approval").fetch_all(u.db.pool()).await.unwrap();
    println!("{rows:?}");
    // another process changes what is in force
    sqlx::query("UPDATE breaker SET state = 'OPEN'").execute(u.db.pool()).await.unwrap();
    sqlx::query("UPDATE gate SET version = version + 1").execute(u.db.pool()).await.unwrap();
    until("follows", || { let mut cl = cl.clone(); let r = as_("engine", "token-engine", assess("1.00")); async move { cl.assess_batch(r).await.unwrap().into_inner().verdicts[0].refusal.is_some() } }).await;
    let many = k::AssessBatchRequest { subjects: (0..1000).map(|n| k::AssessSubject { transaction_id: id(n), payer: "ALFAAEXX".into(), payee: "CHARUSXX".into(), amount: usd("12.34") }).collect() };
    for _ in 0..3 { let s = tokio::time::Instant::now(); cl.assess_batch(as_("engine", "token-engine", many.clone())).await.unwrap(); println!("1000 assessed {:?}", s.elapsed()); }
    let out = u.outbox().await;
    println!("OUTBOX {} {:#?}", out.len(), out.iter().rev().take(8).collect::<Vec<_>>());
    println!("APPEND {:?} {:?}", sqlx::query("UPDATE limit_step SET note = ''").execute(u.db.pool()).await.unwrap_err().to_string(), sqlx::query("DELETE FROM limits").execute(u.db.pool()).await.unwrap_err().to_string());
    // stale
    sqlx::query("ALTER TABLE gate RENAME TO gone").execute(&sqlx::PgPool::connect(&format!("{URL}?options=-csearch_path%3Drisk")).await.unwrap()).await.unwrap();
    until("stale", || { let mut cl = cl.clone(); let r = as_("engine", "token-engine", assess("1.00")); async move { tokio::time::sleep(Duration::from_millis(50)).await; cl.assess_batch(r).await.is_err() } }).await;
    show("STALE", cl.assess_batch(as_("engine", "token-engine", assess("1.00"))).await);
    u.down().await;
}
