//! What officers do in the day: two holds, a cap, a breaker. Each step that four eyes or a limit must refuse is tried.

use deltran_kernel::{Minor, Money};
use serde_json::Value;

use super::check::Checks;
use super::day::{Day, Payment, TIGHT};
use super::node::Node;
use crate::problem::Problem;

/// Like the name on the list, and not the same.
const NAMESAKE: &str = "Vostok Shadow Tradings";
const NAMESAKE_ID: &str = "0190c3d5-0000-7000-8000-00000000d001";
const ABOVE_CAP_ID: &str = "0190c3d5-0000-7000-8000-00000000d002";
const WITHIN_CAP_ID: &str = "0190c3d5-0000-7000-8000-00000000d003";
const STOPPED_ID: &str = "0190c3d5-0000-7000-8000-00000000d004";
const GOING_ON_ID: &str = "0190c3d5-0000-7000-8000-00000000d005";
const CAP_ID: &str = "0190c3d5-0000-7000-8000-00000000d0c1";
/// Above the tight cap and whatever that bank has received, in whole units, and below its raised cap and its funds.
const LARGE: i128 = 900_000;

/// Goes through the scenes; the payments that they add to the day.
///
/// # Errors
/// Where a command that must succeed does not.
pub async fn work(node: &Node, day: &Day, checks: &mut Checks) -> Result<Vec<Payment>, Problem> {
    let namesake = payment(day, [1, 2], 1_234, "USD")?;
    let large = payment(day, [TIGHT, TIGHT + 1], LARGE, "USD")?;
    let dinars = payment(day, [1, 2], 77, "BHD")?;
    holds(node, &namesake, checks).await?;
    cap(node, &large, checks).await?;
    breaker(node, &dinars, checks).await?;
    Ok(vec![namesake, large, dinars])
}

fn payment(day: &Day, [payer, payee]: [usize; 2], whole: i128, currency: &str) -> Result<Payment, Problem> {
    let currency: deltran_kernel::Currency = currency.parse().map_err(|e| Problem::refused(format!("{e}")))?;
    let units = whole * 10i128.pow(currency.minor_digits());
    let amount = Money::new(Minor::new(units).map_err(|e| Problem::refused(e.to_string()))?, currency);
    // No line of the file: refusals of lines do not concern it.
    Ok(Payment { line: 0, payer: day.banks[payer], payee: day.banks[payee], amount, listed: false })
}

/// Submits one payment; the state that it got and the reason where it was refused.
async fn submit(node: &Node, id: &str, payment: &Payment, name: &str) -> Result<(String, String), Problem> {
    let (payer, payee) = (payment.payer.to_string(), payment.payee.to_string());
    let (amount, currency) = (payment.amount.amount().to_string(), payment.amount.currency().to_string());
    let mut args = vec!["transaction", "submit", "--payer", &payer, "--payee", &payee, "--amount", &amount];
    args.extend(["--currency", &currency, "--id", id]);
    if !name.is_empty() {
        args.extend(["--beneficiary-name", name]);
    }
    let (answer, _) = node.run(&args).await?;
    let outcome = &answer["outcome"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((word(&outcome["state"]), word(&outcome["refusal"]["code"])))
}

async fn state_of(node: &Node, id: &str) -> Result<String, Problem> {
    let view = node.must(&["transaction", "show", id]).await?;
    let view = if view["transaction"].is_object() { &view["transaction"] } else { &view };
    Ok(view["state"].as_str().unwrap_or_default().to_owned())
}

struct Held {
    hold: String,
    transaction: String,
}

async fn placed(node: &Node) -> Result<Vec<Held>, Problem> {
    let answer = node.must(&["hold", "list", "--state", "PLACED", "--limit", "0"]).await?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let holds = answer["holds"].as_array().into_iter().flatten();
    Ok(holds.map(|h| Held { hold: word(&h["hold_id"]), transaction: word(&h["transaction_id"]) }).collect())
}

/// The name on the list that came with the file is a true hit: rejected. One that is only like it: released.
async fn holds(node: &Node, namesake: &Payment, checks: &mut Checks) -> Result<(), Problem> {
    for held in placed(node).await? {
        decide(node, &held.hold, "--reject", "the party on the list", checks).await?;
        checks.check(
            "the true hit was rejected by two officers",
            state_of(node, &held.transaction).await? == "REJECTED",
            held.transaction,
        );
    }
    let (state, _) = submit(node, NAMESAKE_ID, namesake, NAMESAKE).await?;
    checks.check("a name like one on the list is held", state == "HELD", format!("{NAMESAKE}: {state}"));
    for held in placed(node).await? {
        decide(node, &held.hold, "--release", "another company of a like name", checks).await?;
    }
    let state = state_of(node, NAMESAKE_ID).await?;
    checks.check("the false hit was released by a second officer and settles", state == "COMMITTED", state);
    Ok(())
}

async fn decide(node: &Node, hold: &str, what: &str, reason: &str, checks: &mut Checks) -> Result<(), Problem> {
    node.must(&["hold", "propose", hold, what, "--reason", reason, "--user", "grace"]).await?;
    let (refused, said) = node.refused(&["hold", "decide", hold, "--approve", "--user", "grace"]).await?;
    checks.check("who proposed what becomes of a hold cannot decide it", refused, said);
    node.must(&["hold", "decide", hold, "--approve", "--user", "alan"]).await?;
    Ok(())
}

/// A payment above the cap is refused; two people raise the cap, and it passes under a new id.
async fn cap(node: &Node, large: &Payment, checks: &mut Checks) -> Result<(), Problem> {
    let (state, code) = submit(node, ABOVE_CAP_ID, large, "").await?;
    checks.check("a payment above the cap is refused", state == "REJECTED" && code == "cap", format!("{state} {code}"));
    let payer = large.payer.to_string();
    let propose = [
        "limit",
        "propose",
        "--kind",
        "net-debit-cap",
        "--participant",
        &payer,
        "--amount",
        "1000000.00",
        "--currency",
        "USD",
        "--reason",
        "collateral was raised",
        "--id",
        CAP_ID,
        "--user",
        "risk-1",
    ];
    node.must(&propose).await?;
    let (refused, said) = node.refused(&["limit", "approve", CAP_ID, "--user", "risk-1"]).await?;
    checks.check("who proposed a cap cannot approve it", refused, said);
    node.must(&["limit", "approve", CAP_ID, "--user", "risk-2"]).await?;
    let (state, code) = submit(node, WITHIN_CAP_ID, large, "").await?;
    checks.check("under the raised cap it passes", state == "COMMITTED", format!("{state} {code}"));
    Ok(())
}

/// A currency is stopped and goes on.
async fn breaker(node: &Node, payment: &Payment, checks: &mut Checks) -> Result<(), Problem> {
    let scope = format!("currency:{}", payment.amount.currency());
    node.must(&["breaker", "trip", &scope, "--reason", "reference rate missing", "--user", "risk-1"]).await?;
    let (state, code) = submit(node, STOPPED_ID, payment, "").await?;
    let stopped = state == "REJECTED" && code == "breaker_open";
    checks.check("while its breaker is open a currency stands still", stopped, format!("{state} {code}"));
    node.must(&["breaker", "close", &scope, "--reason", "rate is back", "--user", "risk-2"]).await?;
    let (state, code) = submit(node, GOING_ON_ID, payment, "").await?;
    checks.check("once it is closed the currency goes on", state == "COMMITTED", format!("{state} {code}"));
    Ok(())
}
