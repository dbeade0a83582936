//! Ports of servers that are stopped and started again.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the kernel gives to outgoing connections (from 32,768 on), one of which could else have taken the
/// port of a server that is down.
const FIRST: u32 = 12_000;
const COUNT: u32 = 18_000;

/// Ports that nobody listens on, and that nobody is given while their servers are down.
///
/// # Panics
/// Where every port is taken.
pub fn lasting<const N: usize>() -> [u16; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run side by side begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    [(); N].map(|()| {
        (0..COUNT)
            .map(|_| TAKEN.fetch_add(1, Ordering::Relaxed))
            .filter_map(|n| u16::try_from(FIRST + begin.wrapping_add(n) % COUNT).ok())
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("a free port")
    })
}
