//! scratch
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use deltran_api::token::v1 as tk;
use deltran_api::token::v1::token_service_server::{TokenService, TokenServiceServer};
use deltran_events::*;
use deltran_events::data::transactions::*;
use deltran_events::data::settlement::*;
use deltran_kernel::*;
use deltran_messaging::*;
use deltran_runtime::*;
use deltran_api::clearing::v1 as pb;
use deltran_api::clearing::v1::clearing_service_server::ClearingService as _;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};
use tower::Layer;
use crate::commands::Clearing;
use crate::config::*;

#[derive(Default)]
struct Win { seq: u64, open: bool, gross: i128, net: BTreeMap<String, i128>, hash: Sha256, currency: String, totals: Option<tk::WindowTotals> }
#[derive(Default)]
struct L { wins: BTreeMap<String, Win>, open: BTreeMap<String, String>, fail: u64, n: u128, events: Vec<(String,u64,String)> }
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<L>>);
fn money(u: i128, c: &str) -> Option<deltran_api::common::v1::Money> { Some(deltran_runtime::wire::minor_to_money(Minor::new(u).unwrap(), Currency::new(c).unwrap())) }
fn now() -> Option<prost_types::Timestamp> { Some(deltran_runtime::wire::to_timestamp(SystemClock.now())) }
impl Fake {
    fn pay(&self, c: &str) -> bool {
        let mut l = self.0.lock().unwrap();
        let Some(w) = l.open.get(c).cloned() else { return false };
        l.n += 1; let n = l.n;
        let id = uuid::Uuid::from_u128(0x77_0000_0000 + n);
        let (a, b) = (n % 7, (n % 7 + 1 + n % 5) % 7);
        let (a, b) = (format!("{a:04}AEXX"), format!("{b:04}AEXX"));
        let amount = (n % 1000 + 1) as i128;
        let win = l.wins.get_mut(&w).unwrap();
        win.seq += 1; win.gross += amount; *win.net.entry(a.clone()).or_default() -= amount; *win.net.entry(b.clone()).or_default() += amount;
        win.hash.update(id.as_bytes());
        let seq = win.seq;
        let ev = serde_json::json!({"event_id": uuid::Uuid::from_u128(0x99_0000_0000+n), "event_type":"transaction.committed","timestamp":"2026-01-01T00:00:00.000000Z","source":"token-engine","version":"1.0",
          "data":{"transaction_id":id,"payer":a,"payee":b,"amount":format!("{}.{:02}", amount/100, amount%100),"currency":c,"settlement_model":"NET_MULTILATERAL","window_id":w,"window_seq":seq},
          "metadata":{"producer":"token-engine/1","producer_seq":n as u64}});
        l.events.push((w, seq, ev.to_string()));
        true
    }
}
#[tonic::async_trait]
impl TokenService for Fake {
    type SubmitTransactionsStream = futures::stream::Empty<Result<tk::SubmitTransactionsResponse, Status>>;
    type WatchTransactionsStream = futures::stream::Empty<Result<tk::WatchTransactionsResponse, Status>>;
    async fn submit_transactions(&self, _: Request<tonic::Streaming<tk::SubmitTransactionsRequest>>) -> Result<Response<Self::SubmitTransactionsStream>, Status> { Err(Status::unimplemented("")) }
    async fn watch_transactions(&self, _: Request<tk::WatchTransactionsRequest>) -> Result<Response<Self::WatchTransactionsStream>, Status> { Err(Status::unimplemented("")) }
    async fn submit_transaction(&self, _: Request<tk::SubmitTransactionRequest>) -> Result<Response<tk::SubmitTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn commit_transaction(&self, _: Request<tk::CommitTransactionRequest>) -> Result<Response<tk::CommitTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn cancel_transaction(&self, _: Request<tk::CancelTransactionRequest>) -> Result<Response<tk::CancelTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn return_transaction(&self, _: Request<tk::ReturnTransactionRequest>) -> Result<Response<tk::ReturnTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn get_transaction(&self, _: Request<tk::GetTransactionRequest>) -> Result<Response<tk::GetTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn list_transactions(&self, _: Request<tk::ListTransactionsRequest>) -> Result<Response<tk::ListTransactionsResponse>, Status> { Err(Status::unimplemented("")) }
    async fn confirm_deposit(&self, _: Request<tk::ConfirmDepositRequest>) -> Result<Response<tk::ConfirmDepositResponse>, Status> { Err(Status::unimplemented("")) }
    async fn request_withdrawal(&self, _: Request<tk::RequestWithdrawalRequest>) -> Result<Response<tk::RequestWithdrawalResponse>, Status> { Err(Status::unimplemented("")) }
    async fn confirm_withdrawal(&self, _: Request<tk::ConfirmWithdrawalRequest>) -> Result<Response<tk::ConfirmWithdrawalResponse>, Status> { Err(Status::unimplemented("")) }
    async fn fail_withdrawal(&self, _: Request<tk::FailWithdrawalRequest>) -> Result<Response<tk::FailWithdrawalResponse>, Status> { Err(Status::unimplemented("")) }
    async fn get_balances(&self, _: Request<tk::GetBalancesRequest>) -> Result<Response<tk::GetBalancesResponse>, Status> { Err(Status::unimplemented("")) }
    async fn list_postings(&self, _: Request<tk::ListPostingsRequest>) -> Result<Response<tk::ListPostingsResponse>, Status> { Err(Status::unimplemented("")) }
    async fn verify_ledger(&self, _: Request<tk::VerifyLedgerRequest>) -> Result<Response<tk::VerifyLedgerResponse>, Status> { Err(Status::unimplemented("")) }
    async fn register_participant(&self, _: Request<tk::RegisterParticipantRequest>) -> Result<Response<tk::RegisterParticipantResponse>, Status> { Err(Status::unimplemented("")) }
    async fn set_participant_state(&self, _: Request<tk::SetParticipantStateRequest>) -> Result<Response<tk::SetParticipantStateResponse>, Status> { Err(Status::unimplemented("")) }
    async fn list_participants(&self, _: Request<tk::ListParticipantsRequest>) -> Result<Response<tk::ListParticipantsResponse>, Status> { Err(Status::unimplemented("")) }
    async fn enable_currency(&self, _: Request<tk::EnableCurrencyRequest>) -> Result<Response<tk::EnableCurrencyResponse>, Status> { Err(Status::unimplemented("")) }
    async fn set_collateral(&self, _: Request<tk::SetCollateralRequest>) -> Result<Response<tk::SetCollateralResponse>, Status> { Err(Status::unimplemented("")) }
    async fn post_linked(&self, _: Request<tk::PostLinkedRequest>) -> Result<Response<tk::PostLinkedResponse>, Status> { Err(Status::unimplemented("")) }
    async fn set_limit(&self, _: Request<tk::SetLimitRequest>) -> Result<Response<tk::SetLimitResponse>, Status> { Err(Status::unimplemented("")) }
    async fn release_transaction(&self, _: Request<tk::ReleaseTransactionRequest>) -> Result<Response<tk::ReleaseTransactionResponse>, Status> { Err(Status::unimplemented("")) }
    async fn open_window(&self, r: Request<tk::OpenWindowRequest>) -> Result<Response<tk::OpenWindowResponse>, Status> {
        let r = r.into_inner(); let mut l = self.0.lock().unwrap();
        l.fail += 1; if l.fail % 5 == 0 { return Err(Status::unavailable("flaky before")) }
        if l.wins.contains_key(&r.window_id) { return Ok(Response::new(tk::OpenWindowResponse{opened_at: now(), replayed: true})) }
        if let Some(w) = l.open.get(&r.currency) { return Err(Failure::wrong_state(format!("{w} is open"), "OPEN").into()) }
        l.open.insert(r.currency.clone(), r.window_id.clone());
        l.wins.insert(r.window_id, Win { open: true, currency: r.currency, ..Default::default() });
        if l.fail % 7 == 0 { return Err(Status::unavailable("flaky after")) }
        Ok(Response::new(tk::OpenWindowResponse{opened_at: now(), replayed: false}))
    }
    async fn seal_window(&self, r: Request<tk::SealWindowRequest>) -> Result<Response<tk::SealWindowResponse>, Status> {
        let r = r.into_inner(); let mut l = self.0.lock().unwrap();
        l.fail += 1; if l.fail % 11 == 0 { return Err(Status::unavailable("flaky before")) }
        let w = l.wins.get_mut(&r.window_id).ok_or(Status::not_found("no"))?;
        if let Some(t) = &w.totals { return Ok(Response::new(tk::SealWindowResponse{totals: Some(t.clone()), replayed: true})) }
        w.open = false; let c = w.currency.clone();
        let t = tk::WindowTotals { window_id: r.window_id.clone(), count: w.seq, gross: money(w.gross, &c), net: w.net.iter().map(|(p,n)| deltran_api::common::v1::NetPosition{participant: p.clone(), net: money(*n,&c)}).collect(), digest: w.hash.clone().finalize().to_vec().into(), opened_at: now(), sealed_at: now() };
        w.totals = Some(t.clone());
        l.open.remove(&c);
        if !r.next_window_id.is_empty() { l.open.insert(c.clone(), r.next_window_id.clone()); l.wins.insert(r.next_window_id, Win{open:true,currency:c,..Default::default()}); }
        if l.fail % 13 == 0 { return Err(Status::unavailable("flaky after")) }
        Ok(Response::new(tk::SealWindowResponse{totals: Some(t), replayed: false}))
    }
}
fn delivery(subject: &str, line: &str) -> Delivery {
    let payload = bytes::Bytes::copy_from_slice(line.as_bytes());
    let envelope = Envelope::decode(subject, &payload);
    let (e, _) = envelope.as_ref().unwrap();
    let producer = e.metadata.producer.clone().zip(e.metadata.producer_seq);
    Delivery { subject: subject.into(), stream: "S".into(), stream_sequence: 1, origin: ("S".into(), 1), attempt: 1, payload, envelope, producer, duplicate: false, headers: Default::default() }
}
fn req<T>(t: T, role: Role) -> Request<T> { let mut r = Request::new(t); r.extensions_mut().insert(Caller{participant: None, role, user: "ada".into(), trace: None}); r }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole() {
    let url = std::env::var("SCRATCH_URL").unwrap();
    let metrics = metrics::Metrics::new().unwrap();
    db::migrate("clearing", &url, &SHARED_TABLES, &crate::MIGRATOR).await.unwrap();
    let db = Db::open("clearing", &db::DbOptions{url, max_connections: 10, acquire_timeout: std::time::Duration::from_secs(3)}, metrics.clone()).unwrap();
    let peers = peers::Peers::new(vec!["token","clearing"], &BTreeMap::new()).unwrap();
    let fake = Fake::default();
    let mut routes = tonic::service::Routes::builder();
    routes.add_service(TokenServiceServer::new(fake.clone()));
    peers.set_local(guard::GuardLayer::new(metrics.clone()).layer(routes.routes().prepare()));
    let context = EngineContext { engine: "clearing", config: Arc::new(config::Config::default()), db: db.clone(), clock: Arc::new(SystemClock), ids: Arc::new(SystemIds::new()), peers, metrics: metrics.clone(), health: health::Health::default(), holder: "t".into(), closing: Default::default() };
    let outbox = Outbox::new(Domain::Clearing, context.clock.clone(), context.ids.clone());
    let settings: Settings = toml::from_str("[[schedules]]\nname='m'\ncurrencies=['USD']\nmode='manual'\n[[schedules]]\nname='c'\ncurrencies=['EUR']\nmode='cron'\ncron='*/2 * * * * *'\n").unwrap();
    let clearing = Clearing::new(context.clone(), outbox.clone(), Arc::new(Schedules::new(&settings, SystemClock.now()).unwrap()));
    let broker = Broker::connect("nats://127.0.0.1:1", "x").await.unwrap();
    let svc = Arc::new(crate::grpc::Service::new(clearing.clone(), broker));
    let stop = tokio_util::sync::CancellationToken::new();
    let driver = tokio::spawn(crate::schedule::run(clearing.clone(), stop.clone()));
    let wid = |n: u128| uuid::Uuid::from_u128(0x11_0000 + n).to_string();
    let op = Role::Operator;
    let o = svc.open_window(req(pb::OpenWindowRequest{window_id: wid(1), schedule: "m".into(), currency: "USD".into()}, op)).await.unwrap().into_inner().window.unwrap();
    println!("opened {o:?}");
    println!("second: {:?}", svc.open_window(req(pb::OpenWindowRequest{window_id: wid(99), schedule: "m".into(), currency: "USD".into()}, op)).await.unwrap_err().message());
    println!("cron: {:?}", svc.open_window(req(pb::OpenWindowRequest{window_id: wid(99), schedule: "c".into(), currency: "EUR".into()}, op)).await.unwrap_err().message());
    let stop_pay = tokio_util::sync::CancellationToken::new();
    let (f, sp) = (fake.clone(), stop_pay.clone());
    let payer = tokio::spawn(async move { while !sp.is_cancelled() { for _ in 0..10 { f.pay("USD"); } f.pay("EUR"); tokio::time::sleep(std::time::Duration::from_millis(5)).await; } });
    let (f, cl, done) = (fake.clone(), clearing.clone(), stop.clone());
    let dbc = db.clone();
    let feeder = tokio::spawn(async move {
        let h = crate::consume::Transactions(cl);
        let mut total = 0; let mut held = Vec::new();
        loop {
            let mut batch: Vec<_> = std::mem::take(&mut f.0.lock().unwrap().events);
            batch.append(&mut held);
            if batch.len() > 40 && !done.is_cancelled() { held = batch.split_off(batch.len() - 9); let at = batch.len()/2; batch.rotate_left(at); }
            if !batch.is_empty() {
                total += batch.len();
                let d: Vec<_> = batch.iter().map(|(_,_,e)| delivery("events.transactions.transaction.committed", e)).collect();
                let mut tx = dbc.begin().await.unwrap();
                Handler::apply(&h, &mut tx, &d).await.unwrap();
                tx.commit().await.unwrap();
                h.committed();
            }
            if done.is_cancelled() { return total }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let t = tokio::time::Instant::now();
    for n in 1..200u128 {
        let r = svc.close_window(req(pb::CloseWindowRequest{window_id: wid(n), next_window_id: wid(n+1)}, op)).await.unwrap().into_inner();
        let (w, next) = (r.window.unwrap(), r.next.unwrap());
        assert!(w.state >= 4 && next.state == 2, "{w:?} {next:?}");
        if n == 1 { println!("closed {w:?}\nnext {next:?}"); }
    }
    println!("199 closes in {:?}", t.elapsed());
    stop_pay.cancel(); payer.await.unwrap();
    let last = svc.close_window(req(pb::CloseWindowRequest{window_id: wid(200), next_window_id: String::new()}, op)).await.unwrap().into_inner();
    assert!(last.next.is_none());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    println!("again: {:?}", svc.close_window(req(pb::CloseWindowRequest{window_id: wid(200), next_window_id: String::new()}, op)).await.unwrap_err().message());
    let page = svc.list_windows(req(pb::ListWindowsRequest{page: Some(deltran_api::common::v1::Page{size: 1000, token: String::new()}), currency: "USD".into(), schedule: String::new(), states: vec![5]}, op)).await.unwrap().into_inner();
    println!("netted USD: {}", page.windows.len());
    let sum: u64 = page.windows.iter().map(|w| w.count).sum();
    println!("transactions in netted USD windows: {sum}");
    let one = page.windows.iter().find(|w| w.window_id == wid(50)).unwrap().clone();
    let set = svc.get_netting_set(req(pb::GetNettingSetRequest{netting_set_id: one.netting_set_id.clone()}, op)).await.unwrap().into_inner().netting_set.unwrap();
    println!("{set:?}");
    println!("{:?}", svc.preview_netting(req(pb::PreviewNettingRequest{window_id: wid(50)}, op)).await.unwrap().into_inner().netting_set.unwrap().digest == set.digest);
    println!("{:?}", svc.get_positions(req(pb::GetPositionsRequest{window_id: wid(50), participant: String::new()}, op)).await.unwrap().into_inner().positions.len());
    let mut bank = Request::new(pb::GetPositionsRequest{window_id: one.netting_set_id.clone(), participant: String::new()});
    bank.extensions_mut().insert(Caller{participant: Some("0001AEXX".parse().unwrap()), role: Role::Bank, user: "b".into(), trace: None});
    println!("{:?}", svc.get_positions(bank).await.unwrap().into_inner().positions);
    // settlement
    let st = crate::consume::Settlement(clearing.clone());
    let cur = Currency::new("USD").unwrap();
    let mut seq = 0;
    let mut ev = |ty: &str, data: serde_json::Value| { seq += 1; delivery(&format!("events.settlement.{ty}"), &serde_json::json!({"event_id": uuid::Uuid::from_u128(0x55_0000+seq as u128),"event_type":ty,"timestamp":"2026-01-01T00:00:00.000000Z","source":"settlement-engine","version":"1.0","data":data,"metadata":{"producer":"settlement-engine/1","producer_seq":seq}}).to_string()) };
    let batch = uuid::Uuid::from_u128(5);
    let s1: NettingSetId = one.netting_set_id.parse().unwrap();
    let created = |s: NettingSetId| serde_json::to_value(BatchCreated{batch_id: BatchId::new(batch), netting_set_id: s, window_ids: vec![], currency: cur, gross: Amount::Text("1.00".into()), moved: Amount::Text("1.00".into()), participants: 2}).unwrap();
    let aborted = |s| serde_json::to_value(BatchAborted{batch_id: BatchId::new(batch), netting_set_id: s, window_ids: vec![], currency: cur, reason: "short".into()}).unwrap();
    let settled = |s| serde_json::to_value(BatchSettled{batch_id: BatchId::new(batch), netting_set_id: s, window_ids: vec![], currency: cur, moved: Amount::Text("1.00".into()), final_at: SystemClock.now()}).unwrap();
    let d = vec![ev("batch.created", created(s1)), ev("batch.aborted", aborted(s1))];
    let mut tx = db.begin().await.unwrap();
    let out = Handler::apply(&st, &mut tx, &d).await.unwrap(); outbox.append(&mut tx, &out).await.unwrap(); tx.commit().await.unwrap();
    println!("out {}", out.len());
    let s2 = wid(7777);
    let r = svc.net_windows(req(pb::NetWindowsRequest{netting_set_id: s2.clone(), window_ids: vec![wid(50)]}, op)).await.unwrap().into_inner().netting_set.unwrap();
    assert_eq!(r.digest, set.digest);
    let r2 = svc.net_windows(req(pb::NetWindowsRequest{netting_set_id: s2.clone(), window_ids: vec![wid(50)]}, op)).await.unwrap().into_inner().netting_set.unwrap();
    assert_eq!(r, r2);
    println!("{:?}", svc.net_windows(req(pb::NetWindowsRequest{netting_set_id: s2.clone(), window_ids: vec![wid(51)]}, op)).await.unwrap_err().message());
    let d = vec![ev("batch.created", created(s2.parse().unwrap())), ev("batch.settled", settled(s2.parse().unwrap()))];
    let mut tx = db.begin().await.unwrap();
    let out = Handler::apply(&st, &mut tx, &d).await.unwrap(); outbox.append(&mut tx, &out).await.unwrap(); tx.commit().await.unwrap();
    println!("{:?}", svc.get_window(req(pb::GetWindowRequest{window_id: wid(50)}, op)).await.unwrap().into_inner().window.unwrap());
    let d = vec![ev("batch.settled", settled(s1))];
    let mut tx = db.begin().await.unwrap();
    println!("{:?}", Handler::apply(&st, &mut tx, &d).await.unwrap_err());
    drop(tx);
    // abort an empty one
    svc.open_window(req(pb::OpenWindowRequest{window_id: wid(300), schedule: "m".into(), currency: "USD".into()}, op)).await.unwrap();
    let a = svc.abort_window(req(pb::AbortWindowRequest{window_id: wid(300), reason: "mistake".into()}, op)).await.unwrap().into_inner().window.unwrap();
    println!("aborted {a:?}");
    // empty window nets
    svc.open_window(req(pb::OpenWindowRequest{window_id: wid(301), schedule: "m".into(), currency: "USD".into()}, op)).await.unwrap();
    svc.close_window(req(pb::CloseWindowRequest{window_id: wid(301), next_window_id: String::new()}, op)).await.unwrap();
    let eur = svc.list_windows(req(pb::ListWindowsRequest{page: None, currency: "EUR".into(), schedule: String::new(), states: vec![]}, op)).await.unwrap().into_inner();
    println!("EUR: {:?}", eur.windows.iter().map(|w| (w.state, w.count, w.sealed_count)).collect::<Vec<_>>());
    let open = eur.windows.iter().find(|w| w.state == 2).unwrap().window_id.clone();
    let far = wire::to_timestamp(SystemClock.now().plus_seconds(500));
    let x = svc.extend_window(req(pb::ExtendWindowRequest{window_id: open.clone(), closes_at: Some(far), reason: "r".into()}, op)).await.unwrap().into_inner().window.unwrap();
    println!("extended {x:?}");
    let c = svc.close_window(req(pb::CloseWindowRequest{window_id: open, next_window_id: String::new()}, op)).await.unwrap().into_inner();
    println!("closed early {:?}\n{:?}", c.window.unwrap().state, c.next);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    stop.cancel(); println!("consumed {}", feeder.await.unwrap()); driver.await.unwrap();
    let made = fake.0.lock().unwrap().n;
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT state, count(*) FROM clearing_window GROUP BY 1").fetch_all(db.pool()).await.unwrap();
    println!("made {made} states {rows:?}");
    let counted: (i64, i64) = sqlx::query_as("SELECT sum(count)::bigint, sum(folded)::bigint FROM tally").fetch_one(db.pool()).await.unwrap();
    println!("tallies {counted:?}");
    println!("{}", metrics.encode().unwrap().lines().filter(|l| l.contains("breach") || l.contains("alert{")).collect::<Vec<_>>().join("\n"));
    println!("problems {:?}", context.health.problems());
    let types: Vec<(String, i64)> = sqlx::query_as("SELECT subject, count(*) FROM outbox GROUP BY 1 ORDER BY 1").fetch_all(db.pool()).await.unwrap();
    println!("{types:?}");
    println!("{:?}", sqlx::query("UPDATE netting_set SET count = 1").execute(db.pool()).await.unwrap_err().to_string());
}
