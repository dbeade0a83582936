//! Files over gRPC and HTTP, who may have them, ids, lists, and the time of retention.

use bytes::Bytes;
use deltran_api::reporting::v1::reporting_service_client::ReportingServiceClient;
use deltran_api::reporting::v1::{
    CreateReportRequest, DownloadReportRequest, GetReportRequest, ListReportsRequest, Report, ReportState,
};
use deltran_kernel::Clock;
use deltran_reporting::domain::day::Day;
use deltran_tests::node::reason;
use deltran_tests::tie_out::{ended, files, fresh, report, reporting};
use deltran_tests::{Stack, eventually};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::Code;

use crate::support::*;

async fn get(stack: &Stack, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::get(format!("http://{}{path}", stack.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

async fn small_day() -> (Stack, std::sync::Arc<Moved>, String) {
    let (stack, clock) = platform("[reporting]\nretention_days = 1\n").await;
    join(&stack, ALFA, "100.00", "50.00").await;
    join(&stack, BRAV, "100.00", "50.00").await;
    for n in 0..40 {
        paid(&stack, &format!("g{n}"), ALFA, BRAV, "0.01", true).await;
    }
    let day = Day::of(clock.now(), &jiff::tz::TimeZone::UTC).to_string();
    (stack, clock, day)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_over_both_ways_in_whole_and_in_part() {
    let (stack, clock, day) = small_day().await;
    let (done, whole, _) = report(&stack.channel(), statement(ALFA, &day)).await;
    let id = done.report_id.as_str();
    let content = &whole["statement.csv"];
    let file = done.files.iter().find(|f| f.name == "statement.csv").unwrap();
    assert_eq!(file.entries, 41);

    // gRPC goes on from an offset.
    for offset in [0, 1, 100, content.len() - 1, content.len()] {
        let request =
            DownloadReportRequest { report_id: id.into(), file: "statement.csv".into(), offset: offset as u64 };
        let mut chunks = reporting(&stack.channel()).download_report(request).await.unwrap().into_inner();
        let mut rest = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            assert_eq!((chunk.offset as usize, &chunk.sha256), (offset + rest.len(), &file.sha256));
            rest.extend(chunk.data);
        }
        assert_eq!(rest, content[offset..]);
    }
    for (name, offset, code) in [
        ("statement.csv", content.len() as u64 + 1, Code::InvalidArgument),
        ("other.csv", 0, Code::NotFound),
        ("../../../etc/passwd", 0, Code::NotFound),
        ("", 0, Code::NotFound),
    ] {
        let request = DownloadReportRequest { report_id: id.into(), file: name.into(), offset };
        assert_eq!(reporting(&stack.channel()).download_report(request).await.unwrap_err().code(), code, "{name}");
    }

    // HTTP, with type, length, tag and ranges.
    let (path, own) = (format!("/v1/reports/{id}/statement.csv"), [("deltran-participant", ALFA)]);
    let all = get(&stack, &path, &own).await;
    assert_eq!((all.status(), all.body().as_ref()), (StatusCode::OK, content.as_slice()));
    assert_eq!(header(&all, "etag"), format!("\"{}\"", file.sha256));
    assert_eq!(header(&all, "content-length"), content.len().to_string());
    assert!(header(&all, "content-type").starts_with("text/csv"));
    let part = get(&stack, &path, &[own[0], ("range", "bytes=10-19")]).await;
    assert_eq!((part.status(), part.body().as_ref()), (StatusCode::PARTIAL_CONTENT, &content[10..20]));
    assert_eq!(header(&part, "content-range"), format!("bytes 10-19/{}", content.len()));
    let tag = format!("\"{}\"", file.sha256);
    let rest = get(&stack, &path, &[own[0], ("range", "bytes=10-"), ("if-range", &tag)]).await;
    assert_eq!(rest.body().as_ref(), &content[10..]);
    let other = get(&stack, &path, &[own[0], ("range", "bytes=10-"), ("if-range", "\"x\"")]).await;
    assert_eq!((other.status(), other.body().len()), (StatusCode::OK, content.len()));
    assert_eq!(get(&stack, &path, &[own[0], ("if-none-match", &tag)]).await.status(), StatusCode::NOT_MODIFIED);
    let beyond = get(&stack, &path, &[own[0], ("range", "bytes=999999-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    // Who may have them.
    let operator = [("deltran-role", "operator"), ("deltran-user", "ada")];
    let compliance = [("deltran-role", "compliance"), ("deltran-user", "eve")];
    for (path, caller, status) in [
        (path.clone(), &operator[..], StatusCode::OK),
        (path.clone(), &[("deltran-participant", BRAV)], StatusCode::NOT_FOUND),
        (path.clone(), &compliance[..], StatusCode::FORBIDDEN),
        (path.clone(), &[], StatusCode::UNAUTHORIZED),
        (format!("/v1/reports/{id}/..%2Fstatement.html"), &operator, StatusCode::NOT_FOUND),
        (format!("/v1/reports/{id}/%2Fetc%2Fpasswd"), &operator, StatusCode::NOT_FOUND),
        (format!("/v1/reports/{}/statement.csv", fresh()), &operator, StatusCode::NOT_FOUND),
        ("/v1/reports/x/statement.csv".to_owned(), &operator, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(get(&stack, &path, caller).await.status(), status, "{path} {caller:?}");
    }

    // The file is in its folder under its own name, nothing else is, and after its time it is gone.
    let folder = stack.reports.path().join(format!("statement/{day}/{ALFA}-USD-{id}"));
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "statement.camt.053.xml", "statement.csv", "statement.html"]);
    clock.by_seconds(86_500);
    let expired = deltran_tests::within(std::time::Duration::from_secs(120), "the files to be removed", async || {
        let request = GetReportRequest { report_id: id.into() };
        let report = reporting(&stack.channel()).get_report(request).await.ok()?.into_inner().report?;
        (report.state() == ReportState::Expired).then_some(report)
    })
    .await;
    assert!(!folder.exists() && expired.files.len() == 4, "what they were stays known");
    let gone = get(&stack, &path, &own).await;
    assert_eq!(gone.status(), StatusCode::CONFLICT);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_reads_its_own_and_an_id_is_used_once() {
    let (stack, _, day) = small_day().await;
    let bank = |who: &str| ReportingServiceClient::new(stack.bank(who));
    let id = fresh().to_string();
    let create = |id: &str, subject| CreateReportRequest { report_id: id.to_owned(), subject: Some(subject) };
    // A bank need not name itself.
    let own = deltran_api::reporting::v1::ReportSubject { participant: String::new(), ..statement(ALFA, &day) };
    let first = bank(ALFA).create_report(create(&id, own.clone())).await.unwrap().into_inner();
    let again = bank(ALFA).create_report(create(&id, own.clone())).await.unwrap().into_inner();
    assert_eq!((first.replayed, again.replayed), (false, true));
    let other = statement(ALFA, &Day::from_number(day.parse::<Day>().unwrap().number() - 1).unwrap().to_string());
    let conflict = bank(ALFA).create_report(create(&id, other)).await.unwrap_err();
    assert_eq!((conflict.code(), reason(&conflict).as_str()), (Code::AlreadyExists, "conflict"));
    for (subject, code) in [
        (statement(BRAV, &day), Code::PermissionDenied),
        (settlement(1), Code::PermissionDenied),
        (trial_balance(), Code::PermissionDenied),
        (statement(ALFA, "2026-02-30"), Code::InvalidArgument),
        (statement(ALFA, "9000-01-01"), Code::InvalidArgument),
    ] {
        let refused = bank(ALFA).create_report(create(&fresh().to_string(), subject)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let report = ended(&stack.channel(), &id).await;
    assert_eq!(report.state(), ReportState::Completed);
    files(&stack.channel(), &report).await;
    let request = || GetReportRequest { report_id: id.clone() };
    assert_eq!(bank(ALFA).get_report(request()).await.unwrap().into_inner().report.unwrap().report_id, id);
    assert_eq!(bank(BRAV).get_report(request()).await.unwrap_err().code(), Code::NotFound);
    let download = DownloadReportRequest { report_id: id.clone(), file: "statement.csv".into(), offset: 0 };
    assert_eq!(bank(BRAV).download_report(download).await.unwrap_err().code(), Code::NotFound);

    // Lists are paged, filtered, and a bank's own.
    for _ in 0..5 {
        let request = create(&fresh().to_string(), statement(BRAV, &day));
        reporting(&stack.channel()).create_report(request).await.unwrap();
    }
    let all = |reports: Vec<Report>| reports.into_iter().map(|r| r.report_id).collect::<Vec<_>>();
    let list = |request: ListReportsRequest| async {
        let mut found = Vec::new();
        let mut request = request;
        loop {
            let answer = bank(BRAV).list_reports(request.clone()).await.unwrap().into_inner();
            found.extend(answer.reports);
            if answer.next_page_token.is_empty() {
                return found;
            }
            let page = deltran_api::common::v1::Page { size: 2, token: answer.next_page_token };
            request.page = Some(page);
        }
    };
    let page = Some(deltran_api::common::v1::Page { size: 2, token: String::new() });
    let own = all(list(ListReportsRequest { page, ..ListReportsRequest::default() }).await);
    assert_eq!(own.len(), 5);
    assert!(!own.contains(&id));
    let foreign = ListReportsRequest { participant: ALFA.into(), ..ListReportsRequest::default() };
    assert_eq!(bank(BRAV).list_reports(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let schedules = deltran_api::reporting::v1::ListSchedulesRequest { page: None };
    assert_eq!(bank(BRAV).list_schedules(schedules).await.unwrap_err().code(), Code::PermissionDenied);
    eventually("all of them", async || {
        let states = vec![ReportState::Completed.into()];
        let done = list(ListReportsRequest { states, ..ListReportsRequest::default() }).await;
        (done.len() == 5).then_some(())
    })
    .await;
    stack.stop().await;
}
