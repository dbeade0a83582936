//! Lists, the allow-list and screening on a real Postgres: load, reload, refuse, hold, fail closed.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod desk;

use std::sync::Arc;
use std::time::Duration;

use deltran_compliance::domain::Outcome;
use deltran_compliance::domain::allowance::{Allowance, AllowanceState};
use deltran_compliance::domain::hold::{Hold, HoldState};
use deltran_compliance::domain::list::{Files, Source};
use deltran_compliance::domain::matcher::{Match, Subject as Person};
use deltran_compliance::domain::screening::{Decision, Party, Thresholds};
use deltran_compliance::handle::Subject;
use deltran_compliance::lists::Lists;
use deltran_compliance::store;
use deltran_kernel::{AllowanceId, HoldId, IdSource, SystemIds, Timestamp};
use deltran_runtime::FailureKind;
use deltran_runtime::wire::PageOf;
use desk::{NOON, Place, bank, by, transaction};

const SDN: &str = r#"7,"PRIMEROV, Ivan Petrovich","individual","TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"DOB 08 Jan 1965; Passport AB123456 (Iran)."
8,"VOSTOKSHADE TRADING LLC",-0- ,"TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- 
"#;
const MORE: &str = "9,\"NORDHAFEN PHANTOM GMBH\",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n";
const DAY: i64 = 86_400_000_000;

fn ofac(sdn: &str, alt: Option<&str>) -> Files {
    let mut files = Files::from([("sdn.csv".to_owned(), sdn.as_bytes().to_vec())]);
    if let Some(alt) = alt {
        files.insert("alt.csv".to_owned(), alt.as_bytes().to_vec());
    }
    files
}

fn own(names: &str) -> Files {
    Files::from([("names.txt".to_owned(), names.as_bytes().to_vec())])
}

fn of(n: u64, name: &str) -> Subject {
    let party = Party { name: name.to_owned(), ..Party::default() };
    Subject { transaction_id: transaction(n), payer: Some(bank(0)), parties: [party, Party::default()] }
}

/// Loads the tests' list of OFAC and returns its version.
async fn loaded(place: &Place) -> String {
    let outcome = place.desk.load_list(Source::Ofac, ofac(SDN, None), &by("lena")).await.unwrap();
    outcome.into_inner().list.unwrap().version
}

async fn holds(place: &Place) -> Vec<Hold> {
    let page = PageOf { size: 100, after: None };
    let mut holds = store::list_holds(&place.context.db, &page, None).await.unwrap();
    holds.sort_by_key(|hold| hold.transaction_id);
    holds
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_every_named_party_is_held_and_one_alert_says_so() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    let answers = desk.screen(&[of(1, "Ada Bright"), of(2, ""), of(3, "Bob Dark")], &by("token-engine")).await.unwrap();
    let decided: Vec<_> = answers.screened.iter().map(|s| (s.decision, s.evidence.as_str())).collect();
    assert_eq!(
        decided,
        [(Decision::Review, "no_list"), (Decision::Approve, "no_parties"), (Decision::Review, "no_list")]
    );
    assert!(answers.list_versions.is_empty());
    assert_eq!(holds(&place).await.len(), 2);
    assert_eq!(place.published("alert.raised").await.len(), 1);
    assert_eq!(place.published("hold.placed").await.len(), 2);

    // With a list the alert is over, and the next time without one would be told again.
    loaded(&place).await;
    assert_eq!(place.count("alert").await, 0);
    let answers = desk.screen(&[of(4, "Ada Bright")], &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened[0].evidence.as_str(), "no_match");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_loaded_kept_and_replaced() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    let first = loaded(&place).await;
    let again = desk.load_list(Source::Ofac, ofac(SDN, None), &by("ada")).await.unwrap();
    assert!(matches!(again, Outcome::AlreadyApplied(ref head) if head.revision == 1));

    let answers = desk.screen(&[of(1, "Nordhafen Phantom")], &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened[0].evidence.as_str(), "no_match");
    let (sdn, alt) = (format!("{SDN}{MORE}"), "9,1,\"aka\",\"FANTOM DES NORDENS\",-0- \n");
    let second = desk.load_list(Source::Ofac, ofac(&sdn, Some(alt)), &by("ada")).await.unwrap().into_inner();
    assert_eq!(second.revision, 2);
    let second = second.list.unwrap();
    assert_eq!(
        (second.names, second.aliases, &second.files[..]),
        (3, 1, &["alt.csv".to_owned(), "sdn.csv".into()][..])
    );
    // What was answered from the list before is not remembered.
    let answers = desk.screen(&[of(2, "Nordhafen Phantom")], &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened[0].decision, Decision::BlockAndReview);
    assert_eq!(answers.list_versions, std::slice::from_ref(&second.version));

    // A second source is in force beside it.
    let own = desk.load_list(Source::Operator, own("Castle of Fog\n"), &by("ada")).await.unwrap().into_inner();
    let own = own.list.unwrap().version;
    let answers = desk.screen(&[of(3, "Castle of Fog")], &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened[0].evidence.as_str(), "exact_name");
    assert_eq!(answers.list_versions, [second.version.clone(), own.clone()]);

    // Back to the first: the history has every load, the bytes are kept once.
    loaded(&place).await;
    let loads = store::list_loads(&place.context.db, None, 100, None).await.unwrap();
    let shown: Vec<_> = loads
        .iter()
        .map(|load| {
            (load.head.source, load.head.revision, load.head.list.as_ref().unwrap().version.as_str(), load.in_force)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Source::Ofac, 3, first.as_str(), true),
            (Source::Operator, 1, own.as_str(), true),
            (Source::Ofac, 2, second.version.as_str(), false),
            (Source::Ofac, 1, first.as_str(), false)
        ]
    );
    let page = store::list_loads(&place.context.db, Some(loads[1].number), 1, Some(Source::Ofac)).await.unwrap();
    assert_eq!((page.len(), page[0].head.revision), (1, 2));
    let heads = store::list_heads(&place.context.db).await.unwrap();
    let heads: Vec<_> = heads.iter().map(|head| (head.source, head.revision, head.list.is_some())).collect();
    assert_eq!(heads, [(Source::Ofac, 3, true), (Source::Un, 0, false), (Source::Operator, 1, true)]);
    assert_eq!(place.count("list_file").await, 4);

    let events = place.published("list.loaded").await;
    let told: Vec<_> = events.iter().map(|e| (e["data"]["source"].as_str(), e["data"]["names"].as_u64())).collect();
    assert_eq!(
        told,
        [(Some("ofac"), Some(2)), (Some("ofac"), Some(3)), (Some("operator"), Some(1)), (Some("ofac"), Some(2))]
    );
    assert_eq!((events[1]["version"].as_str(), events[1]["data"]["aliases"].as_u64()), (Some("1.1"), Some(1)));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_parse_changes_nothing_and_is_told() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    loaded(&place).await;
    for (source, files, said) in [
        (Source::Ofac, ofac(&format!("{SDN}10,\"SHORT\"\n"), None), "sdn.csv line 3"),
        (Source::Ofac, Files::new(), "sdn.csv is missing"),
        (
            Source::Un,
            Files::from([("consolidated.xml".into(), b"<!DOCTYPE a [<!ENTITY b \"c\">]>".to_vec())]),
            "document type",
        ),
        (Source::Operator, own("# nobody\n"), "no names"),
    ] {
        let failure = desk.load_list(source, files, &by("lena")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Malformed);
        assert!(failure.message.contains(said), "{failure}");
    }
    let alerts = place.published("alert.raised").await;
    assert_eq!(alerts.len(), 4);
    assert!(alerts.iter().all(|alert| alert["data"]["kind"] == "list_refused"));
    assert!(!alerts[0].to_string().contains("SHORT"), "no name of a list leaves the engine");
    assert_eq!(place.count("list_load").await, 1);
    let answers = desk.screen(&[of(1, "Vostokshade Trading")], &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened[0].decision, Decision::BlockAndReview, "the list before stays in force");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_sees_a_list_by_its_revision_and_a_stale_one_is_not_used() {
    let place = Place::new().await;
    let lists = |stale| Lists::new(place.context.db.clone(), place.clock.clone(), stale, Thresholds::default());
    let other = lists(Duration::from_secs(60));
    let early = other.current().map(|_| ()).unwrap_err();
    assert_eq!(early.kind, FailureKind::Unavailable, "not read yet is not the same as no list");
    assert!(other.reload().await.unwrap().matcher.is_none());
    let version = loaded(&place).await;
    assert!(other.current().unwrap().matcher.is_none(), "not compared since");
    let snapshot = other.reload().await.unwrap();
    assert_eq!(snapshot.versions, [version]);
    let same = other.reload().await.unwrap();
    assert!(Arc::ptr_eq(snapshot.matcher.as_ref().unwrap(), same.matcher.as_ref().unwrap()), "read once");

    let hasty = lists(Duration::ZERO);
    hasty.reload().await.unwrap();
    assert!(matches!(hasty.current(), Err(failure) if failure.kind == FailureKind::Unavailable));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_is_held_with_its_evidence_and_its_name_stays_here() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    let version = loaded(&place).await;
    let by = by("token-engine");
    let passport = Party {
        name: "Somebody Else".into(),
        identifiers: vec![("passport".into(), "ab 123456".into())],
        ..Party::default()
    };
    let mut by_id = of(2, "");
    by_id.parties[1] = passport;
    let subjects = [of(1, "Ivan Primerov"), by_id, of(3, "Bob Dark"), of(4, "???")];
    let answers = desk.screen(&subjects, &by).await.unwrap();
    let decided: Vec<_> = answers.screened.iter().map(|s| (s.decision, s.evidence.as_str())).collect();
    assert_eq!(
        decided,
        [
            (Decision::Review, "similar_name"),
            (Decision::BlockAndReview, "exact_id"),
            (Decision::Approve, "no_match"),
            (Decision::Review, "error")
        ]
    );
    // The same ids again: the same holds.
    desk.screen(&subjects, &by).await.unwrap();
    let holds = holds(&place).await;
    let held: Vec<_> = holds.iter().map(|h| (h.transaction_id, h.state, h.matched_name.as_str())).collect();
    assert_eq!(
        held,
        [
            (transaction(1), HoldState::Placed, "Ivan Primerov"),
            (transaction(2), HoldState::Placed, "Somebody Else"),
            (transaction(4), HoldState::Placed, "???")
        ]
    );
    let basis = store::find_hold_with_basis(&place.context.db, holds[0].hold_id).await.unwrap().unwrap().1;
    assert_eq!(
        (&basis.list_versions[..], basis.rule_version.as_str()),
        (&[version.clone()][..], "names/1;review=8000;block=9500")
    );
    let matches: Vec<Match> = serde_json::from_str(&basis.matches).unwrap();
    assert_eq!((matches[0].entry_id.as_str(), matches[0].score), ("7", basis.score));
    assert!(!matches[0].pairs.is_empty());
    let unknown = HoldId::new(SystemIds::new().next_id(NOON));
    assert!(store::find_hold_with_basis(&place.context.db, unknown).await.unwrap().is_none());

    let hits = place.published("screening.hit").await;
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0]["data"]["list_versions"][0].as_str(), Some(version.as_str()));
    assert_eq!(hits[0]["data"]["score"].as_u64(), Some(u64::from(basis.score)));
    for event in place.published("").await {
        let text = event.to_string().to_lowercase();
        assert!(!text.contains("primerov") && !text.contains("somebody"), "{text}");
    }
    assert_eq!(place.count("case_file").await, 3, "each hold is brought to a case");
    place.end().await;
}

/// A bank that sends the id of a held transaction again, with other parties, changes nothing that officers see for the
/// better, and a release that was proposed before is proposed anew.
#[tokio::test(flavor = "multi_thread")]
async fn parties_that_come_later_do_not_replace_those_of_the_hold() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    loaded(&place).await;
    let engine = by("token-engine");
    desk.screen(&[of(1, "Vostokshade Trading LLC")], &engine).await.unwrap();
    let id = holds(&place).await[0].hold_id;
    let shown = async || store::find_hold_with_basis(&place.context.db, id).await.unwrap().unwrap();
    let before = shown().await;
    assert_eq!((before.0.evidence.as_str(), before.1.score), ("exact_name", 10_000));

    desk.propose(id, true, "another company", &by("ada")).await.unwrap();
    desk.screen(&[of(1, "Vostokshade Trading LLC")], &engine).await.unwrap();
    assert_eq!(shown().await.0.state, HoldState::ReleaseProposed, "the same again says nothing new");
    desk.screen(&[of(1, "Ivan Primerov")], &engine).await.unwrap();
    let (hold, basis) = shown().await;
    assert_eq!(hold.matched_name, "Vostokshade Trading LLC; Ivan Primerov");
    assert_eq!((hold.evidence.as_str(), &basis), ("exact_name", &before.1));
    assert_eq!((hold.state, hold.proposed_by), (HoldState::Placed, None));
    let failure = desk.decide(id, true, "", &by("grace")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongState);

    desk.propose(id, true, "both are others", &by("ada")).await.unwrap();
    desk.decide(id, true, "", &by("grace")).await.unwrap();
    let decided = shown().await;
    assert_eq!(decided.0.state, HoldState::Releasing);
    desk.screen(&[of(1, "Ivan Petrovich Primerov")], &engine).await.unwrap();
    assert_eq!(shown().await, decided, "what was decided stays as it was decided");
    assert_eq!(holds(&place).await.len(), 1);
    assert_eq!(place.count("hold_step").await, 5);
    assert_eq!(place.published("hold.placed").await.len(), 1);
    place.end().await;
}

fn allowance(n: u128, name: &str, entry: &str, expires_at: Timestamp) -> Allowance {
    Allowance {
        allowance_id: AllowanceId::new(uuid::Uuid::from_u128(0x0190_c3d5 << 96 | n)),
        name: name.into(),
        normal: String::new(),
        source: Source::Ofac,
        entry_id: entry.into(),
        reason: "another date of birth".into(),
        added_by: "lena".into(),
        added_at: NOON,
        expires_at,
        revoked: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_pair_passes_until_its_day_or_until_it_is_taken_back() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    loaded(&place).await;
    let engine = by("token-engine");
    let tomorrow = Timestamp::from_micros(NOON.micros() + DAY);
    let name = "Ivan Petrovich Primerov";
    let wanted = || allowance(1, name, "7", tomorrow);
    let evidence =
        async |n: u64, name: &str| desk.screen(&[of(n, name)], &engine).await.unwrap().screened[0].evidence.as_str();
    assert_eq!(evidence(1, name).await, "exact_name");

    for (bad, kind) in [
        (allowance(9, name, "70", tomorrow), FailureKind::NotFound),
        (allowance(9, "???", "7", tomorrow), FailureKind::Malformed),
        (allowance(9, name, "7", NOON), FailureKind::Malformed),
    ] {
        assert_eq!(desk.add_allowance(bad).await.unwrap_err().kind, kind);
    }
    let added = desk.add_allowance(wanted()).await.unwrap();
    assert_eq!(added.normal, "ivan petrovich primerov");
    assert_eq!(desk.add_allowance(wanted()).await.unwrap(), added, "the same again");
    let other = Allowance { entry_id: "8".into(), ..wanted() };
    assert_eq!(desk.add_allowance(other).await.unwrap_err().kind, FailureKind::Conflict);

    assert_eq!(evidence(2, name).await, "allow_listed");
    assert_eq!(evidence(3, "PRIMEROV, Ivan").await, "similar_name", "it covers the one name");
    assert_eq!(place.count("hold WHERE evidence = 'allow_listed'").await, 0);
    let person = Person { name: name.into(), ..Person::default() };
    let found = desk.search(person, 8_000, 5).await.unwrap();
    assert_eq!(found.matches[0].2.as_deref(), Some(added.allowance_id.to_string().as_str()));

    // Its day comes, without any reload.
    place.clock.advance_micros(DAY);
    assert_eq!(evidence(4, name).await, "exact_name");

    let later = Timestamp::from_micros(tomorrow.micros() + DAY);
    let second = Allowance { added_at: tomorrow, ..allowance(2, name, "7", later) };
    let second = desk.add_allowance(second).await.unwrap();
    assert_eq!(evidence(5, name).await, "allow_listed");
    let revoked = desk.revoke_allowance(second.allowance_id, "new facts", &by("grace")).await.unwrap();
    assert_eq!(desk.revoke_allowance(second.allowance_id, "again", &by("ada")).await.unwrap(), revoked);
    assert_eq!(evidence(6, name).await, "exact_name");
    let unknown = AllowanceId::new(uuid::Uuid::from_u128(3));
    assert_eq!(desk.revoke_allowance(unknown, "x", &by("ada")).await.unwrap_err().kind, FailureKind::NotFound);

    let listed = async |state| {
        let page = PageOf { size: 10, after: None };
        let found = store::list_allowances(&place.context.db, &page, state, tomorrow).await.unwrap();
        found.iter().map(|a| (a.allowance_id == second.allowance_id, a.state(tomorrow))).collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await, [(false, AllowanceState::Expired), (true, AllowanceState::Revoked)]);
    assert_eq!(listed(Some(AllowanceState::Expired)).await, [(false, AllowanceState::Expired)]);
    assert_eq!(listed(Some(AllowanceState::Active)).await, []);

    // Nothing of it can be changed or taken out, whatever a program does.
    for statement in [
        "UPDATE allowance SET expires_at = expires_at + 1",
        "DELETE FROM allowance_end",
        "DELETE FROM list_load",
        "UPDATE list_file SET name = 'x'",
        "UPDATE list_version SET names = 1",
    ] {
        assert!(place.by_engine(statement).await.unwrap_err().contains("permission denied"), "{statement}");
    }
    let as_root = sqlx::query("DELETE FROM allowance").execute(&mut place.root).await.unwrap_err().to_string();
    assert!(as_root.contains("append-only"), "{as_root}");
    place.end().await;
}

/// Many at once go to other threads; the answers stay in their order.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_answered_in_order() {
    let place = Place::new().await;
    loaded(&place).await;
    let subjects: Vec<Subject> =
        (0..1_000).map(|n| of(n, if n % 100 == 7 { "Vostokshade Trading" } else { "Ada Bright" })).collect();
    let answers = place.desk.screen(&subjects, &by("token-engine")).await.unwrap();
    assert_eq!(answers.screened.len(), 1_000);
    for (n, found) in answers.screened.iter().enumerate() {
        assert_eq!(found.decision > Decision::Approve, n % 100 == 7, "{n}");
    }
    assert_eq!(holds(&place).await.len(), 10);
    place.end().await;
}
