//! The architecture, executed: which crate may depend on which, what a domain may name, where SQL may
//! stand, and what no file may contain.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const ENGINES: [&str; 8] =
    ["token", "compliance", "risk", "clearing", "settlement", "notification", "reporting", "audit"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    // Of this platform only: what others need is not here.
    let rustc = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(rustc.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--filter-platform", host].map(String::from))
        .exec()
        .unwrap()
}

/// Ends the test with every breach that was found.
fn none(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// The crates of the house by the name of their folder.
fn rooms(metadata: &Metadata) -> BTreeMap<&str, &cargo_metadata::Package> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.manifest_path.parent().unwrap().file_name().unwrap(), package))
        .collect()
}

/// What a crate of the house may know of the house.
fn may_know(room: &str) -> BTreeSet<&'static str> {
    let known: &[&str] = match room {
        "kernel" | "api" => &[],
        "events" => &["kernel"],
        "runtime" => &["kernel", "api"],
        "messaging" => &["kernel", "events", "api", "runtime"],
        engine if ENGINES.contains(&engine) => &["kernel", "events", "api", "runtime", "messaging"],
        "node" | "tests" => {
            return ["kernel", "events", "api", "runtime", "messaging"].into_iter().chain(ENGINES).collect();
        }
        other => panic!("{other} has no place in the house: say here what it may know"),
    };
    known.iter().copied().collect()
}

#[test]
fn arrows_point_the_right_way() {
    let metadata = metadata();
    let rooms = rooms(&metadata);
    let mut breaches = Vec::new();
    for (room, package) in &rooms {
        let allowed = may_know(room);
        for dependency in &package.dependencies {
            let Some((other, _)) = rooms.iter().find(|(_, p)| *p.name == dependency.name) else { continue };
            if !allowed.contains(other) {
                breaches.push(format!("{room} may not know {other}"));
            }
        }
    }
    none(breaches);
}

#[test]
fn only_some_may_reach_postgres_and_the_broker() {
    let metadata = metadata();
    let mut breaches = Vec::new();
    for (room, package) in rooms(&metadata) {
        let uses = |name: &str| package.dependencies.iter().any(|d| d.name == name);
        if uses("async-nats") && !["messaging", "tests"].contains(&room) {
            breaches.push(format!("{room} depends on async-nats: everything that touches the broker is in messaging"));
        }
        let stores = ENGINES.contains(&room) || ["runtime", "messaging", "tests"].contains(&room);
        if uses("sqlx") && !stores {
            breaches.push(format!("{room} depends on sqlx: only engines, runtime and messaging reach the database"));
        }
    }
    none(breaches);
}

/// Neither by itself nor through what it depends on.
#[test]
fn kernel_and_events_do_no_input_or_output() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut breaches = Vec::new();
    for room in ["kernel", "events"] {
        let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
        let mut open = vec![&rooms(&metadata)[room].id];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let normal =
                |dep: &&cargo_metadata::NodeDep| dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            open.extend(nodes[id].deps.iter().filter(normal).map(|dep| &dep.pkg));
        }
        for id in seen {
            let name = metadata[id].name.as_str();
            if ["tokio", "sqlx", "tonic", "async-nats", "hyper", "reqwest"].contains(&name) {
                breaches.push(format!("{room} depends on {name}"));
            }
        }
    }
    none(breaches);
}

/// Fail points stand behind `debug_assertions`, which a profile turns on and not a feature, so that whatever is built
/// along with the program cannot bring them into a release.
#[test]
fn no_release_build_has_fail_points() {
    const POINTS: &str = "engines/messaging/src/points.rs";
    let metadata = metadata();
    let mut breaches = Vec::new();
    for (room, package) in rooms(&metadata) {
        if room != "messaging" && package.dependencies.iter().any(|d| d.name == "fail") {
            breaches.push(format!("{room} depends on fail: points are reached through messaging"));
        }
    }
    for (name, text) in texts(|name| name.ends_with(".toml")) {
        for (number, line) in (1..).zip(text.lines()) {
            // `dev` and `test` have them without a word.
            if names(line, "debug-assertions") || line.contains("debug_assertions") {
                breaches.push(format!("{name}:{number}: no profile and no flag sets debug assertions"));
            }
        }
    }
    let mut uses = 0;
    for (name, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if !code(line).contains(concat!("fa", "il::")) || !names(code(line), "fail") {
                continue;
            }
            uses += 1;
            // The nearest attribute of an item above it.
            let guarded = lines[..at].iter().rev().find(|line| line.trim_start().starts_with("#["));
            if name != POINTS || guarded.is_none_or(|line| line.trim() != "#[cfg(debug_assertions)]") {
                breaches.push(format!("{name}:{}: a fail point that a release build would have", at + 1));
            }
        }
    }
    assert!(uses >= 2, "they were found");
    assert_eq!(deltran_messaging::points::COMPILED, cfg!(debug_assertions));
    none(breaches);
}

/// Every file of the tree that is kept, by its path from the root.
fn files() -> Vec<(String, PathBuf)> {
    const LEFT_OUT: [&str; 7] = ["target", ".git", ".tools", "data", ".venv", "__pycache__", "node_modules"];
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // `data` is where the private servers keep theirs; inside an engine it is the engine's.
            let left_out = LEFT_OUT.contains(&name.as_str()) && (name != "data" || folder == root);
            if path.is_symlink() || left_out {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// Files with a text, by path; others may come and go beside a test.
fn texts(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(name, path)| Some((name, std::fs::read_to_string(path).ok()?)))
        .collect()
}

fn rust_files() -> Vec<(String, String)> {
    let files = texts(|name| name.ends_with(".rs"));
    assert!(files.len() > 50, "the tree was found");
    files
}

/// Whether `word` stands in `line` with no letter, digit or underscore around it.
fn names(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside))
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

#[test]
fn domains_are_pure() {
    let mut breaches = Vec::new();
    for (name, text) in rust_files() {
        if !name.starts_with("engines/") || !name.contains("/src/domain/") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            for word in ["tokio", "sqlx", "tonic", "async_nats", "SystemTime", "Instant"] {
                if names(code(line), word) {
                    breaches.push(format!("{name}:{number}: a domain does not name {word}"));
                }
            }
        }
    }
    none(breaches);
}

#[test]
fn sql_stands_in_stores() {
    let mut breaches = Vec::new();
    for (name, text) in rust_files() {
        let Some((room, file)) = name.strip_prefix("engines/").and_then(|rest| rest.split_once("/src/")) else {
            continue;
        };
        let store = file == "store.rs" || file.starts_with("store/");
        if store || ["runtime", "messaging"].contains(&room) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if ["sqlx::query", "sqlx::raw_sql", "query_as::<", "query_scalar::<"]
                .iter()
                .any(|sql| code(line).contains(sql))
            {
                breaches.push(format!("{name}:{number}: SQL stands in store.rs or store/"));
            }
        }
    }
    none(breaches);
}

#[test]
fn files_are_tidy() {
    // Spelled apart, so that this file may be searched as well.
    let left = [concat!("dbg", "!("), concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ig", "nore")];
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK")];
    let mut breaches = Vec::new();
    for (name, text) in rust_files() {
        if !text.starts_with("//!") {
            breaches.push(format!("{name}: begins without a //! header"));
        }
        let lines = text.lines().count();
        if lines > 600 {
            breaches.push(format!("{name}: {lines} lines: at most 600"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            for word in left.iter().filter(|word| line.contains(**word)) {
                breaches.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    let spoken =
        |name: &str| [".rs", ".proto", ".sql", ".toml", ".sh", ".py", ".conf"].iter().any(|e| name.ends_with(e));
    for (name, text) in texts(spoken) {
        for (number, line) in (1..).zip(text.lines()) {
            for word in markers.iter().filter(|word| names(line, word)) {
                breaches.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    none(breaches);
}

#[test]
fn the_tree_holds_no_private_keys_and_no_paths_of_a_machine() {
    let keys = ["RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""]
        .map(|kind| format!("{}BEGIN {kind}{}-----", "-----", "PRIVATE KEY"));
    let paths = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let mut breaches = Vec::new();
    for (name, text) in texts(|_| true) {
        for (number, line) in (1..).zip(text.lines()) {
            if keys.iter().any(|key| line.contains(key)) {
                breaches.push(format!("{name}:{number}: a private key"));
            }
            for path in paths.iter().filter(|path| starts_a_path(line, path)) {
                breaches.push(format!("{name}:{number}: {path} is a path of one machine"));
            }
        }
    }
    none(breaches);
}

/// Whether an absolute path begins with `prefix`; inside a longer path or an address it does not count.
fn starts_a_path(line: &str, prefix: &str) -> bool {
    let before = |c: char| c.is_alphanumeric() || "_-./~}$*".contains(c);
    line.match_indices(prefix).any(|(at, _)| {
        let follows = line[at + prefix.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        follows && !line[..at].ends_with(before)
    })
}
