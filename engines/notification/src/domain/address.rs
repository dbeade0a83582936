//! Where a webhook may go: which URLs are taken, and which addresses are connected to.
//!
//! A URL is judged when it is registered, and the addresses of its host again at every connection, since a
//! name may point elsewhere by then. The blocks are those of the IANA special-purpose address registries
//! (RFC 6890 and its successors).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use url::{Host, Url};

/// The longest URL, in bytes.
pub const MAX_URL: usize = 2_048;

/// Which URLs are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a URL that names the loopback interface itself is taken, over http too and on any port. For
    /// development: it lets a participant reach what listens on this machine.
    pub allow_loopback: bool,
    /// Ports of all other URLs.
    pub ports: BTreeSet<u16>,
}

/// What a URL's host must resolve to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the public internet, all of them.
    Public,
    /// The loopback interface.
    Loopback,
}

/// A URL that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL in its normal form.
    pub uri: Uri,
    /// The host as it is resolved: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// What the host must resolve to.
    pub reach: Reach,
}

/// Why a URL or an address is refused; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

fn refused(message: impl Into<String>) -> Refused {
    Refused(message.into())
}

impl Target {
    /// Judges a URL.
    ///
    /// # Errors
    /// [`Refused`] where it is none, or leads where a webhook may not go.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, Refused> {
        if text.len() > MAX_URL {
            return Err(refused(format!("has {} bytes: at most {MAX_URL} are allowed", text.len())));
        }
        // A URL parser drops or rewrites these, so that what is read is not what is meant.
        if let Some(odd) = text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '\\') {
            return Err(refused(format!("contains the character {odd:?}: write it percent-encoded")));
        }
        let url = Url::parse(text).map_err(|e| refused(format!("{text:?} is no URL: {e}")))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(refused(format!("the scheme {:?} is not taken: expected https", url.scheme())));
        }
        if text.contains('@') && (!url.username().is_empty() || url.password().is_some() || raw_userinfo(text)) {
            return Err(refused("names a user: deliveries are authenticated by their signature, leave it out"));
        }
        if url.fragment().is_some() {
            return Err(refused("has a fragment (#…), which is never sent: leave it out"));
        }
        let tls = url.scheme() == "https";
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or_else(|| refused("names port 0"))?;
        let (host, reach) = match url.host() {
            Some(Host::Ipv4(ip)) => {
                let written = raw_host(text);
                if written != ip.to_string() {
                    return Err(refused(format!(
                        "{written:?} is an odd way to write {ip}: write four decimal numbers"
                    )));
                }
                (ip.to_string(), literal(ip.into(), policy)?)
            }
            Some(Host::Ipv6(ip)) => (ip.to_string(), literal(ip.into(), policy)?),
            Some(Host::Domain(name)) => (name.to_owned(), named(name, policy)?),
            None => return Err(refused("names no host")),
        };
        if reach == Reach::Public {
            if !tls {
                return Err(refused("is http: expected https, so that what is sent stays confidential"));
            }
            if !policy.ports.contains(&port) {
                let ports: Vec<_> = policy.ports.iter().map(u16::to_string).collect();
                return Err(refused(format!("port {port} is not served: expected {}", ports.join(" or "))));
            }
        }
        let uri = url.as_str().parse().map_err(|e| refused(format!("{url} cannot be requested: {e}")))?;
        Ok(Self { uri, host, port, tls, reach })
    }
}

/// The authority as it was written, between the scheme and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest).trim_start_matches('/');
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

/// Whether there is userinfo as it was written; an empty one (`https://@host`) too.
fn raw_userinfo(text: &str) -> bool {
    authority(text).contains('@')
}

/// The host as it was written, without port and brackets.
fn raw_host(text: &str) -> &str {
    let authority = authority(text);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

fn literal(ip: IpAddr, policy: &Policy) -> Result<Reach, Refused> {
    match kind(ip) {
        None => Ok(Reach::Public),
        Some(Kind::Loopback) if policy.allow_loopback => Ok(Reach::Loopback),
        Some(kind) => Err(refused(format!("{ip} is {kind}: name a public host"))),
    }
}

fn named(name: &str, policy: &Policy) -> Result<Reach, Refused> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare == "localhost" || bare.ends_with(".localhost") {
        return if policy.allow_loopback && name == "localhost" {
            Ok(Reach::Loopback)
        } else {
            Err(refused(format!("{name} is this machine: name a public host")))
        };
    }
    let inside = [".local", ".internal", ".intranet", ".lan", ".home.arpa", ".onion"];
    if !bare.contains('.') || inside.iter().any(|suffix| bare.ends_with(suffix)) {
        return Err(refused(format!("{name} is a name of a private network: name a public host")));
    }
    Ok(Reach::Public)
}

/// Judges the addresses that a host resolved to; all of them, since any could be connected to.
///
/// # Errors
/// [`Refused`] where there is none, or one is not what `reach` asks for.
pub fn check(addresses: &[IpAddr], reach: Reach) -> Result<(), Refused> {
    if addresses.is_empty() {
        return Err(refused("the host has no address"));
    }
    for ip in addresses {
        match (kind(*ip), reach) {
            (None, Reach::Public) | (Some(Kind::Loopback), Reach::Loopback) => {}
            (None, Reach::Loopback) => return Err(refused(format!("{ip} is not the loopback interface"))),
            (Some(kind), _) => return Err(refused(format!("{ip} is {kind}"))),
        }
    }
    Ok(())
}

/// Why an address is not one of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918.
    Private,
    /// Shared by the customers of a provider (RFC 6598).
    CarrierNat,
    /// RFC 3927, RFC 4291; cloud metadata services answer there.
    LinkLocal,
    /// A metadata service on an otherwise public address.
    Metadata,
    /// For protocols (RFC 6890, RFC 2928).
    Protocol,
    /// For examples (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// For measurements (RFC 2544, RFC 5180).
    Benchmarking,
    /// Many receivers.
    Multicast,
    /// All receivers.
    Broadcast,
    /// Not assigned for use on the internet.
    Reserved,
    /// RFC 4193, and site-local addresses before it.
    UniqueLocal,
    /// An IPv4 address inside an IPv6 one (`::ffff:0:0/96`, `::/96`, `::ffff:0:0:0/96`).
    EmbeddedV4,
    /// RFC 6052, RFC 8215.
    Nat64,
    /// RFC 3056, and its relays.
    SixToFour,
    /// RFC 4380.
    Teredo,
    /// Discarded on the way (RFC 6666).
    Discard,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::CarrierNat => "shared by a provider's customers",
            Self::LinkLocal => "link-local",
            Self::Metadata => "a metadata service",
            Self::Protocol => "for protocols",
            Self::Documentation => "for documentation",
            Self::Benchmarking => "for benchmarks",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::UniqueLocal => "unique-local",
            Self::EmbeddedV4 => "an IPv4 address inside an IPv6 one",
            Self::Nat64 => "NAT64",
            Self::SixToFour => "6to4",
            Self::Teredo => "Teredo",
            Self::Discard => "discarded on the way",
        })
    }
}

type Block4 = ([u8; 4], u8, Kind);
type Block6 = ([u16; 8], u8, Kind);

/// The first block that holds an address says what it is.
const V4: &[Block4] = &[
    ([0, 0, 0, 0], 8, Kind::Unspecified),
    ([10, 0, 0, 0], 8, Kind::Private),
    ([100, 64, 0, 0], 10, Kind::CarrierNat),
    ([127, 0, 0, 0], 8, Kind::Loopback),
    // The wire server of Azure: reached from inside any of its machines.
    ([168, 63, 129, 16], 32, Kind::Metadata),
    ([169, 254, 0, 0], 16, Kind::LinkLocal),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 0, 0, 0], 24, Kind::Protocol),
    ([192, 0, 2, 0], 24, Kind::Documentation),
    ([192, 88, 99, 0], 24, Kind::SixToFour),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([198, 18, 0, 0], 15, Kind::Benchmarking),
    ([198, 51, 100, 0], 24, Kind::Documentation),
    ([203, 0, 113, 0], 24, Kind::Documentation),
    ([224, 0, 0, 0], 4, Kind::Multicast),
    ([255, 255, 255, 255], 32, Kind::Broadcast),
    ([240, 0, 0, 0], 4, Kind::Reserved),
];

const V6: &[Block6] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, Kind::Unspecified),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Kind::Loopback),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, Kind::EmbeddedV4),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, Kind::EmbeddedV4),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, Kind::EmbeddedV4),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Kind::Nat64),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Kind::Nat64),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Kind::Discard),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Kind::Teredo),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Kind::Benchmarking),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Kind::Protocol),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Kind::Documentation),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Kind::SixToFour),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Kind::Documentation),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Kind::UniqueLocal),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Kind::LinkLocal),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Kind::UniqueLocal),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Kind::Multicast),
];

/// Global unicast: nothing else is assigned on the internet.
const GLOBAL_V6: Block6 = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Kind::Reserved);

/// Why an address is not one of the public internet; none where it is.
pub fn kind(ip: IpAddr) -> Option<Kind> {
    match ip {
        IpAddr::V4(ip) => V4.iter().find(|(net, bits, _)| in_v4(ip, *net, *bits)).map(|(.., kind)| *kind),
        IpAddr::V6(ip) => {
            let special = V6.iter().find(|(net, bits, _)| in_v6(ip, *net, *bits)).map(|(.., kind)| *kind);
            let (net, bits, reserved) = GLOBAL_V6;
            special.or_else(|| (!in_v6(ip, net, bits)).then_some(reserved))
        }
    }
}

fn in_v4(ip: Ipv4Addr, net: [u8; 4], bits: u8) -> bool {
    let shift = 32 - u32::from(bits);
    (ip.to_bits() ^ u32::from_be_bytes(net)) >> shift == 0
}

fn in_v6(ip: Ipv6Addr, net: [u16; 8], bits: u8) -> bool {
    let shift = 128 - u32::from(bits);
    (ip.to_bits() ^ Ipv6Addr::from(net).to_bits()) >> shift == 0
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
