//! The files of a screening list, as they are found and sent.

use std::path::{Path, PathBuf};

use deltran_api::compliance::v1::LoadListRequest;

use crate::problem::Problem;

/// The most that a list may have, over its files.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What one message carries.
const PIECE: usize = 1024 * 1024;
/// The files of OFAC's layout; the first is necessary.
const OFAC: [&str; 3] = ["sdn.csv", "alt.csv", "add.csv"];

/// A file to be sent: the name it has for the platform, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name in the list; empty where the source has one file only.
    pub name: &'static str,
    /// Where it lies.
    pub path: PathBuf,
}

/// The files of a list: what was named, and for `ofac` what lies beside it, whatever case their names are in.
///
/// # Errors
/// Where a file is missing.
pub fn find(given: &Path, source: &str) -> Result<Vec<Found>, Problem> {
    let shown = given.display();
    if source != "ofac" {
        if given.is_dir() {
            return Err(Problem::usage(format!("{shown} is a folder: name the file of the {source} list")));
        }
        return Ok(vec![Found { name: "", path: given.to_owned() }]);
    }
    let folder = if given.is_dir() { given } else { given.parent().unwrap_or(Path::new("")) };
    let mut found = Vec::new();
    for name in OFAC {
        let path = if name == OFAC[0] && given.is_file() { Some(given.to_owned()) } else { beside(folder, name) };
        found.extend(path.map(|path| Found { name, path }));
    }
    if found.first().is_none_or(|first| first.name != OFAC[0]) {
        return Err(Problem::refused(format!("{shown} has no sdn.csv: name it, or the folder that it is in")));
    }
    Ok(found)
}

fn beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find(|path| {
        path.is_file() && path.file_name().is_some_and(|found| found.to_string_lossy().eq_ignore_ascii_case(name))
    })
}

/// What was found and what was not, for people.
pub fn tell(found: &[Found]) -> String {
    let names: Vec<String> = found.iter().map(|file| file.path.display().to_string()).collect();
    let missing: Vec<&str> = match found.first() {
        Some(first) if first.name == OFAC[0] => {
            OFAC.into_iter().filter(|name| !found.iter().any(|file| file.name == *name)).collect()
        }
        _ => Vec::new(),
    };
    let without = if missing.is_empty() { String::new() } else { format!("; there is no {}", missing.join(", no ")) };
    format!("{}{without}", names.join(", "))
}

/// The requests that carry the files, in pieces that fit into messages.
///
/// # Errors
/// Where a file cannot be read, or they are too large.
pub fn requests(source: &str, found: &[Found]) -> Result<Vec<LoadListRequest>, Problem> {
    let mut size = 0;
    let mut requests = Vec::new();
    for file in found {
        let unreadable = |e: std::io::Error| Problem::refused(format!("{}: {e}", file.path.display()));
        size += file.path.metadata().map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(Problem::refused(format!("{} bytes and more: at most {MAX_BYTES} are taken", size)));
        }
        let content = std::fs::read(&file.path).map_err(unreadable)?;
        let piece = |content: &[u8]| LoadListRequest {
            source: source.to_owned(),
            file: file.name.to_owned(),
            content: content.to_vec(),
        };
        // An empty file is sent too: the platform says what is wrong with it.
        if content.is_empty() {
            requests.push(piece(&[]));
        }
        requests.extend(content.chunks(PIECE).map(piece));
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_ofac_are_found_beside_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(find(folder.path(), "ofac").is_err(), "there is no sdn.csv");
        for name in ["SDN.CSV", "alt.csv", "other.csv"] {
            std::fs::write(path(name), "x").unwrap();
        }
        for given in [folder.path().to_owned(), path("SDN.CSV")] {
            let found = find(&given, "ofac").unwrap();
            assert_eq!(found.iter().map(|file| file.name).collect::<Vec<_>>(), ["sdn.csv", "alt.csv"]);
            assert!(tell(&found).ends_with("alt.csv; there is no add.csv"), "{}", tell(&found));
        }
        let found = find(&path("other.csv"), "un").unwrap();
        assert_eq!((found.len(), found[0].name), (1, ""));
        assert!(find(folder.path(), "un").is_err());
    }

    #[test]
    fn files_are_cut_into_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        std::fs::write(&path, vec![b'a'; PIECE + 5]).unwrap();
        let found = find(&path, "operator").unwrap();
        let sizes: Vec<_> = requests("operator", &found).unwrap().iter().map(|r| r.content.len()).collect();
        assert_eq!(sizes, [PIECE, 5]);
        std::fs::write(&path, "").unwrap();
        assert_eq!(requests("operator", &found).unwrap().len(), 1);
        let gone = [Found { name: "", path: folder.path().join("gone") }];
        assert!(requests("operator", &gone).is_err());
    }
}
