//! Legal holds: placed once, released once, and what they keep.

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_api::common::v1::Page;
use deltran_audit::store::{Archives, Detaching, Holds};
use deltran_kernel::{Clock, Timestamp};
use deltran_runtime::wire::to_timestamp;
use tonic::Code;

use crate::aged::{Aged, START, asked, asked_by, reason};
use crate::place::DAY;

fn id(n: u64) -> String {
    format!("0190c3d5-0000-7000-8000-{n:012}")
}

fn of_participant(n: u64) -> pb::PlaceHoldRequest {
    pb::PlaceHoldRequest {
        hold_id: id(n),
        participant: "ALFAAEXX".into(),
        reason: "case 7".into(),
        ..pb::PlaceHoldRequest::default()
    }
}

#[tokio::test]
async fn a_hold_is_placed_once_and_released_once() {
    let aged = Aged::new(1).await;
    let service = aged.service().await;
    let first = service.place_hold(asked(of_participant(1))).await.unwrap().into_inner().hold.unwrap();
    assert_eq!(
        (first.hold_id.as_str(), first.placed_by.as_str(), first.reason.as_str()),
        (id(1).as_str(), "ada", "case 7")
    );
    assert_eq!(first.placed_at, Some(to_timestamp(aged.place.clock.now())));
    aged.place.clock.advance_micros(5);
    let again = service.place_hold(asked_by("grace", of_participant(1))).await.unwrap().into_inner().hold.unwrap();
    assert_eq!(again, first, "the same body is the same hold");
    let other = pb::PlaceHoldRequest { participant: "BRAVINXX".into(), ..of_participant(1) };
    assert_eq!(service.place_hold(asked(other)).await.unwrap_err().code(), Code::AlreadyExists);

    let release = |n, why: &str| asked(pb::ReleaseHoldRequest { hold_id: id(n), reason: why.into() });
    let released = service.release_hold(release(1, "closed")).await.unwrap().into_inner().hold.unwrap();
    assert_eq!((released.released_by.as_str(), released.release_reason.as_str()), ("ada", "closed"));
    aged.place.clock.advance_micros(5);
    let again = service.release_hold(release(1, "another reason")).await.unwrap().into_inner().hold.unwrap();
    assert_eq!(again, released, "the first release stays");
    let placed_again = service.place_hold(asked(of_participant(1))).await.unwrap().into_inner().hold.unwrap();
    assert_eq!(placed_again, released, "and it stays released");
    assert_eq!(service.release_hold(release(9, "closed")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(service.release_hold(release(1, " ")).await.unwrap_err().code(), Code::InvalidArgument);

    let told: Vec<(String, serde_json::Value)> = aged.published("hold").await;
    assert_eq!(told.len(), 2, "one event each: {told:?}");
    assert_eq!((told[0].0.as_str(), told[0].1["participant_id"].as_str()), ("hold.placed", Some("ALFAAEXX")));
    assert_eq!((told[1].0.as_str(), told[1].1["reason"].as_str()), ("hold.released", Some("closed")));
}

#[tokio::test]
async fn what_is_no_hold_is_refused() {
    let aged = Aged::new(1).await;
    let service = aged.service().await;
    let at = |micros| Some(to_timestamp(Timestamp::from_micros(micros)));
    let none = pb::PlaceHoldRequest { participant: String::new(), ..of_participant(1) };
    let cases = [
        (none.clone(), "participant"),
        (pb::PlaceHoldRequest { from: at(9), to: at(9), ..none.clone() }, "to"),
        (pb::PlaceHoldRequest { from: at(-1), ..none.clone() }, "from"),
        (pb::PlaceHoldRequest { participant: "no bank".into(), ..none }, "participant"),
        (pb::PlaceHoldRequest { reason: String::new(), ..of_participant(1) }, "reason"),
        (pb::PlaceHoldRequest { hold_id: "1".into(), ..of_participant(1) }, "hold_id"),
        (pb::PlaceHoldRequest { correlation_id: "x".repeat(257), ..of_participant(1) }, "correlation_id"),
    ];
    for (request, field) in cases {
        let refused = service.place_hold(asked(request)).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).1["field"].as_str()),
            (Code::InvalidArgument, field),
            "{refused:?}"
        );
    }
    let holds = Holds::new(aged.place.context.db.clone()).page(None, false, 10).await.unwrap();
    assert!(holds.is_empty() && aged.published("hold").await.is_empty());
}

#[tokio::test]
async fn holds_are_listed_newest_first_and_nobody_changes_them() {
    let mut aged = Aged::new(1).await;
    let service = aged.service().await;
    for n in 1..=5 {
        service.place_hold(asked(of_participant(n))).await.unwrap();
    }
    let end = pb::ReleaseHoldRequest { hold_id: id(4), reason: "closed".into() };
    service.release_hold(asked(end)).await.unwrap();
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let page = Some(Page { size: 2, token });
        let request = pb::ListHoldsRequest { page, active_only: false };
        let answer = service.list_holds(asked(request)).await.unwrap().into_inner();
        listed.extend(answer.holds.into_iter().map(|hold| hold.hold_id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, [5, 4, 3, 2, 1].map(id));
    let active = pb::ListHoldsRequest { page: None, active_only: true };
    let active = service.list_holds(asked(active)).await.unwrap().into_inner().holds;
    assert_eq!(active.iter().map(|hold| hold.hold_id.clone()).collect::<Vec<_>>(), [5, 3, 2, 1].map(id));
    assert_eq!(aged.published("access").await.len(), 4, "who reads is noted");

    for statement in [
        "UPDATE legal_hold SET reason = 'x'",
        "UPDATE legal_hold SET until = now()",
        "DELETE FROM legal_hold",
        "TRUNCATE legal_hold",
        "UPDATE legal_hold SET released_at = NULL, released_by = NULL, release_reason = NULL WHERE released_at IS NOT NULL",
        "UPDATE legal_hold SET release_reason = 'x' WHERE released_at IS NOT NULL",
    ] {
        let refused = aged.place.by_engine(statement).await.unwrap_err();
        assert!(refused.contains("permission denied") || refused.contains("does not change"), "{statement}: {refused}");
        let refused = aged.place.by_root(statement).await.unwrap_err();
        assert!(refused.contains("does not change") || refused.contains("append-only"), "{statement}: {refused}");
    }
}

/// Every day that has a leaf to which all conditions apply; no other.
#[tokio::test]
async fn a_hold_keeps_the_days_that_it_names() {
    let mut aged = Aged::new(1).await;
    let leaves =
        [Some(("ALFAAEXX", "c1")), Some(("BRAVINXX", "c1")), Some(("ALFAAEXX", "c2")), None, Some(("BRAVINXX", "c3"))];
    for leaf in leaves {
        if let Some((participant, correlation)) = leaf {
            let batch = [aged.event(Some(participant), correlation), aged.event(None, "other")];
            aged.place.apply(&aged.sequencer, &batch).await.unwrap();
        }
        aged.end_day().await;
    }
    aged.end_day().await;
    let days: Vec<_> = aged.closed.clone();
    for day in &days {
        aged.archive(day).await;
    }
    let service = aged.service().await;
    // All was recorded at noon.
    let noon = |day: i64, micros: i64| Some(to_timestamp(Timestamp::from_micros(START + day * DAY + micros)));
    let none = pb::PlaceHoldRequest { participant: String::new(), ..of_participant(1) };
    let correlation = |text: &str| pb::PlaceHoldRequest { correlation_id: text.into(), ..none.clone() };
    let cases = [
        (of_participant(1), vec![0, 2]),
        (correlation("c1"), vec![0, 1]),
        (correlation("nothing"), vec![]),
        (pb::PlaceHoldRequest { correlation_id: "c1".into(), ..of_participant(1) }, vec![0]),
        (pb::PlaceHoldRequest { from: noon(1, 0), ..of_participant(1) }, vec![2]),
        (pb::PlaceHoldRequest { to: noon(2, 0), ..of_participant(1) }, vec![0]),
        (pb::PlaceHoldRequest { to: noon(2, 1), ..of_participant(1) }, vec![0, 2]),
        (pb::PlaceHoldRequest { from: noon(1, 0), to: noon(2, 1), ..none.clone() }, vec![1, 2]),
        (pb::PlaceHoldRequest { from: noon(1, 1), to: noon(2, 0), ..none.clone() }, vec![]),
        (pb::PlaceHoldRequest { from: noon(2, 1), to: noon(4, 1), ..none.clone() }, vec![4]),
        (pb::PlaceHoldRequest { from: noon(1, 0), to: noon(4, 0), ..correlation("c3") }, vec![]),
    ];
    let archives = Archives::new(aged.place.context.db.clone());
    for (n, (request, expected)) in (100..).zip(cases) {
        let request = pb::PlaceHoldRequest { hold_id: id(n), ..request };
        service.place_hold(asked(request.clone())).await.unwrap();
        let mut held = Vec::new();
        for (at, day) in days.iter().enumerate() {
            let stays = archives.stays(day.start, 1).await.unwrap();
            if stays.is_some_and(|reason| reason.contains(&format!("legal hold {} keeps it: case 7", id(n)))) {
                held.push(at);
            }
        }
        assert_eq!(held, expected, "{request:?}");
        service.release_hold(asked(pb::ReleaseHoldRequest { hold_id: id(n), reason: "x".into() })).await.unwrap();
    }
}

/// A hold keeps what an export for the participant hands out: events that name it anywhere, not only first.
#[tokio::test]
async fn a_hold_keeps_what_names_a_participant_anywhere() {
    let mut aged = Aged::new(1).await;
    for text in ["GAMMDEXX", "GAMMDEXX and others", "x"] {
        let batch = [aged.asking(text)];
        aged.place.apply(&aged.sequencer, &batch).await.unwrap();
        aged.end_day().await;
    }
    let service = aged.service().await;
    let hold = pb::PlaceHoldRequest { participant: "GAMMDEXX".into(), ..of_participant(1) };
    service.place_hold(asked(hold)).await.unwrap();
    let archives = Archives::new(aged.place.context.db.clone());
    let mut held = Vec::new();
    for day in aged.closed.clone() {
        aged.archive(&day).await;
        held.push(archives.stays(day.start, 1).await.unwrap().is_some_and(|reason| reason.contains("legal hold")));
    }
    assert_eq!(held, [true, false, false]);
}

/// A hold that is being placed is not overtaken: the day waits for it.
#[tokio::test]
async fn a_day_waits_for_a_hold_that_is_being_placed() {
    let mut aged = Aged::new(1).await;
    let batch = [aged.event(Some("ALFAAEXX"), "c1")];
    aged.place.apply(&aged.sequencer, &batch).await.unwrap();
    aged.end_day().await;
    aged.append(1).await;
    aged.end_day().await;
    for day in aged.closed.clone() {
        aged.archive(&day).await;
    }
    let (first, to) = (aged.closed[0].start, aged.closed[0].to);
    let mut placing = aged.place.context.db.begin().await.unwrap();
    let wanted = deltran_audit::domain::hold::Wanted {
        id: id(1).parse().unwrap(),
        scope: deltran_audit::domain::hold::Scope {
            participant: Some("ALFAAEXX".parse().unwrap()),
            ..Default::default()
        },
        reason: "case 7".into(),
    };
    Holds::place(&mut placing, &wanted, "ada", aged.place.clock.now()).await.unwrap().unwrap();
    assert_eq!(aged.try_detach(first, to, 1).await, Detaching::Busy);
    placing.commit().await.unwrap();
    match aged.try_detach(first, to, 1).await {
        Detaching::Stays(why) => assert!(why.contains("legal hold"), "{why}"),
        other => panic!("{other:?}"),
    }
    let service = aged.service().await;
    service.release_hold(asked(pb::ReleaseHoldRequest { hold_id: id(1), reason: "x".into() })).await.unwrap();
    assert_eq!(aged.try_detach(first, to, 1).await, Detaching::Done);
}
