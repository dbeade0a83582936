//! The log as static files: the same bytes before days left the database and after, entries among them, and nothing that the
//! archive has not as it was signed.

use std::collections::BTreeMap;

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_audit::archive::Archive;
use deltran_audit::domain::tile::{TilePath, WIDTH, tiles_of};
use deltran_messaging::Delivery;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::aged::{Aged, asked, day, failed, reason};
use crate::bucket::Bucket;
use crate::kept::Kept;

type Files = BTreeMap<String, Vec<u8>>;

/// The files that come before the first refusal, and that one.
async fn files(aged: &Aged, request: pb::GetTilesRequest) -> (Files, Option<Status>) {
    let service = aged.service_with_archive().await;
    let mut answers = service.get_tiles(asked(request)).await.unwrap().into_inner();
    let mut files = Files::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(file) => assert!(files.insert(file.path, file.content).is_none(), "each file once"),
            Err(refused) => return (files, Some(refused)),
        }
    }
    (files, None)
}

async fn whole(aged: &Aged, size: u64) -> Files {
    let request = pb::GetTilesRequest { size, from_leaf: 0, hashes_only: false };
    let (files, refused) = files(aged, request).await;
    assert!(refused.is_none(), "{refused:?}");
    files
}

/// A day of so many leaves; one of each has bytes beside it.
async fn pass_day(aged: &mut Aged, n: u64, leaves: u64) {
    if leaves > 0 {
        let mut batch: Vec<Delivery> = (1..leaves).map(|_| aged.event(Some("ALFAAEXX"), "c1")).collect();
        batch.push(aged.place.message("events.risk.a.b", format!("junk\n{n}"), false));
        aged.place.apply(&aged.sequencer, &batch).await.unwrap();
    }
    aged.end_day().await;
}

async fn size(aged: &Aged) -> u64 {
    aged.place.ledger().size().await.unwrap().0
}

/// Most days begin and end within a bundle, some have none, a few have several.
#[tokio::test]
async fn days_give_the_same_files_before_they_left_and_after() {
    let mut aged = Aged::new(8).await;
    for n in 0..40u64 {
        let leaves = match n {
            0 => 3,
            n if n % 6 == 0 => 300,
            n => n * 7 % 5,
        };
        pass_day(&mut aged, n, leaves).await;
    }
    let size = size(&aged).await;
    let before = whole(&aged, size).await;
    aged.round().await.unwrap();
    let cut = aged.cut().await;
    assert!(cut > 1024 && cut < size && !cut.is_multiple_of(WIDTH), "{cut} of {size}: the cut stands within a bundle");
    let online: i64 =
        sqlx::query_scalar("SELECT min(leaf_index) FROM leaf").fetch_one(&mut aged.place.root).await.unwrap();
    assert_eq!(online as u64, cut, "what is below is not in the database");

    let after = whole(&aged, size).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, content) in &before {
        assert_eq!(Some(content), after.get(path), "{path}");
    }
    let entries = |width| size.div_ceil(width) as usize;
    assert_eq!(after.len(), tiles_of(0, size).len() + entries(WIDTH) + 1, "tiles, bundles and the checkpoint");

    // Whoever has a copy up to somewhere is given the rest of the same files, from within an archived day too.
    for from_leaf in [1, WIDTH, 700, cut - 1, cut, cut + 1] {
        let request = pb::GetTilesRequest { size, from_leaf, hashes_only: false };
        let (rest, refused) = files(&aged, request).await;
        assert!(refused.is_none(), "{from_leaf}: {refused:?}");
        assert!(rest.iter().all(|(path, content)| before.get(path) == Some(content)), "{from_leaf}");
        let bundles = rest.keys().filter(|path| path.starts_with("tile/entries/")).count();
        assert_eq!(bundles, entries(WIDTH) - (from_leaf / WIDTH) as usize, "{from_leaf}");
    }
    // And of an earlier size, which ended below the cut.
    let earlier = aged.closed.iter().map(|day| day.to).find(|to| *to > 600).unwrap();
    assert!(earlier < cut);
    let then = whole(&aged, earlier).await;
    let last = TilePath::of_entries(earlier / WIDTH, earlier % WIDTH).to_string();
    let full = TilePath::of_entries(earlier / WIDTH, WIDTH).to_string();
    assert!(before[&full].starts_with(&then[&last]), "{last} is the beginning of {full}");
    let report = aged.verify().await;
    assert!(report.ok, "{:?}", failed(&report));
}

#[tokio::test]
async fn a_bucket_gives_the_same_files() {
    let mut aged = Aged::with(3, Some(Bucket::new().await)).await;
    for (n, leaves) in [3, 300, 0, 20, 255, 7, 1].into_iter().enumerate() {
        pass_day(&mut aged, n as u64, leaves).await;
    }
    let size = size(&aged).await;
    let before = whole(&aged, size).await;
    aged.round().await.unwrap();
    assert_eq!(aged.cut().await, 323);
    assert_eq!(before, whole(&aged, size).await);
}

/// The archive is asked for nothing that it could answer otherwise than it was signed.
#[tokio::test]
async fn an_archive_that_does_not_verify_serves_nothing_wrong() {
    type Tamper = fn(Kept<'_>);
    // What is done, the code and reason of the refusal, and what it says.
    let cases: [(Tamper, Code, &str, &str); 5] = [
        (|a| a.change("2020-01-02/events.jsonl"), Code::FailedPrecondition, "not_included", "2020-01-02: leaf "),
        (|a| a.write("2020-01-02/events.jsonl", ""), Code::FailedPrecondition, "not_included", "leaf 3 is missing"),
        (|a| a.remove("2020-01-02/events.jsonl"), Code::Unavailable, "unavailable", "2020-01-02"),
        (|a| a.change("tile/0/000"), Code::FailedPrecondition, "not_included", "tile/0/000 does not lead"),
        (|a| a.remove("tile/0/000"), Code::FailedPrecondition, "not_online", "nor in the archive"),
    ];
    for (n, (tamper, code, word, says)) in cases.into_iter().enumerate() {
        let mut aged = Aged::new(1).await;
        for (n, leaves) in [3, 300, 4, 1].into_iter().enumerate() {
            pass_day(&mut aged, n as u64, leaves).await;
        }
        let size = size(&aged).await;
        let before = whole(&aged, size).await;
        aged.round().await.unwrap();
        assert!(aged.cut().await >= 303, "day {} left", day(1));
        tamper(aged.kept());
        let request = pb::GetTilesRequest { size, from_leaf: 0, hashes_only: false };
        let (came, refused) = files(&aged, request).await;
        let refused = refused.unwrap_or_else(|| panic!("case {n}: nothing was refused"));
        assert_eq!((refused.code(), reason(&refused).0.as_str()), (code, word), "case {n}: {refused:?}");
        assert!(refused.message().contains(says), "case {n}: {}", refused.message());
        assert!(
            came.iter().all(|(path, content)| before.get(path) == Some(content)),
            "case {n}: what came is as it was"
        );
        let bundles = came.keys().filter(|path| path.starts_with("tile/entries/")).count();
        assert!(bundles == 0 && !came.contains_key("checkpoint"), "case {n}: {:?}", came.keys());
    }
}

/// A day is read a part at a time, from the first line on.
#[tokio::test]
async fn the_events_of_a_day_are_read_in_parts() {
    let mut aged = Aged::new(1).await;
    for (n, leaves) in [9, 1, 1].into_iter().enumerate() {
        pass_day(&mut aged, n as u64, leaves).await;
    }
    let leaves = aged.place.ledger().window(0, 9).await.unwrap();
    aged.round().await.unwrap();
    let archive = Archive::in_folder(aged.settings.archive_directory.as_ref(), CancellationToken::new()).unwrap();
    let wanted = |from: usize, to: usize| leaves[from..to].iter().map(|l| l.envelope.clone()).collect::<Vec<_>>();
    let events = archive.events(&day(0));
    let (events, first) = events.read(0, 2).await.unwrap();
    let (events, later) = events.read(5, 7).await.unwrap();
    let (_, last) = events.read(7, 20).await.unwrap();
    assert_eq!((first, later, last), (wanted(0, 2), wanted(5, 7), wanted(7, 9)), "and fewer where the day ends");
}
