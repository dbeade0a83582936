//! Files that are there whole or not at all, and what they hash to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes read at once.
const BLOCK: usize = 256 * 1024;

/// Hashes everything that can be read, after what was hashed before; how many bytes that is.
///
/// # Errors
/// What the system says.
pub fn hash_into(hash: &mut Sha256, from: &mut dyn Read) -> io::Result<u64> {
    let (mut size, mut block) = (0, vec![0; BLOCK]);
    loop {
        match from.read(&mut block)? {
            0 => return Ok(size),
            n => {
                hash.update(block.get(..n).unwrap_or_default());
                size += n as u64;
            }
        }
    }
}

/// Size and SHA-256 (hexadecimal) of a file.
///
/// # Errors
/// What the system says.
pub fn hash_of_file(path: &Path) -> io::Result<(u64, String)> {
    hash_of(&mut File::open(path)?)
}

/// Size and SHA-256 (hexadecimal) of everything that can be read.
///
/// # Errors
/// What the system says.
pub fn hash_of(from: &mut dyn Read) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let size = hash_into(&mut hash, from)?;
    Ok((size, hex::encode(hash.finalize())))
}

/// Writes a file with these permissions so that it is there whole or as it was before, after a crash too.
///
/// # Errors
/// What the system says.
pub fn write_whole(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&unfinished, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
