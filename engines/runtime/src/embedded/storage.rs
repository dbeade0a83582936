//! The watch over the private broker's storage. Out of space, nats-server gives up the stream that it could not write to,
//! or switches JetStream off, and takes neither up again: it has to be started again, once there is room.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::time::{Instant, sleep, timeout};

use super::nats;

/// Between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
/// So many looks in a row must see it switched off.
const LOOKS: u32 = 3;
/// How long it may be off after a start without having been seen on: streams are read back then.
const STARTING: Duration = Duration::from_secs(120);
/// What the server says where it is off: of a stream (2.15), and of all of them (older ones, and where it cannot write its own
/// state).
const OFF: [&str; 2] = ["write error", "JetStream not enabled"];
/// With less than this free it would soon be switched off again.
const ROOM: u64 = 32 << 20;

/// Returns, in words, when JetStream has been switched off and a start would help: when the disk has room again.
/// `free` tells the free bytes of the disk, where it can be asked.
pub(super) async fn switched_off(monitor_port: u16, every: Duration, free: impl Fn() -> Option<u64>) -> String {
    let since = Instant::now();
    let mut seen = Seen::default();
    while !seen.is_off(look(monitor_port).await, since.elapsed() < STARTING) {
        sleep(every).await;
    }
    let mut left = free();
    tracing::error!(
        child.name = "nats",
        disk.free_bytes = ?left,
        disk.needed_bytes = ROOM,
        "the broker has given up a stream, as it does where its disk is full: what belongs there is not published until the \
         disk of the data folder has room again; the broker is then started again by itself"
    );
    while left.is_some_and(|bytes| bytes < ROOM) {
        sleep(every).await;
        left = free();
    }
    "it had given up a stream, and its disk has room".to_owned()
}

/// The bytes that may still be written to the file system of a folder.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = statvfs(folder).ok()?;
    // Their widths differ from system to system.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "as above")]
    let (blocks, size) = (u64::try_from(disk.blocks_available()).ok()?, u64::try_from(disk.fragment_size()).ok()?);
    Some(blocks.saturating_mul(size))
}

/// What the server says of JetStream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    On,
    Off,
    /// No answer, or another: it is busy, stopped or not up yet.
    Unknown,
}

/// What looks say together.
#[derive(Debug, Default)]
struct Seen {
    on: bool,
    off_in_a_row: u32,
}

impl Seen {
    /// Takes a look; whether JetStream is off and stays so.
    fn is_off(&mut self, look: Look, starting: bool) -> bool {
        match look {
            Look::On => *self = Self { on: true, off_in_a_row: 0 },
            Look::Off => self.off_in_a_row = self.off_in_a_row.saturating_add(1),
            Look::Unknown => self.off_in_a_row = 0,
        }
        self.off_in_a_row >= LOOKS && (self.on || !starting)
    }
}

async fn look(monitor_port: u16) -> Look {
    match timeout(ANSWER, nats::health(monitor_port)).await {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(_)) | Err(_) => Look::Unknown,
    }
}

fn read(answer: &str) -> Look {
    match answer.split_ascii_whitespace().nth(1) {
        Some("200") => Look::On,
        Some("503") if OFF.iter().any(|word| answer.contains(word)) => Look::Off,
        _ => Look::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SWITCHED_OFF: &str = "HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n\
                       {\"status\":\"unavailable\",\"status_code\":503,\"error\":\"JetStream not enabled\"}";
    const GIVEN_UP: &str = "HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n\
                            {\"status\":\"unavailable\",\"error\":\"JetStream stream '$G \\u003e RISK' write error: write 1.blk: \
                            no space left on device\"}";

    #[test]
    fn only_the_servers_own_word_is_taken_for_switched_off() {
        let rows = [
            ("HTTP/1.0 200 OK\r\n\r\n{\"status\":\"ok\"}", Look::On),
            (SWITCHED_OFF, Look::Off),
            (GIVEN_UP, Look::Off),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"error\":\"not ready for connections\"}", Look::Unknown),
            ("HTTP/1.0 404 Not Found\r\n\r\n", Look::Unknown),
            ("", Look::Unknown),
        ];
        for (answer, expected) in rows {
            assert_eq!(read(answer), expected, "{answer}");
        }
    }

    #[test]
    fn it_is_off_when_several_looks_in_a_row_say_so_and_it_does_not_just_start() {
        use Look::{Off, On, Unknown};
        let rows: [(&[Look], bool, bool); 8] = [
            (&[On, Off, Off, Off], true, true),
            (&[On, Off, Off, Off], false, true),
            (&[On, Off, Off], false, false),
            (&[On, Off, Off, Unknown, Off, Off], false, false),
            (&[On, Off, Off, On, Off, Off], false, false),
            (&[Unknown, Off, Off, Off], true, false),
            (&[Unknown, Off, Off, Off], false, true),
            (&[On, Unknown, Unknown, Unknown], false, false),
        ];
        for (looks, starting, expected) in rows {
            let mut seen = Seen::default();
            let mut off = false;
            for look in looks {
                off = seen.is_off(*look, starting);
            }
            assert_eq!(off, expected, "{looks:?} {starting}");
        }
    }

    #[tokio::test]
    async fn a_start_is_asked_for_only_once_the_disk_has_room() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // A server that was on at the first look, and says from then on that it is off.
        let server = tokio::spawn(async move {
            for asked in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let answer = if asked == 0 { "HTTP/1.0 200 OK\r\n\r\n" } else { SWITCHED_OFF };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let disk = Arc::new((AtomicU64::new(ROOM - 1), AtomicU64::new(0)));
        let asked = Arc::clone(&disk);
        let free = move || {
            // Nobody gives room before it was asked for twice.
            if asked.1.fetch_add(1, Ordering::Relaxed) == 2 {
                asked.0.store(ROOM, Ordering::Relaxed);
            }
            Some(asked.0.load(Ordering::Relaxed))
        };
        let why = switched_off(port, Duration::from_millis(1), free).await;
        assert!(why.contains("given up a stream"), "{why}");
        assert_eq!(disk.1.load(Ordering::Relaxed), 3);
        server.abort();
    }

    #[test]
    fn the_free_bytes_of_a_folder_are_known() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).is_some());
        assert_eq!(free_bytes(&folder.path().join("missing")), None);
    }
}
