//! The folder of an export: marked while it is unfinished, so that what is there is never taken for a whole one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use age::stream::StreamWriter;
use age::x25519::Recipient;
use deltran_audit::domain::export::manifest::Manifest;
use deltran_audit::domain::export::{MANIFEST, PROOFS, RAW, is_export_file};
use deltran_audit::export::check::{Folder, Source};
use deltran_runtime::files::{hash_into, hash_of, write_whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// The mark of an unfinished export.
pub const UNFINISHED: &str = "export.unfinished";
/// Appended to the names of encrypted files.
const ENCRYPTED: &str = ".age";
const BUFFER: usize = 256 * 1024;

/// What an unfinished export was asked for, and which leaves that meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The arguments.
    pub asked: BTreeMap<String, String>,
    /// The first leaf, once it is known.
    pub from_leaf: u64,
    /// The leaf after the last one; 0 where it is not known.
    pub to_leaf: u64,
}

/// A folder that an export is written into.
pub struct ExportFolder {
    folder: PathBuf,
    recipient: Option<Recipient>,
    open: BTreeMap<String, Growing>,
    /// The last file of a leaf: there may be as many as events, so that only one is open.
    of_leaf: Option<(String, Growing)>,
}

struct Growing {
    out: Out,
    hash: Sha256,
    size: u64,
}

enum Out {
    Plain(BufWriter<File>),
    Encrypted(Box<StreamWriter<BufWriter<File>>>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Encrypted(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Encrypted(out) => out.flush(),
        }
    }
}

impl Growing {
    fn finish(self) -> io::Result<(u64, String)> {
        let file = match self.out {
            Out::Plain(out) => out,
            Out::Encrypted(out) => out.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok((self.size, hex::encode(self.hash.finalize())))
    }
}

impl ExportFolder {
    /// Opens a folder for an export: a new one, or one that goes on with what was asked for before. An encrypted one
    /// begins anew, because nobody here can read what is there.
    ///
    /// # Errors
    /// Where it holds something else, or cannot be written.
    pub fn open(
        folder: &Path,
        asked: &BTreeMap<String, String>,
        recipient: Option<Recipient>,
    ) -> Result<(Self, Option<Mark>), Problem> {
        let told = |e: io::Error| problem(folder, &e);
        fs::create_dir_all(folder).map_err(told)?;
        let mark = folder.join(UNFINISHED);
        let before = match fs::read(&mark) {
            Ok(bytes) => Some(
                serde_json::from_slice::<Mark>(&bytes)
                    .map_err(|e| Problem::refused(format!("{}: {e}: give another folder", mark.display())))?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(problem(&mark, &error)),
        };
        match &before {
            None if fs::read_dir(folder).map_err(told)?.next().is_some() => {
                let what = if folder.join(MANIFEST).exists() { "holds a finished export" } else { "is not empty" };
                return Err(Problem::refused(format!("{} {what}: give another folder", folder.display())));
            }
            Some(mark) if mark.asked != *asked => {
                let words: Vec<String> = mark.asked.iter().map(|(name, value)| format!("--{name} {value}")).collect();
                let message = format!(
                    "{} holds an unfinished export of something else ({}): ask for the same, or give another folder",
                    folder.display(),
                    words.join(" ")
                );
                return Err(Problem::refused(message));
            }
            _ => {}
        }
        let opened = Self { folder: folder.to_owned(), recipient, open: BTreeMap::new(), of_leaf: None };
        if before.is_some() && opened.recipient.is_some() {
            opened.clear().map_err(told)?;
        }
        if before.is_none() {
            opened.mark(&Mark { asked: asked.clone(), from_leaf: 0, to_leaf: 0 })?;
        }
        Ok((opened, before))
    }

    /// Notes what is under way.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn mark(&self, mark: &Mark) -> Result<(), Problem> {
        let file = self.folder.join(UNFINISHED);
        let bytes = serde_json::to_vec_pretty(mark).map_err(|e| Problem::refused(e.to_string()))?;
        write_whole(&file, &bytes, 0o644).map_err(|e| problem(&file, &e))
    }

    /// Bytes of each file that are there already, of an export that goes on.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn have(&self) -> Result<BTreeMap<String, u64>, Problem> {
        let mut have = BTreeMap::new();
        if self.recipient.is_some() {
            return Ok(have);
        }
        let told = |e: io::Error| problem(&self.folder, &e);
        for name in Folder(self.folder.clone()).names().map_err(told)? {
            // The manifest says when it was written, so it never goes on.
            if is_export_file(&name) && !name.starts_with(MANIFEST) {
                let size = fs::metadata(self.folder.join(&name)).map_err(told)?.len();
                have.insert(name, size);
            }
        }
        Ok(have)
    }

    /// Writes a piece where it belongs.
    ///
    /// # Errors
    /// Where it does not follow what is there, or cannot be written.
    pub fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> Result<(), Problem> {
        if !is_export_file(name) {
            return Err(Problem::refused(format!("the platform names a file {name:?}, which is none of an export")));
        }
        let told = |folder: &Path, e: io::Error| problem(&folder.join(name), &e);
        let of_leaf = name.contains('/');
        let known = if of_leaf {
            self.of_leaf.as_ref().is_some_and(|(last, _)| last == name)
        } else {
            self.open.contains_key(name)
        };
        if !known {
            let growing = self.begin(name, offset).map_err(|e| told(&self.folder, e))?;
            if of_leaf {
                self.end_of_leaf()?;
                self.of_leaf = Some((name.to_owned(), growing));
            } else {
                self.open.insert(name.to_owned(), growing);
            }
        }
        let growing = if of_leaf { self.of_leaf.as_mut().map(|(_, growing)| growing) } else { self.open.get_mut(name) };
        let Some(growing) = growing else { return Ok(()) };
        if growing.size != offset {
            let message = format!("a piece of {name} belongs at {offset}, the file has {} bytes", growing.size);
            return Err(Problem::refused(message));
        }
        growing.hash.update(data);
        growing.size += data.len() as u64;
        growing.out.write_all(data).map_err(|e| told(&self.folder, e))
    }

    /// Opens a file of which `have` bytes are there; they are read again for its hash.
    fn begin(&self, name: &str, have: u64) -> io::Result<Growing> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut hash = Sha256::new();
        if have > 0 {
            hash_into(&mut hash, &mut File::open(&path)?.take(have))?;
        }
        let file = OpenOptions::new().create(true).write(true).truncate(have == 0).append(have > 0).open(&path)?;
        let out = BufWriter::with_capacity(BUFFER, file);
        let out = match &self.recipient {
            None => Out::Plain(out),
            Some(recipient) => {
                let recipients = std::iter::once(recipient as &dyn age::Recipient);
                let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
                Out::Encrypted(Box::new(encryptor.wrap_output(out)?))
            }
        };
        Ok(Growing { out, hash, size: have })
    }

    fn path(&self, name: &str) -> PathBuf {
        let suffix = if self.recipient.is_some() { ENCRYPTED } else { "" };
        self.folder.join(format!("{name}{suffix}"))
    }

    fn end_of_leaf(&mut self) -> Result<(), Problem> {
        if let Some((name, growing)) = self.of_leaf.take() {
            growing.finish().map_err(|e| problem(&self.folder.join(&name), &e))?;
        }
        Ok(())
    }

    /// Ends every file, so that all of it survives a crash, and checks each against the manifest. Only then the mark goes.
    ///
    /// # Errors
    /// Where a file is not what the manifest says, or cannot be written.
    pub fn finish(mut self, manifest: &Manifest, manifest_sha256: &str) -> Result<(), Problem> {
        self.end_of_leaf()?;
        let mut sums = BTreeMap::new();
        for (name, growing) in std::mem::take(&mut self.open) {
            let sum = growing.finish().map_err(|e| problem(&self.folder.join(&name), &e))?;
            sums.insert(name, sum);
        }
        let known = sums.get(MANIFEST).map(|(_, hash)| hash.as_str());
        if known != Some(manifest_sha256) {
            return Err(Problem::refused(format!(
                "{MANIFEST} is not the one that the platform wrote: {}",
                self.again()
            )));
        }
        for entry in &manifest.files {
            let found = match sums.get(&entry.name) {
                Some(found) => found.clone(),
                // All of it was there already.
                None => {
                    let path = self.path(&entry.name);
                    let mut file = File::open(&path).map_err(|e| problem(&path, &e))?;
                    hash_of(&mut file).map_err(|e| problem(&path, &e))?
                }
            };
            if found != (entry.size, entry.sha256.clone()) {
                let message = format!(
                    "{} has {} bytes with SHA-256 {}, the platform wrote {} with {}: {}",
                    entry.name,
                    found.0,
                    found.1,
                    entry.size,
                    entry.sha256,
                    self.again()
                );
                return Err(Problem::refused(message));
            }
        }
        let mark = self.folder.join(UNFINISHED);
        fs::remove_file(&mark).map_err(|e| problem(&mark, &e))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|e| problem(&self.folder, &e))
    }

    fn again(&self) -> String {
        format!("remove {} and export again", self.folder.display())
    }

    /// The manifest as it was written, in clear.
    pub fn manifest(bytes: &[u8]) -> Result<Manifest, Problem> {
        Manifest::read(bytes).map_err(|e| Problem::refused(format!("{MANIFEST}: {e}")))
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == RAW || name == PROOFS {
                fs::remove_dir_all(entry.path())?;
            } else if name.ends_with(ENCRYPTED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What went wrong with a file, and what to do.
pub fn problem(path: &Path, error: &io::Error) -> Problem {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, and the same command goes on",
        _ => "",
    };
    Problem::refused(format!("{}: {error}{advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> BTreeMap<String, String> {
        [("from".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn only_the_same_export_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let (mut first, before) = ExportFolder::open(&folder, &asked("x"), None).unwrap();
        assert_eq!(before, None);
        first.write("events.jsonl", 0, b"one\n").unwrap();
        drop(first);
        let (mut again, before) = ExportFolder::open(&folder, &asked("x"), None).unwrap();
        assert!(before.is_some());
        assert_eq!(again.have().unwrap()["events.jsonl"], 4);
        again.write("events.jsonl", 4, b"two\n").unwrap();
        assert!(again.write("events.jsonl", 4, b"x").unwrap_err().message.contains("belongs at 4"));
        assert!(again.write("../x", 0, b"x").is_err());
        let other = ExportFolder::open(&folder, &asked("y"), None).err().unwrap();
        assert!(other.message.contains("--from x"), "{}", other.message);
        drop(again);
        assert_eq!(fs::read(folder.join("events.jsonl")).unwrap(), b"one\ntwo\n");
        fs::remove_file(folder.join(UNFINISHED)).unwrap();
        assert!(ExportFolder::open(&folder, &asked("x"), None).err().unwrap().message.contains("not empty"));
    }
}
