//! The whole check at the end of a run: what banks were told against ledger, windows, settlement, feeds and audit ledger.

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::clearing::v1::{
    GetNettingSetRequest, GetPositionsRequest, ListWindowsRequest, NettingSet, Window, WindowState,
};
use deltran_api::common::v1::{Money, NetPosition};
use deltran_api::settlement::v1::{Batch, BatchState, ListBatchesRequest};
use deltran_api::token::v1::submit_item::Result::Outcome;
use deltran_api::token::v1::{
    GetBalancesRequest, ListTransactionsRequest, SettlementModel, TransactionInstruction, TransactionState,
    TransactionView,
};
use deltran_tests::node::{PATIENCE, all_audited, pages, submit_many};
use deltran_tests::tie_out::units;
use deltran_tests::within;

use crate::World;
use crate::ears::{Ears, Heard};
use crate::load::{BANKS, CURRENCIES, DEPOSIT};

type Ledger = BTreeMap<String, TransactionView>;

/// What was counted.
#[derive(Debug, Default)]
pub struct Checked {
    /// Transactions by their state in the ledger at the end.
    pub states: BTreeMap<String, usize>,
    /// Refused ones by the reason that their banks were told.
    pub refused: BTreeMap<String, usize>,
    /// Transactions whose banks knew no outcome when the load was over: those that were in the ledger.
    pub unknown_there: usize,
    /// Those that were not.
    pub unknown_not_there: usize,
    /// Told as committed, and not in the ledger as such.
    pub lost: usize,
    /// In the ledger more than once, or in more than one place of a window.
    pub doubled: usize,
    /// Windows, all settled.
    pub windows: usize,
    /// Settlement batches, all final.
    pub batches: usize,
    /// Leaves of the audit ledger.
    pub leaves: u64,
    /// Notifications.
    pub heard: Heard,
}

/// Checks everything. The load is over and no fault is left.
pub async fn check(world: &World, ears: &Ears) -> Checked {
    let mut checked = Checked::default();
    ask_again(world, &mut checked).await;
    let rig = &world.rig;
    // The ledger's time never goes back: after a jump of the clock it stands until the clock is there again.
    within(PATIENCE * 2, "every reservation to end", async || {
        let request = ListTransactionsRequest { state: TransactionState::Reserved.into(), ..Default::default() };
        let listed = rig.ledger().list_transactions(request).await.ok()?.into_inner();
        listed.transactions.is_empty().then_some(())
    })
    .await;
    within(PATIENCE, "every window to be settled", async || {
        rig.run(&["window", "close", "--all", "--wait"]).await;
        let all = windows(world).await;
        all.iter().all(|window| window.state() == WindowState::Settled).then_some(())
    })
    .await;
    let ledger = ledger(world, TransactionState::Unspecified).await;
    compare(world, &ledger, &mut checked);
    netted(world, &ledger, &mut checked).await;
    balances(world, &ledger).await;

    within(PATIENCE, "every event in the audit ledger", async || {
        let engines = rig.status().await?;
        all_audited(&engines).then_some(())
    })
    .await;
    let verified = rig.must(&["account", "verify"]).await;
    let holding = verified["results"].as_array().map_or(0, |r| r.iter().filter(|r| r["holds"] == true).count());
    if holding != 8 {
        world.journal.breach(format!("{holding} of L1 to L8 hold: {verified:#}"));
    }
    // The broker copies a stream that was made anew again after a while of its own.
    let audited = within(PATIENCE, "the audit ledger to verify", async || {
        let ran = rig.run(&["audit", "verify"]).await;
        if ran.code != 0 {
            println!("{}{}", ran.out, ran.error);
        }
        (ran.code == 0).then_some(ran.json)
    })
    .await;
    checked.leaves = audited["leaves"].as_u64().or_else(|| audited["tree_size"].as_u64()).unwrap_or_default();
    let reconciled = rig.run(&["audit", "reconcile"]).await;
    if reconciled.json["ok"] != true || reconciled.json["differences"] != 0 {
        world.journal.breach(format!("reconcile: {}{}", reconciled.out, reconciled.error));
    }
    checked.heard = ears.compare(world).await;
    for line in rig.panics() {
        world.journal.breach(line);
    }
    checked
}

/// Transactions whose outcome no bank knows are in the ledger or not, and sending them again tells which.
async fn ask_again(world: &World, checked: &mut Checked) {
    let ledger = ledger(world, TransactionState::Unspecified).await;
    let mut open: BTreeMap<String, Vec<TransactionInstruction>> = BTreeMap::new();
    for entry in world.journal.entries().into_values().filter(|entry| entry.told.is_none()) {
        open.entry(entry.sent.payer.clone()).or_default().push(entry.sent);
    }
    for (bank, transactions) in open {
        let mut client = world.rig.bank_on(&world.rig.channel(), &bank);
        for some in transactions.chunks(200) {
            let items = within(PATIENCE, "an outcome for each", async || {
                let items = submit_many(&mut client, some.to_vec()).await.ok()?;
                items.iter().all(|item| matches!(item.result, Some(Outcome(_)))).then_some(items)
            })
            .await;
            world.journal.sending(some);
            for item in items {
                let there = ledger.contains_key(&item.transaction_id);
                *(if there { &mut checked.unknown_there } else { &mut checked.unknown_not_there }) += 1;
                if item.replayed != there {
                    world.journal.breach(format!("in the ledger: {there}; sent again: {item:?}"));
                }
                if let Some(Outcome(outcome)) = item.result {
                    world.journal.told(outcome, item.replayed);
                }
            }
        }
    }
}

/// What banks were told is what the ledger has.
fn compare(world: &World, ledger: &Ledger, checked: &mut Checked) {
    let entries = world.journal.entries();
    for id in ledger.keys().filter(|id| !entries.contains_key(*id)) {
        world.journal.breach(format!("{id} is in the ledger, and nobody sent it"));
    }
    let mut places: BTreeSet<(&str, u64)> = BTreeSet::new();
    for (id, entry) in &entries {
        let told = entry.told.as_ref().expect("asked again until each was told");
        let Some(view) = ledger.get(id) else {
            checked.lost += 1;
            world.journal.breach(format!("lost: {told:?}"));
            continue;
        };
        *checked.states.entry(format!("{:?}", view.state())).or_default() += 1;
        let sent = &entry.sent;
        if (&view.payer, &view.payee, &view.amount) != (&sent.payer, &sent.payee, &sent.amount) {
            world.journal.breach(format!("sent {sent:?}, in the ledger {view:?}"));
        }
        let as_told = match told.state() {
            TransactionState::Committed => {
                let there = view.state() == TransactionState::Committed
                    && (&view.window_id, view.window_seq) == (&told.window_id, told.window_seq);
                checked.lost += usize::from(!there);
                there
            }
            TransactionState::Rejected => {
                let reason = told.refusal.as_ref().map(|refusal| refusal.code.clone()).unwrap_or_default();
                *checked.refused.entry(reason).or_default() += 1;
                view.state() == TransactionState::Rejected
            }
            TransactionState::Reserved => {
                use TransactionState::{Cancelled, Committed, Expired};
                [Committed, Cancelled, Expired].contains(&view.state())
                    && entry.ended.is_none_or(|ended| ended == view.state())
            }
            _ => false,
        };
        if !as_told {
            world.journal.breach(format!("told {told:?} and {:?}, in the ledger {view:?}", entry.ended));
        }
        if !view.window_id.is_empty() && !places.insert((&view.window_id, view.window_seq)) {
            checked.doubled += 1;
            world.journal.breach(format!("a place of a window taken twice: {view:?}"));
        }
        if (view.state() == TransactionState::Committed) != view.settled {
            world.journal.breach(format!("settled or not: {view:?}"));
        }
    }
}

/// Windows, netting sets and batches are exactly what the ledger's transactions make.
async fn netted(world: &World, ledger: &Ledger, checked: &mut Checked) {
    let mut by_window: BTreeMap<&str, Vec<&TransactionView>> = BTreeMap::new();
    for view in ledger.values().filter(|view| is_net(view)) {
        by_window.entry(&view.window_id).or_default().push(view);
    }
    let windows = windows(world).await;
    let mut sets: BTreeMap<String, (u64, i128, BTreeMap<String, i128>)> = BTreeMap::new();
    for window in &windows {
        let views = by_window.remove(window.window_id.as_str()).unwrap_or_default();
        let count = views.len() as u64;
        let gross: i128 = views.iter().map(|view| of(&view.amount)).sum();
        let said = (window.count, of(&window.gross), window.sealed_count, of(&window.sealed_gross));
        if said != (count, gross, count, gross) {
            world.journal.breach(format!("{count} transactions of {gross} in all, and {window:?}"));
        }
        let seqs: BTreeSet<u64> = views.iter().map(|view| view.window_seq).collect();
        if !seqs.iter().copied().eq(1..=count) {
            world.journal.breach(format!("places are not dense: {window:?}"));
        }
        let request = GetPositionsRequest { window_id: window.window_id.clone(), ..Default::default() };
        let positions = world.rig.clearing().get_positions(request).await.unwrap().into_inner().positions;
        let expected = nets(&views);
        if by_bank(&positions) != expected {
            world.journal.breach(format!("nets are {expected:?}, and positions {positions:?}"));
        }
        let set = sets.entry(window.netting_set_id.clone()).or_default();
        set.0 += count;
        set.1 += gross;
        for (bank, net) in expected {
            *set.2.entry(bank).or_default() += net;
        }
    }
    if !by_window.is_empty() {
        world.journal.breach(format!("windows that clearing does not know: {:?}", by_window.keys()));
    }
    for (id, (count, gross, mut nets)) in sets.clone() {
        let request = GetNettingSetRequest { netting_set_id: id.clone() };
        let set: NettingSet =
            world.rig.clearing().get_netting_set(request).await.unwrap().into_inner().netting_set.unwrap_or_default();
        nets.retain(|_, net| *net != 0);
        if (set.count, of(&set.gross), by_bank(&set.positions)) != (count, gross, nets.clone()) {
            world.journal.breach(format!("{count} transactions of {gross} make {nets:?}, and {set:?}"));
        }
    }
    let batches = batches(world).await;
    let final_sets: BTreeSet<&String> =
        batches.iter().filter(|batch| batch.state() == BatchState::Settled).map(|b| &b.netting_set_id).collect();
    if batches.len() != sets.len() || !final_sets.into_iter().eq(sets.keys()) {
        world.journal.breach(format!("{} netting sets, and batches {batches:?}", sets.len()));
    }
    (checked.windows, checked.batches) = (windows.len(), batches.len());
}

/// What each bank owns is its deposit and what it was paid, less what it paid; nothing is left on the way.
async fn balances(world: &World, ledger: &Ledger) {
    let mut expected: BTreeMap<(String, String), i128> = BTreeMap::new();
    for bank in BANKS {
        for currency in CURRENCIES {
            expected.insert((bank.to_owned(), currency.to_owned()), units(DEPOSIT, currency));
        }
    }
    for view in ledger.values().filter(|view| view.state() == TransactionState::Committed) {
        let amount = view.amount.clone().unwrap_or_default();
        for (bank, sign) in [(&view.payer, -1), (&view.payee, 1)] {
            let key = (bank.clone(), amount.currency.clone());
            *expected.get_mut(&key).expect("a bank of the run") += sign * units(&amount.amount, &amount.currency);
        }
    }
    let all = world.rig.ledger().get_balances(GetBalancesRequest::default()).await.unwrap().into_inner();
    let owned: BTreeMap<(String, String), i128> = all
        .balances
        .iter()
        .map(|balance| ((balance.participant.clone(), balance.currency.clone()), of(&balance.available)))
        .collect();
    if owned != expected {
        world.journal.breach(format!("balances are {owned:?}, and should be {expected:?}"));
    }
    for balance in &all.balances {
        let open = balance.positions.iter().any(|position| of(&position.net) != 0);
        if of(&balance.reserved) != 0 || of(&balance.cap_used) != 0 || open {
            world.journal.breach(format!("something is left: {balance:?}"));
        }
    }
    for hub in &all.hub {
        let sum: i128 = owned.iter().filter(|((_, currency), _)| *currency == hub.currency).map(|(_, n)| n).sum();
        if of(&hub.multilateral) != 0 || of(&hub.safeguard) != sum {
            world.journal.breach(format!("banks own {sum}, and {hub:?}"));
        }
    }
}

fn is_net(view: &TransactionView) -> bool {
    view.state() == TransactionState::Committed && view.model() != SettlementModel::Gross
}

fn nets(views: &[&TransactionView]) -> BTreeMap<String, i128> {
    let mut nets = BTreeMap::new();
    for view in views {
        *nets.entry(view.payer.clone()).or_default() -= of(&view.amount);
        *nets.entry(view.payee.clone()).or_default() += of(&view.amount);
    }
    nets.retain(|_, net| *net != 0);
    nets
}

fn by_bank(positions: &[NetPosition]) -> BTreeMap<String, i128> {
    positions.iter().map(|p| (p.participant.clone(), of(&p.net))).filter(|(_, net)| *net != 0).collect()
}

fn of(money: &Option<Money>) -> i128 {
    money.as_ref().map_or(0, |money| units(&money.amount, &money.currency))
}

/// Every transaction of the ledger.
async fn ledger(world: &World, state: TransactionState) -> Ledger {
    let mut client = world.rig.ledger();
    let listed = pages(async |page| {
        let request = ListTransactionsRequest { page, state: state.into(), ..Default::default() };
        let answer = client.list_transactions(request).await.expect("transactions are listed").into_inner();
        (answer.transactions, answer.next_page_token)
    });
    let mut all = Ledger::new();
    for view in listed.await {
        if let Some(twice) = all.insert(view.transaction_id.clone(), view) {
            world.journal.breach(format!("listed twice: {twice:?}"));
        }
    }
    all
}

async fn windows(world: &World) -> Vec<Window> {
    let mut client = world.rig.clearing();
    pages(async |page| {
        let request = ListWindowsRequest { page, ..Default::default() };
        let answer = client.list_windows(request).await.expect("windows are listed").into_inner();
        (answer.windows, answer.next_page_token)
    })
    .await
}

async fn batches(world: &World) -> Vec<Batch> {
    let mut client = world.rig.settlement();
    pages(async |page| {
        let request = ListBatchesRequest { page, ..Default::default() };
        let answer = client.list_batches(request).await.expect("batches are listed").into_inner();
        (answer.batches, answer.next_page_token)
    })
    .await
}
