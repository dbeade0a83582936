//! Ports on loopback: the one asked for, else the usual one, else one that is free.

use std::io;
use std::net::TcpListener;

use super::error::EmbeddedError;

pub(super) struct Port {
    pub(super) port: u16,
    /// Chosen here, so another one would do as well.
    pub(super) chosen: bool,
    pub(super) note: Option<String>,
}

pub(super) fn choose(server: &'static str, wish: Option<u16>, usual: u16) -> Result<Port, EmbeddedError> {
    match (wish, wish.unwrap_or(usual)) {
        (Some(0), _) => {
            let port = free()?;
            Ok(Port { port, chosen: true, note: Some(format!("{server} listens on port {port}")) })
        }
        (Some(_), port) => match taken(port) {
            None => Ok(Port { port, chosen: false, note: None }),
            Some(source) => Err(EmbeddedError::PortTaken { server, port, source }),
        },
        (None, port) if taken(port).is_none() => Ok(Port { port, chosen: false, note: None }),
        (None, _) => {
            let port = free()?;
            Ok(Port { port, chosen: true, note: Some(format!("port {usual} is taken: {server} listens on {port}")) })
        }
    }
}

/// Why the port cannot be had; None when it can.
pub(super) fn taken(port: u16) -> Option<io::Error> {
    TcpListener::bind(("127.0.0.1", port)).err()
}

fn free() -> Result<u16, EmbeddedError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(EmbeddedError::NoFreePort)?;
    Ok(listener.local_addr().map_err(EmbeddedError::NoFreePort)?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_when_asked_for_and_a_note_when_usual() {
        let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let held = holder.local_addr().unwrap().port();

        let error = choose("the broker", Some(held), 4222).err().unwrap().to_string();
        assert!(error.contains(&format!("port {held}, which was asked for, cannot be used by the broker")), "{error}");

        let other = choose("the broker", None, held).unwrap();
        assert_ne!(other.port, held);
        assert_eq!(other.note, Some(format!("port {held} is taken: the broker listens on {}", other.port)));

        drop(holder);
        let same = choose("the broker", None, held).unwrap();
        assert_eq!((same.port, same.note), (held, None));
    }
}
