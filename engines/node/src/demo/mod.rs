//! `deltran demo`: one clearing day on private servers, shown and verified.

mod check;
mod day;
pub mod node;
mod officers;
mod reports;
mod sink;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use deltran_api::clearing::v1::{GetNettingSetRequest, ListWindowsRequest, NettingSet, Window, WindowState};
use deltran_api::settlement::v1::{Batch, BatchState, FundingStatusRequest, ListBatchesRequest};
use deltran_runtime::boot::stop_signal;
use serde_json::Value;

use crate::client::{ClientArgs, Session};
use crate::output::{Output, amount, count, money, say, sheet, table, time};
use crate::problem::Problem;
use crate::stage;
use check::{Checks, Expected, expected, minor};
use day::{CURRENCIES, Day, SHORT};
use node::Node;
use told::Told;

/// The day's configuration, which says as well that a folder is a demo's.
const CONFIG: &str = "demo.toml";
/// Between two looks at the platform.
const LOOK: Duration = Duration::from_millis(200);
/// Every wait for the platform ends by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// Run the platform through one clearing day, and verify it
#[derive(Debug, Args)]
#[command(
    after_help = "Starts a platform of its own on free ports, imports 24 banks, submits a day of payments in three \
currencies, has
officers decide holds, a cap and a breaker, tells a bank by webhook, closes the windows, settles, reports and verifies. Ends
with 1 if any check fails. The folder is emptied first and left for a look, as are the reports.

Examples:
  deltran demo
  deltran demo --payments 5000 --seed 7"
)]
pub struct DemoArgs {
    /// Where the day is kept; emptied first
    #[arg(long, value_name = "DIR", default_value = "./data/demo")]
    data: PathBuf,
    /// Where the reports are left
    #[arg(long, value_name = "DIR", default_value = "./data/reports")]
    reports: PathBuf,
    /// Number of payments
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(2_000..=1_000_000))]
    payments: u32,
    /// The day's seed
    #[arg(long, default_value_t = 20_261_120)]
    seed: u64,
}

/// Runs the day.
///
/// # Errors
/// Where it cannot be run, or a check fails.
pub async fn run(args: DemoArgs, out: Output) -> Result<(), Problem> {
    let stop = stop_signal().map_err(|e| Problem::refused(format!("signals: {e}")))?;
    let day = Day::generate(args.seed, args.payments).map_err(Problem::refused)?;
    let config = prepare(&args.data, &day)?;
    let node = Node::start(&args.data.join("node"), &config).await?;
    say(&format!("The platform runs at {}, its pages at {}.", node.endpoint, node.http));
    for note in &node.notes {
        say(&format!("  {note}"));
    }
    let shown = tokio::select! {
        shown = show(&args, &day, &node) => shown,
        () = stop => Err(Problem::refused("stopped")),
    };
    let stopped = node.stop().await;
    let checks = shown?;
    stopped?;
    let failed = checks.failed();
    out.value_or(&serde_json::json!({ "checks": checks.rows().collect::<Vec<_>>(), "failed": failed }), || {
        table(["check", "result", "found"], checks.rows())
    });
    if failed == 0 { Ok(()) } else { Err(Problem::refused(format!("{failed} checks failed"))) }
}

/// An empty folder with the day's files and the configuration.
fn prepare(folder: &Path, day: &Day) -> Result<PathBuf, Problem> {
    let failed = |e: std::io::Error| Problem::refused(format!("{}: {e}", folder.display()));
    stage::empty(folder, CONFIG, "a demo")?;
    std::fs::create_dir_all(folder.join("node")).map_err(failed)?;
    day.write(folder).map_err(failed)?;
    let config = folder.join(CONFIG);
    let currencies = CURRENCIES.map(|c| format!("\"{c}\"")).join(", ");
    let text = format!(
        "deployment = \"demo\"\n\n[[clearing.schedules]]\nname = \"manual\"\nmode = \"manual\"\ncurrencies = [{currencies}]\n\n\
         [settlement]\nfunding_deadline_seconds = 300\n"
    );
    std::fs::write(&config, text).map_err(failed)?;
    Ok(config)
}

async fn show(args: &DemoArgs, day: &Day, node: &Node) -> Result<Checks, Problem> {
    let mut checks = Checks::default();
    let session = Session::open(&ClientArgs::at(&node.endpoint), Output { json: false }).await?;
    let short = day.banks[SHORT].to_string();
    let path = |name: &str| args.data.join(name).display().to_string();

    node.must(&["participant", "import", "--file", &path("participants.csv")]).await?;
    say(&format!("\n{} banks are in, with deposits and caps in {}.", day.banks.len(), CURRENCIES.join(", ")));
    let collateral_id = "0190c3d5-0000-7000-8000-00000000c011";
    for user in ["risk-1", "risk-2"] {
        let command = [
            "account",
            "collateral",
            "--participant",
            &short,
            "--policy",
            "collateral",
            "--amount",
            "1000000.00",
            "--currency",
            "USD",
            "--id",
            collateral_id,
            "--user",
            user,
        ];
        node.must(&command).await?;
    }
    node.must(&["window", "open", "--currency", &CURRENCIES.join(",")]).await?;
    let told = Told::begin(node, &day.banks[0].to_string()).await?;

    let refused_path = path("refused.csv");
    let (submitted, code) =
        node.run(&["transaction", "submit", "--file", &path("day.csv"), "--report", &refused_path]).await?;
    show_submission(&submitted);
    let number = |key: &str| submitted[key].as_u64().unwrap_or_default();
    let reason = |key: &str| submitted["refused_by_reason"][key].as_u64().unwrap_or_default();
    let lines = day.payments.len() as u64 + day.bad;
    checks.same("every line of the file was decided", number("lines"), lines);
    checks.same("lines that cannot be used were refused", number("malformed"), day.bad);
    checks.same("the conflicting id was refused", reason("conflict"), day.conflicts.len() as u64);
    checks.same("the duplicate got the first answer", number("replayed"), day.duplicates.len() as u64);
    checks.same("the name on the list is held", number("held"), 1);
    checks.check("the bank over its cap was refused", reason("cap") > 0, format!("{} times", reason("cap")));
    checks.same("nothing else was refused", number("refused"), reason("cap") + reason("conflict"));
    checks.same("the command said that lines were refused", i64::from(code), 1);

    let beside = officers::work(node, day, &mut checks).await?;

    node.must(&["window", "close", "--all"]).await?;
    let waiting = wait("a batch that awaits funds", async || {
        let batches = batches(&session).await?;
        Ok(batches.into_iter().find(|b| b.state() == BatchState::AwaitingFunds))
    })
    .await?;
    show_funding(&session, &waiting).await?;
    let deposit = [
        "account",
        "deposit",
        "--participant",
        &short,
        "--amount",
        "1000000.00",
        "--currency",
        "USD",
        "--reference",
        "top-up",
    ];
    node.must(&deposit).await?;
    say(&format!("{short} tops up in time."));
    let windows = wait("every window settled", async || {
        let windows = windows(&session).await?;
        let done = windows.iter().all(|w| w.state() == WindowState::Settled);
        Ok(Some(windows).filter(|_| done))
    })
    .await?;
    let expected = expected(day, &refused_lines(Path::new(&refused_path))?, &beside)
        .map_err(|e| Problem::refused(e.to_string()))?;
    compare(&session, day, &windows, &expected, &mut checks).await?;
    told.end(node, &mut checks).await?;
    reports::write(node, &args.reports, &windows, day.banks[0], &expected, &mut checks).await?;
    verify(node, &mut checks).await?;
    Ok(checks)
}

fn show_submission(submitted: &Value) {
    let number = |key: &str| count(submitted[key].as_u64().unwrap_or_default());
    let mut rows =
        vec![("lines", number("lines")), ("accepted", number("accepted")), ("  held for review", number("held"))];
    let reasons: Vec<(String, String)> = submitted["refused_by_reason"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, lines)| (format!("refused: {reason}"), count(lines.as_u64().unwrap_or_default())))
        .collect();
    rows.extend(reasons.iter().map(|(reason, lines)| (reason.as_str(), lines.clone())));
    rows.push(("could not be used", number("malformed")));
    rows.push(("answered before", number("replayed")));
    rows.push(("throughput", format!("{} transactions/s, file to committed", number("per_second"))));
    say(&format!("\nA day of payments\n{}", sheet(rows)));
}

async fn windows(session: &Session) -> Result<Vec<Window>, Problem> {
    let request = ListWindowsRequest::default();
    Ok(session.clearing(session.operator()?).list_windows(request).await?.into_inner().windows)
}

async fn batches(session: &Session) -> Result<Vec<Batch>, Problem> {
    let request = ListBatchesRequest::default();
    Ok(session.settlement(session.operator()?).list_batches(request).await?.into_inner().batches)
}

async fn show_funding(session: &Session, batch: &Batch) -> Result<(), Problem> {
    let request = FundingStatusRequest { batch_id: batch.batch_id.clone() };
    let funding = session.settlement(session.operator()?).funding_status(request).await?.into_inner();
    let lacking = funding.debtors.iter().filter(|d| minor(&d.missing).is_some_and(|m| m.is_positive()));
    let rows = lacking.map(|d| [d.participant.clone(), money(&d.required), money(&d.reserved), money(&d.missing)]);
    say(&format!(
        "\nAwaiting funds until {}\n{}",
        time(&batch.funding_deadline),
        table(["debtor", "owes", "has locked", "lacks"], rows)
    ));
    Ok(())
}

/// Windows, netting and settlement against what the files say.
async fn compare(
    session: &Session,
    day: &Day,
    windows: &[Window],
    expected: &BTreeMap<String, Expected>,
    checks: &mut Checks,
) -> Result<(), Problem> {
    let mut sets: BTreeMap<String, NettingSet> = BTreeMap::new();
    for window in windows {
        let request = GetNettingSetRequest { netting_set_id: window.netting_set_id.clone() };
        let set = session.clearing(session.operator()?).get_netting_set(request).await?.into_inner().netting_set;
        sets.extend(set.map(|s| (s.currency.clone(), s)));
    }
    let batches: BTreeMap<String, Batch> =
        batches(session).await?.into_iter().map(|b| (b.currency.clone(), b)).collect();
    let rows = windows.iter().map(|w| {
        let (set, batch) = (sets.get(&w.currency), batches.get(&w.currency));
        let efficiency = set.map(|s| format!("{}.{:02} %", s.efficiency / 100, s.efficiency % 100)).unwrap_or_default();
        [
            w.currency.clone(),
            count(w.count),
            amount(&w.gross),
            set.map(|s| amount(&s.moved)).unwrap_or_default(),
            efficiency,
            set.map(|s| s.largest_debtor.clone()).unwrap_or_default(),
            batch.map(|b| time(&b.final_at)).unwrap_or_default(),
        ]
    });
    let header = ["window", "payments", "gross", "moved", "efficiency", "largest debtor", "final at"];
    say(&format!("\nWindows, netting and settlement\n{}", table(header, rows)));
    say(&format!("\nNet positions\n{}", positions(day, &sets)));

    for currency in CURRENCIES {
        let Some(expected) = expected.get(currency) else { continue };
        let window = windows.iter().find(|w| w.currency == currency);
        let set = sets.get(currency);
        checks.same(
            &format!("{currency}: payments in the window"),
            window.map(|w| w.count).unwrap_or_default(),
            expected.count,
        );
        let gross = window.and_then(|w| minor(&w.gross));
        checks.check(
            &format!("{currency}: gross"),
            gross == Some(expected.gross),
            window.map(|w| money(&w.gross)).unwrap_or_default(),
        );
        let mut net = BTreeMap::new();
        for position in set.iter().flat_map(|s| &s.positions) {
            if let (Ok(bank), Some(value)) = (position.participant.parse(), minor(&position.net)) {
                net.insert(bank, value);
            }
        }
        net.retain(|_, value| !value.is_zero());
        checks.check(
            &format!("{currency}: net position of every bank"),
            net == expected.net,
            format!("{} banks", net.len()),
        );
        let settled = batches.get(currency).is_some_and(|b| b.state() == BatchState::Settled && b.final_at.is_some());
        checks.check(
            &format!("{currency}: settled with finality"),
            settled,
            batches.get(currency).map(|b| time(&b.final_at)).unwrap_or_default(),
        );
    }
    Ok(())
}

fn positions(day: &Day, sets: &BTreeMap<String, NettingSet>) -> String {
    let rows = day.banks.iter().map(|bank| {
        let of = |currency: &str| {
            let position = sets.get(currency).and_then(|s| s.positions.iter().find(|p| p.participant == bank.as_str()));
            position.map(|p| amount(&p.net)).unwrap_or_default()
        };
        [bank.to_string(), of(CURRENCIES[0]), of(CURRENCIES[1]), of(CURRENCIES[2])]
    });
    table(["bank", CURRENCIES[0], CURRENCIES[1], CURRENCIES[2]], rows)
}

async fn verify(node: &Node, checks: &mut Checks) -> Result<(), Problem> {
    let (ledger, code) = node.run(&["account", "verify"]).await?;
    let results = ledger["results"].as_array().cloned().unwrap_or_default();
    let holding = results.iter().filter(|r| r["holds"] == true).count();
    checks.check("the ledger's invariants L1 to L8 hold", code == 0 && holding == 8, format!("{holding} of 8"));
    let (audit, code) = node.run(&["audit", "verify"]).await?;
    let report = if audit["report"].is_object() { &audit["report"] } else { &audit };
    let leaves = report["leaves"].as_u64().or_else(|| report["leaves"].as_str()?.parse().ok()).unwrap_or_default();
    checks.check(
        "the audit ledger is dense, complete and agrees with producers, streams and ledger",
        code == 0,
        format!("{} events", count(leaves)),
    );
    Ok(())
}

/// Numbers of the lines that the platform refused.
fn refused_lines(report: &Path) -> Result<BTreeSet<u64>, Problem> {
    let failed = |e: &dyn std::fmt::Display| Problem::refused(format!("{}: {e}", report.display()));
    let mut reader = csv::Reader::from_path(report).map_err(|e| failed(&e))?;
    let mut lines = BTreeSet::new();
    for record in reader.records() {
        let record = record.map_err(|e| failed(&e))?;
        lines.extend(record.get(0).and_then(|line| line.parse::<u64>().ok()));
    }
    Ok(lines)
}

/// Asks until there is an answer, or patience ends.
async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>, Problem>) -> Result<T, Problem> {
    stage::until(what, LOOK, PATIENCE, async || ask().await.transpose()).await?
}
