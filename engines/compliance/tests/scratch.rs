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

use deltran_api::compliance::v1 as c;
use c::compliance_service_client::ComplianceServiceClient;
fn subj(id: &str, a: &str, b: &str) -> c::ScreenSubject { c::ScreenSubject { transaction_id: id.into(), payer: "ALFAAEXX".into(), payee: "BRAVINXX".into(), amount: None,
  originator: Some(t::Party { name: a.into(), ..Default::default() }), beneficiary: Some(t::Party { name: b.into(), ..Default::default() }) } }
fn id(n: u32) -> String { format!("0190c3d5-0000-7000-8000-{n:012}") }

#[tokio::test(flavor = "multi_thread")]
async fn whole() {
    let script: Script = Arc::new(|what, id, release| match (what, id.ends_with('3'), id.ends_with('4')) {
        ("release", true, _) => Err(Status::not_found("no such transaction")),
        ("release", _, true) => Err(Status::failed_precondition("not held")),
        ("get", _, true) => Ok(t::TransactionState::Rejected),
        _ => Ok(if release { t::TransactionState::Committed } else { t::TransactionState::Rejected }),
    });
    // without a list
    let u = up("compliance", deltran_events::Domain::Compliance, &deltran_compliance::MIGRATOR, &[("DELTRAN_COMPLIANCE_BUNDLED_LIST", "false")], script.clone(), deltran_compliance::engine).await;
    let cl = ComplianceServiceClient::connect(u.address.clone()).await.unwrap();
    until("ready", || { let mut cl = cl.clone(); async move { cl.screen(as_("compliance", "ada", c::ScreenRequest { subject: Some(subj("", "A", "")) })).await.is_ok() } }).await;
    let mut cl1 = cl.clone();
    let r = cl1.screen_batch(as_("engine", "token-engine", c::ScreenBatchRequest { subjects: vec![subj(&id(1), "Ada", "Bob"), subj(&id(2), "", ""), subj(&id(7), "Eve", "")] })).await.unwrap().into_inner().results;
    println!("{r:#?}");
    println!("OUTBOX {:#?}", u.outbox().await);
    u.down().await;
    // with the bundled list
    let u = up("compliance", deltran_events::Domain::Compliance, &deltran_compliance::MIGRATOR, &[], script.clone(), deltran_compliance::engine).await;
    let mut cl = ComplianceServiceClient::connect(u.address.clone()).await.unwrap();
    until("ready", || { let mut cl = cl.clone(); async move { cl.list_lists(as_("compliance", "ada", c::ListListsRequest {})).await.is_ok_and(|r| !r.get_ref().lists.is_empty()) } }).await;
    println!("{:?}", cl.list_lists(as_("compliance", "ada", c::ListListsRequest {})).await.unwrap().into_inner());
    until("snapshot", || { let mut cl = cl.clone(); async move { cl.screen(as_("compliance", "ada", c::ScreenRequest { subject: Some(subj("", "A", "")) })).await.is_ok_and(|r| r.get_ref().result.as_ref().unwrap().evidence == "no_match") } }).await;
    let batch = |n: u32| c::ScreenBatchRequest { subjects: vec![subj(&id(n), "EXAMPLE, Ivan Petrovich", "Bob"), subj(&id(100), "Ada", "Bob")] };
    for n in [2, 3, 4, 5, 2, 2] { let r = cl.screen_batch(as_("engine", "token-engine", batch(n))).await.unwrap().into_inner().results; assert_eq!(r[0].decision(), c::Decision::BlockAndReview); assert_eq!(r[1].decision(), c::Decision::Approve); }
    let clean = c::ScreenBatchRequest { subjects: (0..1000).map(|n| subj(&id(n + 1000), "Some Ordinary Company Of Length Ltd", "Another Person Name")).collect() };
    for _ in 0..3 { let s = tokio::time::Instant::now(); cl.screen_batch(as_("engine", "token-engine", clean.clone())).await.unwrap(); println!("1000 clean {:?}", s.elapsed()); }
    let bad = c::ScreenBatchRequest { subjects: (0..1000).map(|n| subj(&id(n + 5000), "Vostok Shadow Trading LLC", "Another Person Name")).collect() };
    for _ in 0..2 { let s = tokio::time::Instant::now(); cl.screen_batch(as_("engine", "token-engine", bad.clone())).await.unwrap(); println!("1000 hits {:?}", s.elapsed()); }
    let holds = cl.list_holds(as_("compliance", "ada", c::ListHoldsRequest { page: None, state: "PLACED".into() })).await.unwrap().into_inner();
    println!("holds {} next {:?}\n{:?}", holds.holds.len(), holds.next_page_token, &holds.holds[..7]);
    let of = |n: u32| holds.holds.iter().find(|h| h.transaction_id == id(n)).unwrap().hold_id.clone();
    for (n, release) in [(2, true), (3, true), (4, true), (5, false)] {
        let h = of(n);
        println!("DECIDE EARLY {:?}", cl.decide_hold(as_("compliance", "bob", c::DecideHoldRequest { hold_id: h.clone(), approve: true, reason: "".into() })).await.unwrap_err().message());
        cl.propose_hold(as_("compliance", "ada", c::ProposeHoldRequest { hold_id: h.clone(), release, reason: "known".into() })).await.unwrap();
        let e = cl.decide_hold(as_("compliance", "ada", c::DecideHoldRequest { hold_id: h.clone(), approve: true, reason: "".into() })).await.unwrap_err();
        println!("FOUR EYES {:?} {:?}", e.code(), e.message());
        let s = tokio::time::Instant::now();
        let d = cl.decide_hold(as_("compliance", "bob", c::DecideHoldRequest { hold_id: h.clone(), approve: true, reason: "".into() })).await.unwrap().into_inner().hold.unwrap();
        println!("DECIDED {n} {:?} {} {} {}", s.elapsed(), d.state, d.decided_by, d.reason);
    }
    // a transaction the ledger never had: back-date, so that it is definite
    sqlx::query("UPDATE hold SET screened_at = 0 WHERE hold_id = $1::text::uuid").bind(of(3)).execute(u.db.pool()).await.unwrap();
    until("rejected", || { let db = u.db.clone(); let h = of(3); async move { sqlx::query_scalar::<_, String>("SELECT state FROM hold WHERE hold_id = $1::text::uuid").bind(h).fetch_one(db.pool()).await.unwrap() == "REJECTED" } }).await;
    cl.screen_batch(as_("engine", "token-engine", batch(3))).await.unwrap();
    let again: Vec<(String, String, Option<String>)> = sqlx::query_as("SELECT state, reason, outcome FROM hold WHERE transaction_id = $1::text::uuid ORDER BY placed_at").bind(id(3)).fetch_all(u.db.pool()).await.unwrap();
    println!("AGAIN {again:?}");
    // lists
    for (content, source) in [(&b"A\nM\xfcller"[..], "operator"), (b"", "operator"), (b"x", "ofac"), (b"Ada\n", "operator"), (b"Ada\n", "operator")] {
        match cl.load_list(as_("compliance", "ada", c::LoadListRequest { source: source.into(), content: content.to_vec() })).await { Ok(r) => println!("LOAD {:?}", r.into_inner()), Err(e) => println!("LOAD {:?} {}", e.code(), e.message()) }
    }
    let r = cl.screen(as_("engine", "token-engine", c::ScreenRequest { subject: Some(subj(&id(200), "ADA", "Vostok Shadow Trading LLC")) })).await.unwrap().into_inner();
    println!("{r:?}");
    println!("APPEND {:?}", sqlx::query("DELETE FROM hold_step").execute(u.db.pool()).await.unwrap_err().to_string());
    let out = u.outbox().await;
    println!("OUTBOX {} {:#?}", out.len(), out.iter().filter(|e| !e.contains("-00000000") || true).filter(|e| e.contains("list.") || e.contains("released") || e.contains("rejected") || e.contains("alert")).collect::<Vec<_>>());
    for name in ["Ivan", "Vostok", "Ada", "Eve"] { assert!(!out.iter().any(|e| e.contains(name)), "{name}"); }
    println!("{:#?}", u.calls.lock().unwrap());
    println!("{}", u.metrics.encode().unwrap().lines().filter(|l| l.contains("deltran_alert{")).collect::<Vec<_>>().join("\n"));
    let db = u.db.clone();
    // fail closed: the database refuses the hold table
    sqlx::query("RESET ROLE").execute(db.pool()).await.ok();
    u.down().await;
}
