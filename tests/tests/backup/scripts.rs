//! What the scripts refuse.

use std::fs;

use crate::support::{run, scripts};

#[tokio::test]
async fn a_file_of_the_archive_is_never_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir(at("wal")).unwrap();
    fs::write(at("segment"), "one").unwrap();
    let script = scripts().join("archive-wal.sh");
    let keep = async || run(&script, &[&at("segment"), "000000010000000000000001", &at("wal")], &[]).await;
    assert_eq!(keep().await.0, 0);
    assert_eq!(keep().await.0, 0, "the same once more");
    fs::write(at("segment"), "two").unwrap();
    let (code, _, error) = keep().await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(error.contains("with other content"), "{error}");
    assert_eq!(fs::read_to_string(at("wal/000000010000000000000001")).unwrap(), "one");
    assert_eq!(fs::read_dir(at("wal")).unwrap().count(), 1, "nothing unfinished is left");

    let script = scripts().join("restore-wal.sh");
    let fetch = async |name: &str, archive: &str| run(&script, &[name, &at("fetched"), archive], &[]).await.0;
    assert_eq!(fetch("000000010000000000000002", &at("wal")).await, 1, "the end of the archive");
    assert_eq!(fetch("000000010000000000000001", &at("nowhere")).await, 200, "no archive stops the replay");
    assert_eq!(fetch("000000010000000000000001", &at("wal")).await, 0);
    assert_eq!(fs::read_to_string(at("fetched")).unwrap(), "one");
}

#[tokio::test]
async fn every_script_shows_how_and_refuses_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let there = place.path().display().to_string();
    let mut count = 0;
    for script in fs::read_dir(scripts()).unwrap().map(|entry| entry.unwrap().path()) {
        let (code, out, _) = run(&script, &["--help"], &[]).await;
        assert!(code == 0 && out.contains("Examples:"), "{}", script.display());
        assert_eq!(run(&script, &[], &[]).await.0, 2, "{}", script.display());
        count += 1;
    }
    assert!(count >= 6, "{count} scripts");
    let rows: [(&str, &[&str], i32, &str); 7] = [
        ("postgres-backup.sh", &["--to", "/nowhere"], 1, "/nowhere is no folder"),
        ("postgres-restore.sh", &["--from", &there, "--to", "/nowhere/a"], 2, "one moment"),
        ("postgres-restore.sh", &["--from", &there, "--to", "/nowhere/a", "--latest", "--immediate"], 2, "one moment"),
        ("postgres-restore.sh", &["--from", &there, "--to", "/nowhere/a", "--latest"], 1, "no base backup"),
        ("streams-backup.sh", &["--to", "/nowhere"], 1, "/nowhere is no folder"),
        ("streams-restore.sh", &["--from", &there], 1, "no manifest.json"),
        ("streams-restore.sh", &["--form", &there], 2, "--form is not known"),
    ];
    for (script, args, expected, part) in rows {
        let (code, _, error) = run(&scripts().join(script), args, &[]).await;
        assert_eq!((code, error.lines().count()), (expected, 1), "{script}: {error}");
        assert!(error.contains(part), "{script}: {error}");
    }
}
