//! The books of a day from five sides: statements, settlement reports, trial balance, clearing positions and ledger
//! balances. They agree to the last minor unit, or the test ends.

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{GetNettingSetRequest, ListWindowsRequest, Window, WindowState};
use deltran_api::common::v1::{Money, Page};
use deltran_api::reporting::v1::reporting_service_client::ReportingServiceClient;
use deltran_api::reporting::v1::{
    CreateReportRequest, DownloadReportRequest, GetReportRequest, Report, ReportKind, ReportState, ReportSubject,
};
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{GetBalancesRequest, GetBalancesResponse, ListParticipantsRequest};
use deltran_kernel::{Clock, Currency, IdSource, SystemClock, SystemIds, Timestamp};
use deltran_reporting::domain::day::Day;
use deltran_reporting::domain::manifest::Manifest;
use sha2::{Digest, Sha256};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::stack::As;
use crate::wait::within;

type Operator = InterceptedService<Channel, As>;

/// How long a report may take on a machine with other work.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// Files of a report by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TiedOut {
    /// Statements of days.
    pub statements: usize,
    /// Their entries.
    pub entries: usize,
    /// Settlement reports.
    pub settlements: usize,
    /// Accounts of the trial balance.
    pub accounts: usize,
}

/// Minor units of a decimal text.
pub fn units(amount: &str, currency: &str) -> i128 {
    let currency = Currency::new(currency).unwrap_or_else(|e| panic!("{e}"));
    deltran_kernel::Money::parse(amount, currency).unwrap_or_else(|e| panic!("{amount:?}: {e}")).minor().units()
}

fn of(money: &Option<Money>) -> i128 {
    let money = money.as_ref().expect("an amount");
    units(&money.amount, &money.currency)
}

/// Asks for a report as an operator.
pub async fn request(channel: &Channel, subject: ReportSubject) -> Report {
    let mut client = reporting(channel);
    let request = CreateReportRequest { report_id: fresh().to_string(), subject: Some(subject) };
    client.create_report(request).await.unwrap_or_else(|e| panic!("{e}")).into_inner().report.expect("a report")
}

/// A fresh id.
pub fn fresh() -> Uuid {
    SystemIds::new().next_id(SystemClock.now())
}

fn operator(channel: &Channel) -> Operator {
    InterceptedService::new(channel.clone(), As::role("operator", "ada"))
}

/// The reporting engine, called by an operator.
pub fn reporting(channel: &Channel) -> ReportingServiceClient<Operator> {
    ReportingServiceClient::new(operator(channel))
}

/// Waits until a report has come to its end.
pub async fn ended(channel: &Channel, id: &str) -> Report {
    let mut client = reporting(channel);
    let what = format!("report {id}");
    within(PATIENCE, &what, async || {
        let request = GetReportRequest { report_id: id.to_owned() };
        let report = client.get_report(request).await.ok()?.into_inner().report?;
        matches!(report.state(), ReportState::Completed | ReportState::Failed).then_some(report)
    })
    .await
}

/// Downloads every file of a completed report; sizes, SHA-256, manifest and totals are what they must be.
pub async fn files(channel: &Channel, report: &Report) -> (Files, Manifest) {
    assert_eq!(report.state(), ReportState::Completed, "{report:?}");
    let mut files = Files::new();
    for file in &report.files {
        let request = DownloadReportRequest { report_id: report.report_id.clone(), file: file.name.clone(), offset: 0 };
        let mut chunks =
            reporting(channel).download_report(request).await.unwrap_or_else(|e| panic!("{e}")).into_inner();
        let mut content = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap_or_else(|e| panic!("{e}")) {
            assert_eq!(chunk.offset, content.len() as u64);
            assert!(chunk.data.len() <= 64 << 10, "{} bytes at once", chunk.data.len());
            content.extend(chunk.data);
        }
        assert_eq!((content.len() as u64, hex::encode(Sha256::digest(&content))), (file.size, file.sha256.clone()));
        files.insert(file.name.clone(), content);
    }
    let manifest = Manifest::read(&files["manifest.json"]).unwrap_or_else(|e| panic!("{e}"));
    let there = files
        .iter()
        .map(|(name, content)| (name.clone(), (content.len() as u64, hex::encode(Sha256::digest(content)))));
    assert_eq!(manifest.check(&there.collect()), []);
    assert_eq!(manifest.check_totals(), Ok(()));
    (files, manifest)
}

/// A report with its files.
pub async fn report(channel: &Channel, subject: ReportSubject) -> (Report, Files, Manifest) {
    let asked = request(channel, subject).await;
    let report = ended(channel, &asked.report_id).await;
    let (files, manifest) = files(channel, &report).await;
    (report, files, manifest)
}

/// Rows of a CSV file by the names of its header.
pub fn rows(content: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(content);
    reader.deserialize().map(|row| row.unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// A total of a manifest.
pub fn total(manifest: &Manifest, name: &str) -> i128 {
    let text = manifest.totals.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", manifest.totals));
    text.parse().unwrap_or_else(|e| panic!("{name} {text:?}: {e}"))
}

/// Opening, closing and sum of entries of a camt.053, in minor units.
pub fn camt(content: &[u8], currency: &str) -> (i128, i128, i128) {
    let text = std::str::from_utf8(content).expect("UTF-8");
    let signed = |part: &str| {
        let amount = part.split_once("</Amt>").expect("an amount").0.rsplit('>').next().unwrap_or_default();
        let value = units(amount, currency);
        if part.contains("<CdtDbtInd>DBIT") { -value } else { value }
    };
    let balance = |codes: &[&str]| {
        let of_code = |part: &&str| codes.iter().any(|code| part.contains(&format!("<Cd>{code}</Cd>")));
        let part = text.split("<Bal>").skip(1).map(|p| p.split("</Bal>").next().unwrap_or_default()).find(of_code);
        signed(part.expect("a balance"))
    };
    let entries = text.split("<Ntry>").skip(1).map(|part| signed(part.split("<Sts>").next().unwrap_or_default()));
    (balance(&["OPBD"]), balance(&["CLBD", "ITBD"]), entries.sum())
}

/// Who takes part in which currencies.
async fn members(channel: &Channel) -> Vec<(String, Vec<String>, Timestamp)> {
    let mut client = TokenServiceClient::new(operator(channel));
    let page = Some(Page { size: 1000, token: String::new() });
    let request = ListParticipantsRequest { page, ..ListParticipantsRequest::default() };
    let answer = client.list_participants(request).await.unwrap_or_else(|e| panic!("{e}")).into_inner();
    assert_eq!(answer.next_page_token, "", "a page holds them all");
    let at = |t: prost_types::Timestamp| Timestamp::from_micros(t.seconds * 1_000_000 + i64::from(t.nanos) / 1000);
    answer
        .participants
        .into_iter()
        .map(|p| (p.participant, p.currencies, at(p.registered_at.expect("a time"))))
        .collect()
}

/// What the ledger says.
pub async fn balances(channel: &Channel) -> GetBalancesResponse {
    let mut client = TokenServiceClient::new(operator(channel));
    let answer = client.get_balances(GetBalancesRequest::default()).await;
    answer.unwrap_or_else(|e| panic!("{e}")).into_inner()
}

async fn settled_windows(channel: &Channel) -> Vec<Window> {
    let mut client = ClearingServiceClient::new(operator(channel));
    let mut windows = Vec::new();
    let mut token = String::new();
    loop {
        let request = ListWindowsRequest {
            page: Some(Page { size: 1000, token }),
            states: vec![WindowState::Settled.into()],
            ..ListWindowsRequest::default()
        };
        let answer = client.list_windows(request).await.unwrap_or_else(|e| panic!("{e}")).into_inner();
        windows.extend(answer.windows);
        token = answer.next_page_token;
        if token.is_empty() {
            return windows;
        }
    }
}

/// Ties everything out, from the day of the first participant up to `now`, in UTC. The platform must be at rest.
pub async fn tie_out(channel: &Channel, now: Timestamp) -> TiedOut {
    let mut tied = TiedOut::default();
    let ledger = balances(channel).await;
    let members = members(channel).await;
    let utc = jiff::tz::TimeZone::UTC;
    let first = members.iter().map(|(.., at)| Day::of(*at, &utc)).min().expect("participants");
    let mut days = vec![first];
    while days.last().is_some_and(|day| *day < Day::of(now, &utc)) {
        days.push(days[days.len() - 1].next());
    }

    // Statements: each day begins where the one before ended, the last ends at the ledger's balance.
    let mut by_window: BTreeMap<(String, String), i128> = BTreeMap::new();
    for (participant, currencies, _) in &members {
        for currency in currencies {
            let mut balance = 0;
            for day in &days {
                let subject = ReportSubject {
                    kind: ReportKind::Statement.into(),
                    participant: participant.clone(),
                    currency: currency.clone(),
                    day: day.to_string(),
                    ..ReportSubject::default()
                };
                let (_, files, manifest) = report(channel, subject).await;
                let who = format!("{participant} {currency} {day}");
                let (opening, closing) = (total(&manifest, "opening_minor"), total(&manifest, "closing_minor"));
                assert_eq!(opening, balance, "{who}");
                let (mut sum, mut count) = (0, 0);
                for row in rows(&files["statement.csv"]) {
                    if row["amount"].is_empty() {
                        continue;
                    }
                    let amount = units(&row["amount"], currency);
                    (sum, count) = (sum + amount, count + 1);
                    assert_eq!(units(&row["balance"], currency), opening + sum, "{who}: {row:?}");
                    if !row["window_id"].is_empty() {
                        *by_window.entry((row["window_id"].clone(), participant.clone())).or_default() += amount;
                    }
                }
                assert_eq!(opening + sum, closing, "{who}");
                assert_eq!(camt(&files["statement.camt.053.xml"], currency), (opening, closing, sum), "{who}");
                tied.statements += 1;
                tied.entries += count;
                balance = closing;
            }
            let has = ledger.balances.iter().find(|b| b.participant == *participant && b.currency == *currency);
            let has = has.map_or(0, |b| of(&b.available) + of(&b.reserved));
            assert_eq!(balance, has, "{participant} {currency}: statements and ledger");
        }
    }

    // Settlement reports: clearing's netting sets, the legs that the ledger posted, and the statements' payments.
    let windows = settled_windows(channel).await;
    let sets: BTreeSet<&str> = windows.iter().map(|w| w.netting_set_id.as_str()).collect();
    for set in sets {
        let mut clearing = ClearingServiceClient::new(operator(channel));
        let request = GetNettingSetRequest { netting_set_id: set.to_owned() };
        let frozen = clearing.get_netting_set(request).await.unwrap_or_else(|e| panic!("{e}")).into_inner();
        let frozen = frozen.netting_set.expect("a netting set");
        let subject = ReportSubject {
            kind: ReportKind::Settlement.into(),
            netting_set_id: set.to_owned(),
            ..ReportSubject::default()
        };
        let (_, files, manifest) = report(channel, subject).await;
        assert_eq!(total(&manifest, "gross_minor"), of(&frozen.gross), "{set}");
        assert_eq!(total(&manifest, "moved_minor"), of(&frozen.moved), "{set}");
        assert_eq!(total(&manifest, "count"), i128::from(frozen.count), "{set}");
        let positions: BTreeMap<String, i128> =
            frozen.positions.iter().map(|p| (p.participant.clone(), of(&p.net))).collect();
        let legs: BTreeMap<String, i128> = rows(&files["legs.csv"])
            .into_iter()
            .map(|row| (row["participant"].clone(), units(&row["leg"], &row["currency"])))
            .collect();
        assert_eq!(legs, positions, "{set}: legs and clearing's positions");
        assert_eq!(legs.values().sum::<i128>(), 0, "{set}");
        let mut nets: BTreeMap<String, i128> = BTreeMap::new();
        for row in rows(&files["settlement.csv"]) {
            let net = units(&row["net"], &row["currency"]);
            *nets.entry(row["participant"].clone()).or_default() += net;
            let key = (row["window_id"].clone(), row["participant"].clone());
            assert_eq!(by_window.remove(&key), Some(net), "{key:?}: statement and settlement report");
        }
        assert_eq!(nets, legs, "{set}");
        tied.settlements += 1;
    }
    by_window.retain(|_, net| *net != 0);
    assert_eq!(by_window, BTreeMap::new(), "payments of windows that no settlement report has");

    // Trial balance: debits are credits, and every account is what the ledger says.
    let trial =
        ReportSubject { kind: ReportKind::TrialBalance.into(), verify_ledger: true, ..ReportSubject::default() };
    let (trial, files, manifest) = report(channel, trial).await;
    assert!(!trial.note.contains("differs"), "{}", trial.note);
    let mut accounts: BTreeMap<(String, String, String, String), i128> = BTreeMap::new();
    for row in rows(&files["trial-balance.csv"]) {
        let side = |name: &str| if row[name].is_empty() { 0 } else { units(&row[name], &row["currency"]) };
        let key = |name: &str| row[name].clone();
        accounts.insert(
            (key("currency"), key("account"), key("participant"), key("window_id")),
            side("credit") - side("debit"),
        );
    }
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for ((currency, ..), balance) in &accounts {
        *sums.entry(currency).or_default() += balance;
    }
    for (currency, sum) in sums {
        assert_eq!(sum, 0, "{currency}: debits and credits");
        assert_eq!(manifest.totals[&format!("{currency}_ties")], "yes");
    }
    assert!((1..=8).all(|n| manifest.totals[&format!("L{n}")] == "holds"), "{:?}", manifest.totals);
    tied.accounts = accounts.len();
    let mut said: BTreeMap<(String, String, String, String), i128> = BTreeMap::new();
    for b in &ledger.balances {
        let key = |account: &str, window: &str| {
            (b.currency.clone(), account.to_owned(), b.participant.clone(), window.to_owned())
        };
        said.insert(key("SETTLEMENT", ""), of(&b.available));
        said.insert(key("RESERVED", ""), of(&b.reserved));
        for position in &b.positions {
            said.insert(key("POSITION", &position.window_id), of(&position.net));
        }
    }
    for hub in &ledger.hub {
        let key = |account: &str| (hub.currency.clone(), account.to_owned(), String::new(), String::new());
        said.insert(key("SAFEGUARD"), -of(&hub.safeguard));
        said.insert(key("MULTILATERAL"), of(&hub.multilateral));
        said.insert(key("FEES"), of(&hub.fees));
    }
    said.retain(|_, balance| *balance != 0);
    assert_eq!(accounts, said, "trial balance and ledger");
    tied
}
