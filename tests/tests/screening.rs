//! Lists, search and allow-list as officers call them: in pieces, by rights, without a restart.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use deltran_api::compliance::v1 as pb;
use deltran_api::compliance::v1::compliance_service_client::ComplianceServiceClient;
use deltran_api::token::v1::Party;
use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_runtime::wire::to_timestamp;
use deltran_tests::{As, Stack, eventually};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

const SDN: &str = r#"7,"PRIMEROV, Ivan Petrovich","individual","TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"DOB 08 Jan 1965; nationality Iran; Passport AB123456 (Iran)."
8,"VOSTOKSHADE TRADING LLC",-0- ,"TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- 
"#;
const ALT: &str = "8,1,\"fka\",\"ZAPADSHADE TRADING\",-0- \n";

type Client = ComplianceServiceClient<InterceptedService<Channel, As>>;

fn of(stack: &Stack, role: &str) -> Client {
    ComplianceServiceClient::new(stack.role(role, "ada"))
}

fn piece(source: &str, file: &str, content: &str) -> pb::LoadListRequest {
    pb::LoadListRequest { source: source.into(), file: file.into(), content: content.as_bytes().to_vec() }
}

async fn load(stack: &Stack, pieces: Vec<pb::LoadListRequest>) -> Result<pb::LoadListResponse, Status> {
    Ok(of(stack, "compliance").load_list(futures::stream::iter(pieces)).await?.into_inner())
}

async fn search(stack: &Stack, name: &str) -> Result<pb::SearchResponse, Status> {
    let request = pb::SearchRequest { name: name.into(), ..pb::SearchRequest::default() };
    Ok(of(stack, "compliance").search(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn officers_load_search_and_allow() {
    let stack = Stack::of(&["compliance"]).start().await;
    // The list that ships is in force by itself.
    eventually("the list that ships", async || {
        let found = search(&stack, "Vostok Shadow Trading").await.ok()?;
        (found.matches.first()?.source == "operator").then_some(())
    })
    .await;

    // Pieces may end anywhere, in the middle of a line too.
    let (one, two) = SDN.split_at(100);
    let pieces = vec![piece("ofac", "sdn.csv", one), piece("", "sdn.csv", two), piece("ofac", "alt.csv", ALT)];
    let loaded = load(&stack, pieces.clone()).await.unwrap();
    let list = loaded.list.unwrap();
    assert_eq!((list.names, list.aliases, list.revision, loaded.unchanged), (2, 1, 1, false));
    assert!(load(&stack, pieces).await.unwrap().unchanged);
    for (pieces, said) in [
        (vec![], "nothing was sent"),
        (vec![piece("interpol", "", "x")], "interpol"),
        (vec![piece("ofac", "sdn.csv", SDN), piece("un", "", "x")], "a load is of one source"),
        (vec![piece("ofac", "", SDN)], "file"),
        (vec![piece("ofac", "evil.csv", SDN)], "evil.csv"),
        (vec![piece("ofac", "sdn.csv", "1,\"A\"\n")], "sdn.csv line 1"),
    ] {
        let refused = load(&stack, pieces).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(said), "{refused}");
    }

    let found = search(&stack, "Примеров Иван Петрович").await.unwrap();
    assert_eq!(found.normalised_name, "primerov ivan petrovich");
    let best = &found.matches[0];
    assert_eq!(
        (best.source.as_str(), best.entry_id.as_str(), best.decision()),
        ("ofac", "7", pb::Decision::BlockAndReview)
    );
    assert_eq!(best.pairs.len(), 3);
    assert_eq!(best.identifiers, ["passport AB123456 (IR)"]);
    assert_eq!(found.list_versions.len(), 2, "of every list in force");
    for (request, field) in [
        (pb::SearchRequest::default(), "name"),
        (pb::SearchRequest { name: "A".into(), country: "Atlantis".into(), ..Default::default() }, "country"),
        (
            pb::SearchRequest { name: "A".into(), date_of_birth: "1.1.1965".into(), ..Default::default() },
            "date_of_birth",
        ),
        (pb::SearchRequest { name: "A".into(), limit: 101, ..Default::default() }, "limit"),
        (pb::SearchRequest { identifiers: [("shoe".into(), "46".into())].into(), ..Default::default() }, "identifiers"),
        (
            pb::SearchRequest { identifiers: [("passport".into(), "12".into())].into(), ..Default::default() },
            "identifiers",
        ),
    ] {
        let refused = of(&stack, "compliance").search(request).await.unwrap_err();
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let request = pb::SearchRequest {
        identifiers: [("passport".to_owned(), "ab-123456".to_owned())].into(),
        ..pb::SearchRequest::default()
    };
    let by_id = of(&stack, "compliance").search(request).await.unwrap().into_inner();
    assert_eq!((by_id.matches[0].score, by_id.matches[0].qualifiers[0].what.as_str()), (10_000, "passport"));

    // An officer who screens holds nothing; what is allowed passes.
    let name = "Ivan Petrovich Primerov";
    let screen = async || {
        let originator = Some(Party { name: name.into(), ..Party::default() });
        let subject = Some(pb::ScreenSubject { originator, ..pb::ScreenSubject::default() });
        let answer = of(&stack, "compliance").screen(pb::ScreenRequest { subject }).await.unwrap().into_inner();
        answer.result.unwrap()
    };
    let held = screen().await;
    assert_eq!(
        (held.decision(), held.evidence.as_str(), held.list_versions.len()),
        (pb::Decision::BlockAndReview, "exact_name", 2)
    );
    let id = SystemIds::new().next_id(SystemClock.now()).to_string();
    let request = pb::AddAllowanceRequest {
        allowance_id: id.clone(),
        name: name.into(),
        source: "ofac".into(),
        entry_id: "7".into(),
        reason: "born 1990".into(),
        expires_at: Some(to_timestamp(SystemClock.now().plus_seconds(3_600))),
    };
    let added = of(&stack, "compliance").add_allowance(request.clone()).await.unwrap().into_inner().allowance.unwrap();
    assert_eq!((added.state.as_str(), added.added_by.as_str()), ("ACTIVE", "ada"));
    let other = pb::AddAllowanceRequest { reason: "another".into(), ..request };
    assert_eq!(of(&stack, "compliance").add_allowance(other).await.unwrap_err().code(), Code::AlreadyExists);
    let passed = screen().await;
    assert_eq!(
        (passed.decision(), passed.evidence.as_str(), passed.score),
        (pb::Decision::Approve, "allow_listed", 10_000)
    );

    // Names are for compliance officers only.
    let list = async |role: &str| {
        let request = pb::ListAllowancesRequest { state: "ACTIVE".into(), ..Default::default() };
        of(&stack, role).list_allowances(request).await.unwrap().into_inner().allowances.remove(0)
    };
    assert_eq!(list("compliance").await.name, name);
    let shown = list("auditor").await;
    assert_eq!((shown.name.as_str(), shown.normalised_name.as_str(), shown.reason.as_str()), ("", "", "born 1990"));
    let request = pb::SearchRequest { name: name.into(), ..Default::default() };
    assert_eq!(of(&stack, "auditor").search(request).await.unwrap_err().code(), Code::PermissionDenied);

    let revoke = pb::RevokeAllowanceRequest { allowance_id: id, reason: "new facts".into() };
    of(&stack, "compliance").revoke_allowance(revoke).await.unwrap();
    assert_eq!(screen().await.evidence, "exact_name");

    let request = pb::ListListsRequest { history: true, ..Default::default() };
    let history = of(&stack, "operator").list_lists(request).await.unwrap().into_inner().lists;
    let shown: Vec<_> = history.iter().map(|l| (l.source.as_str(), l.revision, l.in_force)).collect();
    assert_eq!(shown, [("ofac", 1, true), ("operator", 1, true)]);
    stack.stop().await;
}
