//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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
