//! An archive in a bucket: large days in parts, stores that fail or are away, uploads that break off, and who may.

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_audit::archive::Archive;
use deltran_audit::config::Settings;
use deltran_audit::domain::checkpoint::InclusionProof;
use deltran_audit::domain::leaf_hash;
use deltran_messaging::Delivery;
use deltran_runtime::lease::RoundError;
use http::Method;
use tokio_util::sync::CancellationToken;

use crate::aged::{Aged, asked, day, failed, reason};
use crate::archive::folder_checks;
use crate::bucket::{Bucket, Does};

/// Bytes of a part.
const PART: usize = 5 << 20;

async fn in_bucket(retention_days: i32) -> Aged {
    Aged::with(retention_days, Some(Bucket::new().await)).await
}

fn bucket(aged: &Aged) -> &Bucket {
    aged.bucket.as_ref().unwrap()
}

/// A day whose events are larger than `bytes`.
async fn large_day(aged: &mut Aged, bytes: usize) {
    const LINE: usize = 60_000;
    for batch in 0..bytes.div_ceil(LINE).div_ceil(50) {
        let lines = (0..50).map(|n| format!("{:x<LINE$}", format!("{batch}.{n}.")));
        let batch: Vec<Delivery> = lines.map(|line| aged.place.message("events.risk.a.b", line, false)).collect();
        aged.place.apply(&aged.sequencer, &batch).await.unwrap();
    }
    aged.end_day().await;
}

/// Days of these many leaves.
async fn pass(aged: &mut Aged, leaves: &[u64]) {
    for count in leaves {
        aged.append(*count).await;
        aged.end_day().await;
    }
}

/// How many days were archived.
async fn archived(aged: &Aged) -> usize {
    aged.published("partition").await.iter().filter(|(kind, _)| kind == "partition.archived").count()
}

async fn waits(aged: &Aged) -> String {
    match aged.round().await {
        Err(RoundError::Later(why)) => {
            assert!(!why.contains('\n'), "one line: {why}");
            why
        }
        other => panic!("{other:?}"),
    }
}

async fn proof(aged: &Aged, index: u64) -> Result<pb::GetInclusionProofResponse, tonic::Status> {
    let key = Some(pb::get_inclusion_proof_request::Leaf::LeafIndex(index));
    let request = pb::GetInclusionProofRequest { leaf: key, size: 0 };
    Ok(aged.service_with_archive().await.get_inclusion_proof(asked(request)).await?.into_inner())
}

async fn is_proven(aged: &Aged, index: u64) {
    let (answer, notary) = (proof(aged, index).await.unwrap(), aged.publisher.notary());
    let proof = InclusionProof::parse(&answer.proof).unwrap();
    proof.verify(&leaf_hash(&answer.envelope), notary.origin(), notary.verifiers()).unwrap();
}

/// What fails for a moment is tried again: a part, the answer to one, the end of an upload, a page of a list, and what
/// is read, from where it broke off.
#[tokio::test]
async fn a_large_day_goes_in_parts_through_a_store_that_stumbles() {
    let mut aged = in_bucket(1).await;
    large_day(&mut aged, 2 * PART + PART / 2).await;
    aged.end_day().await;
    let (bucket, events) = (bucket(&aged), "2020-01-01/events.jsonl");
    bucket.fails(Method::PUT, "partNumber=1&", 2, Does::Answers(503));
    bucket.fails(Method::PUT, "partNumber=2&", 1, Does::Loses);
    bucket.fails(Method::POST, "uploadId=", 1, Does::Says("<Error><Code>InternalError</Code></Error>"));
    bucket.fails(Method::PUT, "manifest.json", 1, Does::Answers(500));
    bucket.fails(Method::GET, "list-type=2", 1, Does::Answers(503));
    bucket.fails(Method::GET, events, 1, Does::Breaks);
    aged.round().await.unwrap();
    assert_eq!(bucket.recovers(), 0, "everything went wrong that should");
    let objects = bucket.objects();
    assert!(objects[events].len() > 2 * PART, "{}", objects[events].len());
    let requests = bucket.requests();
    let count = |method: &str, text: &str| {
        requests.iter().filter(|request| request.starts_with(method) && request.contains(text)).count()
    };
    assert!(count("PUT ", "partNumber=3&") >= 1, "{requests:#?}");
    assert_eq!(count("GET ", &format!("{events} bytes=")), 1, "it is read on from where it broke off");
    assert_eq!(bucket.uploads(), Vec::<String>::new());
    assert_eq!(folder_checks(&aged, &day(0)), Vec::<String>::new());
    assert_eq!(aged.cut().await, 250, "it left, since its archive verifies");
    for leaf in [0, 131, 249] {
        is_proven(&aged, leaf).await;
    }
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));
    println!(
        "{} bytes of events in 3 parts, {} objects, {} requests",
        objects[events].len(),
        objects.len(),
        requests.len()
    );
}

/// Nothing that is not whole is in its place, and nothing is recorded.
#[tokio::test]
async fn an_upload_that_is_broken_off_counts_for_nothing() {
    let mut aged = in_bucket(1).await;
    large_day(&mut aged, PART + PART / 2).await;
    aged.end_day().await;
    let bucket = bucket(&aged);
    let nothing = async |why: &str| {
        let objects = bucket.objects();
        assert!(!objects.contains_key("2020-01-01/events.jsonl"), "{why}");
        assert!(!objects.contains_key("2020-01-01/manifest.json"), "{why}");
        assert_eq!((aged.cut().await, aged.published("partition").await.len()), (0, 0), "{why}");
    };
    for (method, target, status) in
        [(Method::PUT, "partNumber=", 403), (Method::POST, "uploads", 400), (Method::POST, "uploadId=", 400)]
    {
        bucket.fails(method, target, 1, Does::Answers(status));
        let why = waits(&aged).await;
        assert!(why.contains("AsTold") && why.contains("events.jsonl"), "{target}: {why}");
        nothing(target).await;
        assert_eq!((bucket.recovers(), bucket.uploads()), (0, Vec::<String>::new()), "{target}: it is taken back");
    }

    // The end of the upload comes, but not its answer, and it cannot come twice: the file counts once it is written anew.
    bucket.fails(Method::POST, "uploadId=", 1, Does::Loses);
    let why = waits(&aged).await;
    assert!(why.contains("NoSuchUpload"), "{why}");
    assert!(bucket.objects().contains_key("2020-01-01/events.jsonl"));
    bucket.remove("2020-01-01/events.jsonl");
    nothing("its answer is lost").await;
    bucket.recovers();

    // Whoever is killed takes nothing back: parts stay, and count for nothing.
    bucket.fails(Method::PUT, "partNumber=", 100, Does::Hangs);
    tokio::select! {
        outcome = aged.round() => panic!("{outcome:?}"),
        () = bucket.hangs() => {}
    }
    nothing("killed").await;
    assert_eq!(bucket.uploads().len(), 1);
    bucket.recovers();
    aged.round().await.unwrap();
    assert_eq!((folder_checks(&aged, &day(0)), aged.cut().await), (Vec::new(), 150));
    assert_eq!(bucket.uploads().len(), 1, "a rule of the store removes it");
    is_proven(&aged, 149).await;
}

#[tokio::test]
async fn a_store_that_is_away_keeps_days_and_says_so() {
    let mut aged = in_bucket(1).await;
    pass(&mut aged, &[4, 3, 0]).await;
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 4 + 3);
    pass(&mut aged, &[5, 0]).await;
    aged.bucket.as_mut().unwrap().go().await;
    let why = waits(&aged).await;
    assert!(why.starts_with("the archive: ") && why.contains("Connection refused"), "{why}");
    assert_eq!((aged.cut().await, archived(&aged).await), (7, 2));
    let refused = proof(&aged, 0).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).0.as_str()), (tonic::Code::Unavailable, "unavailable"), "{refused:?}");
    // What is in the database is still there for everybody.
    aged.append(1).await;
    assert!(aged.verify().await.ok);
    aged.bucket.as_mut().unwrap().come_back().await;
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 7 + 5);
    is_proven(&aged, 0).await;
    is_proven(&aged, 11).await;

    // It goes between writing and reading again: what is written is not believed.
    pass(&mut aged, &[2, 0]).await;
    bucket(&aged).fails(Method::GET, "/", 1000, Does::Answers(500));
    let why = waits(&aged).await;
    assert!(why.contains("does not verify") && why.contains("AsTold"), "{why}");
    assert_eq!((aged.cut().await, archived(&aged).await), (12, 3));
    bucket(&aged).recovers();
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 15);
}

#[tokio::test]
async fn who_may_not_is_named_and_no_secret_is() {
    let mut aged = in_bucket(1).await;
    pass(&mut aged, &[2, 0]).await;
    let secret = ["AWS_SECRET_ACCESS_KEY", "another secret"];
    for ([name, value], code) in
        [(secret, "SignatureDoesNotMatch"), (["AWS_ACCESS_KEY_ID", "AKIDNOBODY"], "InvalidAccessKeyId")]
    {
        let environment = &mut aged.bucket.as_mut().unwrap().environment;
        let right = environment.insert(name.to_owned(), value.to_owned()).unwrap();
        let why = waits(&aged).await;
        assert!(why.contains(code) && !why.contains(value) && !why.contains("secret of"), "{why}");
        aged.bucket.as_mut().unwrap().environment.insert(name.to_owned(), right);
    }
    // Signed for another region than the store's.
    let region = std::mem::replace(&mut aged.settings.archive_region, "us-east-1".into());
    assert!(waits(&aged).await.contains("AuthorizationHeaderMalformed"));
    aged.settings.archive_region = region;
    assert!(bucket(&aged).requests().is_empty() && bucket(&aged).objects().is_empty());
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 2);
}

#[tokio::test]
async fn credentials_of_a_container_are_fetched_with_its_token() {
    let mut aged = in_bucket(1).await;
    pass(&mut aged, &[2, 0]).await;
    let file = aged.folder.path().join("token");
    aged.bucket.as_mut().unwrap().of_a_container(&file);
    std::fs::write(&file, "somebody else").unwrap();
    assert!(waits(&aged).await.contains("AccessDenied"));
    aged.bucket.as_mut().unwrap().of_a_container(&file);
    aged.round().await.unwrap();
    assert_eq!((folder_checks(&aged, &day(0)), aged.cut().await), (Vec::new(), 2));
}

#[tokio::test]
async fn a_store_with_tls_is_believed_by_its_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let mut aged = Aged::with(1, Some(Bucket::with_tls(&ca_file).await)).await;
    pass(&mut aged, &[2, 0]).await;
    let why = waits(&aged).await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    aged.settings.archive_ca_file = ca_file.display().to_string();
    aged.round().await.unwrap();
    assert_eq!((folder_checks(&aged, &day(0)), aged.cut().await), (Vec::new(), 2));
}

/// Somebody who waits for a store that does not answer does not keep the process.
#[tokio::test]
async fn reading_ends_where_the_process_closes() {
    let mut aged = in_bucket(1).await;
    pass(&mut aged, &[2, 0]).await;
    aged.round().await.unwrap();
    let (bucket, closing) = (bucket(&aged), CancellationToken::new());
    let found = |name: &str| bucket.environment.get(name).cloned();
    let archive = Archive::open(&aged.settings, &found, closing.clone()).unwrap().unwrap();
    assert_eq!(archive.envelope(&day(0), 2).await.unwrap(), None);
    bucket.fails(Method::GET, "events.jsonl", 1, Does::Hangs);
    let place = day(0);
    let (read, ()) = tokio::join!(archive.envelope(&place, 0), async {
        bucket.hangs().await;
        closing.cancel();
    });
    assert!(read.unwrap_err().to_string().contains("the process stops"));
    assert!(Archive::open(&Settings::default(), &found, closing).unwrap().is_none(), "without a place there is none");
}
