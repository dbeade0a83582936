//! What single steps of the core cost, without servers: `cargo bench -p deltran-tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deltran_audit::domain::merkle::Frontier;
use deltran_audit::domain::tile::Additions;
use deltran_audit::domain::{LeafHash, leaf_hash};
use deltran_clearing::domain::netting::{PairTotal, net};
use deltran_compliance::domain::list::{Files, Source, parse};
use deltran_compliance::domain::matcher::{Matcher, Subject};
use deltran_events::data::transactions::{Evidence, SettlementModel, TransactionCreated, TransactionState};
use deltran_events::{Context, Envelope, Event, Json, Stamp, encode};
use deltran_kernel::{
    CommandId, Currency, EventId, IdSource, Minor, Money, ParticipantId, SeededIds, Timestamp, TransactionId, WindowId,
};
use deltran_token::domain::command::{By, Command, Gates, Instruction, ParticipantState, Priority, ScreeningDecision};
use deltran_token::domain::ledger::Ledger;

const AT: Timestamp = Timestamp::from_micros(1_762_430_400_000_000);
const SUBJECT: &str = "events.transactions.transaction.created";
const BANKS: usize = 50;
const PAYMENTS: usize = 1_000;

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn money(minor: i128) -> Money {
    Money::new(Minor::new(minor).unwrap(), usd())
}

fn bank(n: usize) -> ParticipantId {
    let letter = |n: usize| char::from(b'A' + (n % 26) as u8);
    format!("B{}{}{}DEFF", letter(n / 676), letter(n / 26), letter(n)).parse().unwrap()
}

/// A ledger with banks that have tokens and caps, and an open window.
fn ledger(ids: &SeededIds) -> Ledger {
    let mut ledger = Ledger::default();
    let by = By::default;
    for participant in (0..BANKS).map(bank) {
        let next = || (CommandId::new(ids.next_id(AT)), [0; 32]);
        let (id, hash) = next();
        let mut commands = vec![Command::Register { id, hash, participant, name: "Bank".into(), by: by() }];
        let (id, hash) = next();
        let state = ParticipantState::Active;
        commands.push(Command::SetState { id, hash, participant, state, reason: String::new(), by: by() });
        let (id, hash) = next();
        commands.push(Command::EnableCurrency { id, hash, participant, currency: usd(), by: by() });
        let (id, hash) = next();
        let amount = money(90_000_000_000_000);
        commands.push(Command::Deposit { id, hash, participant, amount, reference: "r".into(), by: by() });
        let (id, hash) = next();
        commands.push(Command::SetLimit { id, hash, participant, cap: money(80_000_000_000_000), by: by() });
        for command in commands {
            ledger.execute(command, AT).unwrap();
        }
    }
    ledger.execute(Command::OpenWindow { id: WindowId::new(ids.next_id(AT)), currency: usd() }, AT).unwrap();
    let _written = ledger.take_effects();
    ledger
}

fn payments(ids: &SeededIds) -> Vec<Command> {
    let payment = |n: usize| {
        let instruction = Instruction {
            id: TransactionId::new(ids.next_id(AT)),
            payer: bank(n % BANKS),
            payee: bank((n * 7 + 1 + n % BANKS) % BANKS),
            amount: money(1_000 + n as i128),
            model: SettlementModel::NetMultilateral,
            priority: Priority::Normal,
            end_to_end_id: format!("E{n}"),
            uetr: None,
            purpose: String::new(),
            reserve_for: None,
            return_of: None,
            body_hash: [0; 32],
        };
        let gates = Gates {
            decision: ScreeningDecision::Approve,
            evidence: "no_match".into(),
            list_versions: vec!["bundled@1".into()],
            rule_version: "names/1".into(),
            screening_score: 0,
            risk_refusal: None,
            risk_version: 1,
            risk_window: None,
            turn: 0,
        };
        Command::Submit { instruction: Box::new(instruction), gates: Ok(Box::new(gates)), by: By::default() }
    };
    (0..PAYMENTS).map(payment).collect()
}

fn decisions(c: &mut Criterion) {
    let ids = SeededIds::new(1);
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(PAYMENTS as u64));
    group.bench_function("decide 1000 payments", |b| {
        b.iter_batched(
            || (ledger(&ids), payments(&ids)),
            |(mut ledger, commands)| {
                for command in commands {
                    let _decided = black_box(ledger.execute(command, AT));
                }
                let effects = ledger.take_effects();
                (ledger, effects)
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn created(ids: &SeededIds) -> (Event, Context) {
    let id = TransactionId::new(ids.next_id(AT));
    let event = TransactionCreated {
        transaction_id: id,
        payer: bank(1),
        payee: bank(2),
        amount: money(123_456).into(),
        currency: usd(),
        settlement_model: SettlementModel::NetMultilateral,
        state: TransactionState::Committed,
        window_id: Some(WindowId::new(ids.next_id(AT))),
        window_seq: Some(7),
        end_to_end_id: Some("E7".into()),
        uetr: None,
        return_of: None,
        expires_at: None,
        evidence: Evidence {
            screening: "APPROVE".into(),
            screening_evidence: "no_match".into(),
            list_versions: vec!["bundled@1".into()],
            rule_version: "names/1".into(),
            screening_score: Some(0),
            risk_version: 1,
            cap_headroom: Some(money(50_000_000).into()),
            cover_headroom: Some(money(90_000_000).into()),
        },
    };
    let correlation_id = Some(id.to_string());
    let context =
        Context { correlation_id, user_id: Some("bank".into()), participant_id: Some(bank(1)), causation_id: None };
    (event.into(), context)
}

fn envelopes(c: &mut Criterion) {
    let ids = SeededIds::new(1);
    deltran_events::schema::compile_all().unwrap();
    let (event, context) = created(&ids);
    let stamp =
        Stamp { event_id: EventId::new(ids.next_id(AT)), at: AT, producer: "token-engine/1", producer_seq: 184_467 };
    let line = encode(&event, &context, &stamp).unwrap();
    let (envelope, spec) = Envelope::decode(SUBJECT, &line).unwrap();
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |b| b.iter(|| encode(black_box(&event), &context, &stamp).unwrap()));
    group.bench_function("decode", |b| b.iter(|| Envelope::decode(SUBJECT, black_box(&line)).unwrap()));
    let text = serde_json::to_string(&envelope.data).unwrap();
    let data = Json::parse(&text).unwrap();
    group.bench_function("read as JSON", |b| b.iter(|| Json::parse(black_box(&text)).unwrap()));
    group.bench_function("check against the schema", |b| {
        b.iter(|| deltran_events::schema::check_data(spec, black_box(&data)).unwrap());
    });
    group.bench_function("read as its type", |b| b.iter(|| (spec.read)(black_box(&data)).unwrap()));
    group.bench_function("leaf hash", |b| b.iter(|| leaf_hash(black_box(&line))));
    group.finish();
}

fn merkle(c: &mut Criterion) {
    let leaves: Vec<LeafHash> = (0..2_000u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    let mut group = c.benchmark_group("merkle");
    group.throughput(Throughput::Elements(leaves.len() as u64));
    group.bench_function("append 2000 leaves", |b| {
        let mut frontier = Frontier::default();
        b.iter(|| {
            let mut added = Additions::default();
            for leaf in &leaves {
                frontier.append(*leaf, |node, hash| added.add(node, hash));
            }
            added
        });
    });
    group.finish();
}

fn netting(c: &mut Criterion) {
    let pairs: Vec<PairTotal> = (0..200)
        .flat_map(|payer| (0..200).filter(move |payee| *payee != payer).map(move |payee| (payer, payee)))
        .map(|(payer, payee)| {
            let gross = Minor::new(1_000 + (payer * 31 + payee) as i128).unwrap();
            PairTotal { payer: bank(payer), payee: bank(payee), count: 1, gross }
        })
        .collect();
    let mut group = c.benchmark_group("netting");
    group.throughput(Throughput::Elements(pairs.len() as u64));
    group.bench_function("net 39800 pairs", |b| b.iter(|| net(usd(), BTreeSet::new(), black_box(&pairs)).unwrap()));
    group.finish();
}

fn screening(c: &mut Criterion) {
    let names: String = (0..17_000u32)
        .map(|n| {
            let word = |n: u32| -> String {
                (0..5)
                    .map(|place| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> (place * 5)) as u8 % 26))
                    .collect()
            };
            format!("{} {} {}\n", word(n), word(n.wrapping_add(77_777)), word(n / 9))
        })
        .collect();
    let files: Files = BTreeMap::from([(Source::Operator.files()[0].to_owned(), names.into_bytes())]);
    let matcher = Matcher::new(vec![Arc::new(parse(Source::Operator, &files).unwrap())]);
    let mut scratch = matcher.scratch();
    let subject = Subject { name: "Maria Fernandez Keller Trading SA".into(), ..Subject::default() };
    let mut group = c.benchmark_group("screening");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one name in 17000", |b| {
        b.iter(|| matcher.search(black_box(&subject), 8_000, 20, &mut scratch));
    });
    group.finish();
}

criterion_group!(benches, decisions, envelopes, merkle, netting, screening);
criterion_main!(benches);
