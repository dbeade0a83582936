//! Files that are broken in part or whole.

use deltran_tests::node::Deltran;
use serde_json::json;

const HEADER: &str = "end_to_end_id,payer,payee,amount,currency\n";

/// Good lines are taken; each bad one is in the report with its number and reason. A second run changes nothing.
pub async fn bad_lines_are_reported_and_the_others_taken(node: &Deltran) {
    let mut text = HEADER.as_bytes().to_vec();
    text.extend_from_slice(b"FILE-1,ALFAAEXX,BRAVINXX,10.00,USD\n");
    text.extend_from_slice(b"FILE-2,ALFAAEXX,BRAV\xc4NXX,10.00,USD\n");
    text.extend_from_slice(b"FILE-3,ALFAAEXX,NOBODEXX,10.00,USD\r\n");
    text.extend_from_slice(b"FILE-4,ALFAAEXX,BRAVINXX,10.00,ZZZ\n");
    text.extend_from_slice(b"\n");
    text.extend_from_slice(b"FILE-5,BRAVINXX,ALFAAEXX,10.00,USD\n");
    text.extend_from_slice(b"FILE-6,ALFAAEXX,BRAVINXX,10");
    let file = node.write("bad.csv", &text);
    for (round, replayed) in [(1, 0), (2, 2)] {
        let report = node.path().join(format!("report{round}.csv")).display().to_string();
        let ran = node.run(&["transaction", "submit", "--file", &file, "--report", &report]).await;
        assert_eq!(ran.code, 1, "{}", ran.error);
        let json = &ran.json;
        assert_eq!(
            [&json["lines"], &json["accepted"], &json["malformed"]],
            [&json!(6), &json!(2), &json!(3)],
            "{json:#}"
        );
        assert_eq!(json["refused_by_reason"], json!({"unknown_participant": 1}), "{json:#}");
        assert!(json["replayed"].as_u64().unwrap() >= replayed, "{json:#}");
        let report = std::fs::read_to_string(report).unwrap();
        let mut lines: Vec<&str> = report.lines().collect();
        // The ledger's refusals come when they come.
        lines[1..].sort_unstable();
        assert_eq!(lines.len(), 5, "{report}");
        for (line, parts) in lines.iter().zip([
            ["line", "reason"],
            ["3,FILE-2,", "not UTF-8"],
            ["4,FILE-3,", "unknown_participant"],
            ["5,FILE-4,", "currency"],
            ["8,FILE-6,", "4 columns where the header has 5"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
        }
    }
}

/// A file that cannot be used at all: an exit code, one line that says why, and nothing done.
pub async fn unusable_files_are_refused_in_one_line(node: &Deltran) {
    let before = node.transactions().await.len();
    let colour = format!("{}FILE-9,ALFAAEXX,BRAVINXX,1.00,USD,red\n", HEADER.replace('\n', ",colour\n"));
    let unknown = node.write("unknown.csv", colour);
    let lacking = node.write("lacking.csv", "end_to_end_id,payer,payee,amount\nFILE-9,ALFAAEXX,BRAVINXX,1.00\n");
    let twice = node.write("twice.csv", HEADER.replace('\n', ",payer\n"));
    let empty = node.write("empty.csv", "");
    let folder = node.path().display().to_string();
    let submit = ["transaction", "submit", "--file"];
    let import = ["participant", "import", "--file"];
    let rows: [([&str; 3], &str, &str); 7] = [
        (submit, &unknown, "unknown column"),
        (submit, &lacking, "column \\\"currency\\\" is missing"),
        (submit, &twice, "stands twice"),
        (submit, &empty, "is empty"),
        (submit, "/nowhere/at/all.csv", "/nowhere/at/all.csv"),
        (import, "/nowhere/at/all.csv", "/nowhere/at/all.csv"),
        (submit, &folder, "directory"),
    ];
    for (command, file, why) in rows {
        let ran = node.run(&[command[0], command[1], command[2], file]).await;
        assert!(matches!(ran.code, 1 | 2), "{file}: {} {}", ran.code, ran.error);
        assert_eq!(ran.error.trim().lines().count(), 1, "{file}: {}", ran.error);
        assert!(ran.error.contains(why), "{file}: {}", ran.error);
    }
    // A report that would overwrite what is submitted, by another name too.
    let good = format!("{HEADER}FILE-10,ALFAAEXX,BRAVINXX,1.00,USD\n");
    let file = node.write("good.csv", &good);
    let other = node.path().join("other.csv").display().to_string();
    std::fs::hard_link(&file, &other).unwrap();
    for report in [&file, &other] {
        let ran = node.run(&["transaction", "submit", "--file", &file, "--report", report]).await;
        assert!(ran.code == 1 && ran.error.contains("would overwrite it"), "{}", ran.error);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), good);
    }
    assert_eq!(node.transactions().await.len(), before);
}
