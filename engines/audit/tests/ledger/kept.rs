//! Where an archive is kept, for tests that go behind its back: a folder or a bucket.

use std::path::{Path, PathBuf};

use crate::bucket::Bucket;

/// The archive's files.
pub enum Kept<'a> {
    Folder(PathBuf),
    Bucket(&'a Bucket),
}

impl Kept<'_> {
    pub fn read(&self, name: &str) -> Vec<u8> {
        match self {
            Self::Folder(folder) => std::fs::read(folder.join(name)).unwrap(),
            Self::Bucket(bucket) => bucket.objects()[name].to_vec(),
        }
    }

    pub fn write(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(name);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, bytes.into()).unwrap();
            }
            Self::Bucket(bucket) => bucket.put(name, bytes.into()),
        }
    }

    pub fn remove(&self, name: &str) {
        match self {
            Self::Folder(folder) => std::fs::remove_file(folder.join(name)).unwrap(),
            Self::Bucket(bucket) => bucket.remove(name),
        }
    }

    /// Changes one bit.
    pub fn change(&self, name: &str) {
        let mut bytes = self.read(name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.write(name, bytes);
    }

    /// A day as a folder, as somebody has it who asked for a copy.
    pub fn copy_of(&self, day: &str, into: &Path) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(day),
            Self::Bucket(bucket) => {
                for (name, bytes) in bucket.objects().iter().filter(|(name, _)| name.starts_with(&format!("{day}/"))) {
                    let file = into.join(name);
                    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                    std::fs::write(file, bytes).unwrap();
                }
                into.join(day)
            }
        }
    }

    pub fn clear(&self) {
        match self {
            Self::Folder(folder) => std::fs::remove_dir_all(folder).unwrap(),
            Self::Bucket(bucket) => bucket.clear(),
        }
    }
}
