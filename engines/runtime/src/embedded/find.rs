//! Where programs are looked for, and how their version is read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folders that may hold a program: PATH, then the usual places, then `.tools/bin` of the folders above the current one
/// and above this program, where `setup/install.sh` puts what it builds.
pub(super) fn folders(usual: &[PathBuf]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    all.extend(usual.iter().cloned());
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    for start in starts.iter().flatten() {
        all.extend(start.ancestors().map(|folder| folder.join(".tools/bin")));
    }
    let mut seen = Vec::with_capacity(all.len());
    for folder in all {
        // A relative entry of PATH would mean another program in each folder.
        if folder.is_absolute() && !seen.contains(&folder) {
            seen.push(folder);
        }
    }
    seen
}

/// A folder below the user's own.
pub(super) fn home(below: &str) -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below))
}

/// The folders `parent/<prefix>…/tail`, highest version first.
pub(super) fn versioned(parent: &str, prefix: &str, tail: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(Option<Version>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?;
            let folder = entry.path().join(tail);
            folder.is_dir().then(|| (Version::parse(rest), folder))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder)| folder).collect()
}

pub(super) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What `program --version` says, or None where it does not run.
pub(super) fn version(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Version::parse(&String::from_utf8_lossy(&output.stdout))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl Version {
    pub(super) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The first number in the text, with up to two more after dots.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let number = text[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        Some(Self::new(parts.next()?, parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        let rows = [
            ("nats-server: v2.15.2\n", Version::new(2, 15, 2)),
            ("nats-server: v2.14.0-RC.1", Version::new(2, 14, 0)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Version::new(15, 18, 0)),
            ("postgres (PostgreSQL) 18beta1", Version::new(18, 0, 0)),
        ];
        for (text, version) in rows {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        assert_eq!(Version::parse("no number"), None);
    }

    #[test]
    fn the_highest_version_comes_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "15", "17", "other"] {
            std::fs::create_dir_all(parent.path().join(name).join("bin")).unwrap();
        }
        let found = versioned(parent.path().to_str().unwrap(), "", "bin");
        let names: Vec<_> =
            found.iter().map(|folder| folder.strip_prefix(parent.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["17/bin", "15/bin", "9/bin", "other/bin"]);
    }

    #[test]
    fn the_tools_folder_above_this_program_is_searched() {
        let own = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(".tools/bin");
        assert!(folders(&[]).contains(&own));
    }
}
