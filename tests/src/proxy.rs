//! A TCP proxy between a client and a server that cuts, delays or withholds what passes, each way by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// Pieces that may be on their way in one direction before the sender has to wait.
const IN_FLIGHT: usize = 256;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    There,
    /// From the server to the client.
    Back,
}

/// What happens to bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// Each comes so much later than it was sent; their order stays.
    Late(Duration),
    /// None passes until the flow is another, and nobody is told; connections stay open. Then they pass in order.
    Held,
}

/// A proxy on a port of its own. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    there: Line,
    back: Line,
    cuts: watch::Sender<u64>,
}

#[derive(Debug)]
struct Line {
    flow: watch::Sender<Flow>,
    carried: AtomicU64,
}

impl Line {
    fn new() -> Self {
        Self { flow: watch::Sender::new(Flow::Open), carried: AtomicU64::new(0) }
    }
}

impl Proxy {
    /// Listens on a free port of loopback and carries each connection to the target.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { target, there: Line::new(), back: Line::new(), cuts: watch::Sender::new(0) });
        let carrying = shared.clone();
        let accepting = tokio::spawn(async move {
            loop {
                // Failing means that the client is gone again, or that files are short for a moment.
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(client, carrying.clone()));
                }
            }
        });
        Self { address, shared, accepting: accepting.abort_handle() }
    }

    /// In front of the server that a URL on loopback names; the URL that leads through it.
    pub async fn before(url: &str) -> (Self, String) {
        let at = url.find("127.0.0.1:").unwrap_or_else(|| panic!("{url} names no port of 127.0.0.1"));
        let end = url[at..].find(['/', '?']).map_or(url.len(), |end| at + end);
        let proxy = Self::to(url[at..end].parse().expect("an address")).await;
        let through = format!("{}{}{}", &url[..at], proxy.address, &url[end..]);
        (proxy, through)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What happens to bytes of one direction from now on, those on their way included.
    pub fn set(&self, way: Way, flow: Flow) {
        self.line(way).flow.send_replace(flow);
    }

    /// The same in both directions.
    pub fn set_both(&self, flow: Flow) {
        self.set(Way::There, flow);
        self.set(Way::Back, flow);
    }

    /// Breaks off every connection; what was on its way is lost. New ones are carried.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.cuts.receiver_count()
    }

    /// Bytes that passed so far in one direction.
    pub fn carried(&self, way: Way) -> u64 {
        self.line(way).carried.load(Ordering::Relaxed)
    }

    fn line(&self, way: Way) -> &Line {
        match way {
            Way::There => &self.shared.there,
            Way::Back => &self.shared.back,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    // Dropping the client tells it that nobody is there.
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    for stream in [&client, &server] {
        // Only speed depends on it.
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        // The first that fails ends both, as a broken connection does.
        tokio::try_join!(pump(from_client, to_server, &shared.there), pump(from_server, to_client, &shared.back))
    };
    tokio::select! {
        _ = both => {}
        _ = cuts.changed() => {}
    }
}

/// Carries one direction to its end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async move {
        let mut flow = line.flow.subscribe();
        let mut buffer = vec![0; 16 << 10];
        loop {
            open(&mut flow).await;
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            let late = match *flow.borrow() {
                Flow::Late(by) => by,
                Flow::Open | Flow::Held => Duration::ZERO,
            };
            if sender.send((Instant::now() + late, buffer[..n].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        let mut flow = line.flow.subscribe();
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            open(&mut flow).await;
            to.write_all(&piece).await?;
            line.carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        // Where the client has gone meanwhile there is nobody to tell.
        let _ = to.shutdown().await;
        Ok::<_, std::io::Error>(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Waits while the flow is held.
async fn open(flow: &mut watch::Receiver<Flow>) {
    // An error means that the proxy is gone; the connection goes with it.
    let _ = flow.wait_for(|flow| *flow != Flow::Held).await;
}
