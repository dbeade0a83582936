//! What faults need of the machine: file systems that can be filled, and a clock that can be moved.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltran_kernel::{Clock, SystemClock};
use tokio::task::JoinHandle;

/// A small file system of its own. Dropped, it is taken away.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    filling: Option<(Arc<AtomicBool>, JoinHandle<u64>)>,
}

impl Disk {
    /// Mounts a file system of so many megabytes; says why where that is not possible here.
    pub fn mount(path: &Path, megabytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(path).map_err(|e| e.to_string())?;
        let size = format!("size={megabytes}m,mode=0711");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        match ran {
            Ok(ran) if ran.status.success() => Ok(Self { path: path.to_owned(), filling: None }),
            Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// Fills it to the last byte, and what becomes free again as well.
    pub fn fill(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (self.path.join("ballast"), stop.clone());
        let filling = tokio::task::spawn_blocking(move || {
            let mut file = File::create(&path).expect("a file on the disk that is to be full");
            let (piece, mut written) = (vec![1; 1 << 20], 0);
            while !stopped.load(Ordering::Relaxed) {
                let mut size = piece.len();
                while size > 0 {
                    match file.write(&piece[..size]) {
                        Ok(n) => written += n as u64,
                        // Full: smaller pieces, down to the last byte.
                        Err(_) => size /= 2,
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            written
        });
        self.filling = Some((stop, filling));
    }

    /// Frees it again; the bytes that it took to fill it.
    pub async fn free(&mut self) -> u64 {
        let Some((stop, filling)) = self.filling.take() else { return 0 };
        stop.store(true, Ordering::Relaxed);
        let written = filling.await.expect("filling ends");
        std::fs::remove_file(self.path.join("ballast")).expect("the ballast goes");
        written
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.filling.take() {
            stop.store(true, Ordering::Relaxed);
        }
        // Lazily: who still has files open there ends by himself.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A library that moves the clock of a program.
#[derive(Debug)]
pub struct FalseClock {
    library: PathBuf,
    file: PathBuf,
}

impl FalseClock {
    /// Compiles it and tries it; says why where that is not possible here.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let (source, library, file) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock.moved"));
        std::fs::write(&source, include_str!("clock.c")).map_err(|e| e.to_string())?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let ran = Command::new(compiler).args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).output();
        let ran = ran.map_err(|e| format!("cc: {e}"))?;
        if !ran.status.success() {
            return Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned());
        }
        let clock = Self { library, file };
        std::fs::write(&clock.file, 0_i64.to_ne_bytes()).map_err(|e| e.to_string())?;
        clock.by(3600);
        let mut date = Command::new("date");
        let told = clock.over(date.arg("+%s")).output().map_err(|e| format!("date: {e}"))?;
        clock.by(0);
        let told: i64 = String::from_utf8_lossy(&told.stdout).trim().parse().map_err(|e| format!("date: {e}"))?;
        let ahead = told - SystemClock.now().micros() / 1_000_000;
        if ahead > 3000 { Ok(clock) } else { Err(format!("a clock moved by 3600 s is ahead by {ahead} s")) }
    }

    /// Puts a program that is to be started under it.
    pub fn over<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.library).env("CHAOS_CLOCK", &self.file)
    }

    /// Moves the clock so far from the true time.
    pub fn by(&self, seconds: i64) {
        let file = File::options().write(true).open(&self.file).expect("the file of the clock");
        file.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0).expect("the clock can be moved");
    }
}
