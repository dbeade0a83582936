//! A database on several servers, of which one takes writes: which one that is, and a way to it that follows it.
//!
//! The URL names them all, as libpq has it: `postgres://user@a:5432,b:5432/deltran`. The server that is not in recovery is
//! written to. A server that comes back with an older timeline than was written to before is never written to again: it was
//! the primary once and does not know that there is another.
//!
//! Connections lead through a door on loopback, so that they can be cut from outside when their server is given up. Nobody
//! tells a client that waits for the answer of a host without power; it would wait for ever.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{Connection, PgConnection, PgExecutor};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::db::DbError;

/// Between two looks at a server that is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One in so many looks asks all servers: the one that is written to may be a primary of old, found while the new one
/// did not answer.
const ALL_IN: u32 = 10;
/// Between two searches while none takes writes.
const SEARCH_EVERY: Duration = Duration::from_millis(250);
/// A server that does not answer in this time is passed over.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes that are carried at once.
const CARRIED: usize = 64 << 10;
/// What the connections call themselves that only ask which server takes writes: they do no work of an engine.
const ASKING: &str = "deltran asking for the primary";

/// The timeline that a server writes to, in hexadecimal; NULL in recovery, where it writes nothing.
const TIMELINE: &str =
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END";

/// A URL for each host of a URL, in their order.
///
/// # Errors
/// Where `target_session_attrs` asks for another server than the one that takes writes.
pub fn each_host(url: &str) -> Result<Vec<String>, DbError> {
    let invalid = |why: String| Err(DbError::Other(format!("database URL is not valid: {why}")));
    let Some((scheme, rest)) = url.split_once("://") else { return invalid("it has no ://".into()) };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let mut kept = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.strip_prefix("target_session_attrs=") {
            None => kept.push(option),
            Some("read-write" | "primary") => {}
            Some(other) => return invalid(format!("target_session_attrs={other} is neither read-write nor primary")),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    if hosts.contains(',') && hosts.split(',').any(str::is_empty) {
        return invalid("a host between two commas is empty".into());
    }
    Ok(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}{query}")).collect())
}

/// The servers of a database.
pub(crate) struct Servers {
    all: Vec<PgConnectOptions>,
    primary: watch::Sender<Primary>,
}

/// What is known of the one that takes writes.
#[derive(Debug, Clone, Default)]
struct Primary {
    index: usize,
    /// The highest that was ever written to.
    timeline: u32,
    /// Cancelled, it cuts the connections to this server. None while no server takes writes.
    way: Option<CancellationToken>,
}

impl Servers {
    /// The servers of a URL; `prepare` adds what every connection has.
    pub(crate) fn of(url: &str, prepare: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Result<Self, DbError> {
        let options = |url: String| {
            PgConnectOptions::from_str(&url)
                .map(&prepare)
                .map_err(|e| DbError::Other(format!("database URL is not valid: {e}")))
        };
        let all = each_host(url)?.into_iter().map(options).collect::<Result<_, _>>()?;
        Ok(Self { all, primary: watch::Sender::default() })
    }

    /// A connection to the one that takes writes.
    pub(crate) async fn connect(&self) -> Result<PgConnection, DbError> {
        let index = if self.all.len() == 1 { 0 } else { self.search().await?.0 };
        Ok(PgConnection::connect_with(&self.all[index]).await?)
    }

    /// What leads to the one that takes writes, whichever it is at the time, as long as [`Servers::follow`] runs; and the
    /// door, where there are several servers.
    pub(crate) fn way(&self) -> Result<(PgConnectOptions, Option<TcpListener>), DbError> {
        let first = self.all[0].clone();
        if self.all.len() == 1 {
            return Ok((first, None));
        }
        let door = || {
            let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok::<_, std::io::Error>((port, TcpListener::from_std(listener)?))
        };
        let (port, listener) = door().map_err(|e| DbError::Other(format!("no port on loopback: {e}")))?;
        Ok((first.host("127.0.0.1").port(port), Some(listener)))
    }

    /// Carries what comes through the door to the server that takes writes, until `ended`. Ends by itself where there is
    /// only one server.
    pub(crate) async fn follow(
        self: Arc<Self>,
        door: Option<TcpListener>,
        pool: PgPool,
        engine: &'static str,
        ended: CancellationToken,
    ) {
        let Some(door) = door else { return };
        let opened = async {
            loop {
                match door.accept().await {
                    Ok((inner, _)) => drop(tokio::spawn(self.clone().carry(inner))),
                    // Too many open files, for now.
                    Err(_) => sleep(SEARCH_EVERY).await,
                }
            }
        };
        tokio::select! {
            () = opened => {}
            () = self.look(&pool, engine) => {}
            () = ended.cancelled() => {}
        }
        self.lose();
    }

    /// Carries one connection to the server that takes writes, as soon as there is one, until it is given up.
    async fn carry(self: Arc<Self>, mut inner: TcpStream) {
        let mut known = self.primary.subscribe();
        let Ok(primary) = known.wait_for(|primary| primary.way.is_some()).await.map(|primary| primary.clone()) else {
            return;
        };
        let Some(way) = primary.way else { return };
        let options = &self.all[primary.index];
        let connecting = TcpStream::connect((options.get_host(), options.get_port()));
        // Whatever fails here ends both connections, which is what a client understands.
        let Ok(Ok(mut outer)) = timeout(ANSWER, connecting).await else { return };
        if inner.set_nodelay(true).and(outer.set_nodelay(true)).is_err() {
            return;
        }
        tokio::select! {
            _ = copy_bidirectional_with_sizes(&mut inner, &mut outer, CARRIED, CARRIED) => {}
            () = way.cancelled() => {}
        }
    }

    /// Whether a server with this timeline is to be written to.
    fn accept(&self, timeline: Option<u32>) -> Result<(), String> {
        let known = self.primary.borrow().timeline;
        match timeline {
            None => Err("this server is a standby".into()),
            Some(timeline) if timeline < known => {
                Err(format!("this server was the primary up to timeline {timeline}, and {known} is there already"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Looks at the server again and again; when it does not take writes, looks for the one that does.
    async fn look(&self, pool: &PgPool, engine: &'static str) {
        let mut failures = 0u32;
        // Which it is at first nobody knows.
        let mut well = false;
        for look in (0..ALL_IN).cycle() {
            if !well || look == 0 {
                match self.search().await {
                    Ok((index, timeline)) => {
                        failures = 0;
                        if self.choose(index, timeline) {
                            let server = self.name(index);
                            tracing::info!(engine, server, timeline, "this server takes the writes");
                        }
                    }
                    Err(_) if well => {}
                    Err(error) => {
                        self.lose();
                        failures += 1;
                        if failures.is_power_of_two() {
                            tracing::warn!(engine, %error, failures, "no server of the database takes writes");
                        }
                    }
                }
            }
            sleep(if failures == 0 { LOOK_EVERY } else { SEARCH_EVERY }).await;
            well = failures == 0 && self.is_well(pool).await;
        }
    }

    /// Whether the pool leads to a server that takes writes.
    async fn is_well(&self, pool: &PgPool) -> bool {
        let look = async {
            let mut connection = pool.acquire().await?;
            timeline(&mut *connection).await
        };
        matches!(timeout(ANSWER, look).await, Ok(Ok(timeline)) if self.accept(timeline).is_ok())
    }

    /// Leads to this server; whether it is another than before.
    fn choose(&self, index: usize, timeline: u32) -> bool {
        self.primary.send_if_modified(|primary| {
            primary.timeline = primary.timeline.max(timeline);
            let another = primary.way.is_none() || primary.index != index;
            if another {
                primary.index = index;
                if let Some(way) = primary.way.replace(CancellationToken::new()) {
                    way.cancel();
                }
            }
            another
        })
    }

    /// Leads to no server for now.
    fn lose(&self) {
        self.primary.send_modify(|primary| {
            if let Some(way) = primary.way.take() {
                way.cancel();
            }
        });
    }

    /// The server that takes writes, and its timeline: the highest, where two believe that they do.
    async fn search(&self) -> Result<(usize, u32), DbError> {
        let answers = join_all(self.all.iter().map(|options| async {
            let look = async {
                let mut connection = PgConnection::connect_with(&options.clone().application_name(ASKING)).await?;
                let timeline = timeline(&mut connection).await?;
                // The connection ends either way.
                let _ = connection.close().await;
                Ok::<_, sqlx::Error>(timeline)
            };
            match timeout(ANSWER, look).await {
                Ok(Ok(timeline)) => self.accept(timeline).map(|()| timeline.unwrap_or_default()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
            }
        }))
        .await;
        let taking = answers.iter().enumerate().filter_map(|(index, answer)| Some((index, *answer.as_ref().ok()?)));
        if let Some(found) = taking.max_by_key(|(index, timeline)| (*timeline, std::cmp::Reverse(*index))) {
            return Ok(found);
        }
        let said = answers.into_iter().enumerate().filter_map(|(index, answer)| Some((index, answer.err()?)));
        let said: Vec<String> = said.map(|(index, why)| format!("{}: {why}", self.name(index))).collect();
        Err(DbError::Unavailable(format!("no server takes writes ({})", said.join("; "))))
    }

    fn name(&self, index: usize) -> String {
        format!("{}:{}", self.all[index].get_host(), self.all[index].get_port())
    }
}

/// The timeline that a server writes to; none in recovery.
pub(crate) async fn timeline(server: impl PgExecutor<'_>) -> Result<Option<u32>, sqlx::Error> {
    let text: Option<String> = sqlx::query_scalar(TIMELINE).fetch_one(server).await?;
    let number = |text: String| {
        u32::from_str_radix(&text, 16).map_err(|e| sqlx::Error::Protocol(format!("timeline {text:?} is none: {e}")))
    };
    text.map(number).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_gets_a_url_of_its_own() {
        let rows: [(&str, &[&str]); 6] = [
            ("postgres://h", &["postgres://h"]),
            ("postgres:///d?host=/run", &["postgres:///d?host=/run"]),
            ("postgres://u:p,q@h/d", &["postgres://u:p,q@h/d"]),
            ("postgres://u:p@a:1,b/d?x=1", &["postgres://u:p@a:1/d?x=1", "postgres://u:p@b/d?x=1"]),
            ("postgres://a,[::1]:2/d?target_session_attrs=read-write", &["postgres://a/d", "postgres://[::1]:2/d"]),
            ("postgres://a?x=1&target_session_attrs=primary&y=2", &["postgres://a?x=1&y=2"]),
        ];
        for (url, expected) in rows {
            assert_eq!(each_host(url).unwrap(), expected, "{url}");
        }
        for (url, why) in [
            ("h", "://"),
            ("postgres://a,,b/d", "empty"),
            ("postgres://a,b/d?target_session_attrs=any", "target_session_attrs=any"),
        ] {
            assert!(each_host(url).unwrap_err().to_string().contains(why), "{url}");
        }
    }

    #[test]
    fn a_standby_and_a_primary_of_old_are_not_written_to() {
        let servers = Servers::of("postgres://a,b/d", |options| options).unwrap();
        assert!(servers.choose(1, 2) && !servers.choose(1, 2));
        assert!(servers.accept(None).unwrap_err().contains("standby"));
        assert!(servers.accept(Some(1)).unwrap_err().contains("up to timeline 1"));
        assert_eq!((servers.accept(Some(2)), servers.accept(Some(3))), (Ok(()), Ok(())));
        assert!(servers.choose(0, 3));
        assert!(servers.accept(Some(2)).is_err());
    }

    #[tokio::test]
    async fn connections_go_through_the_door_to_the_server_that_was_chosen_and_are_cut_when_it_is_given_up() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let echo = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener.local_addr().unwrap().port(), listener)
        };
        let ((a, first), (b, second)) = (echo().await, echo().await);
        let url = format!("postgres://127.0.0.1:{a},127.0.0.1:{b}/d");
        let servers = Arc::new(Servers::of(&url, |options| options).unwrap());
        let (inside, door) = servers.way().unwrap();
        let door = door.unwrap();
        assert_eq!(door.local_addr().unwrap().port(), inside.get_port());

        let mut client = TcpStream::connect(("127.0.0.1", inside.get_port())).await.unwrap();
        tokio::spawn(servers.clone().carry(door.accept().await.unwrap().0));
        client.write_all(b"before a server was found").await.unwrap();
        servers.choose(1, 2);
        let mut taken = second.accept().await.unwrap().0;
        let mut said = [0; 25];
        taken.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"before a server was found");
        servers.choose(0, 3);
        assert_eq!(client.read(&mut said).await.unwrap(), 0, "it is cut");

        let mut client = TcpStream::connect(("127.0.0.1", inside.get_port())).await.unwrap();
        tokio::spawn(servers.clone().carry(door.accept().await.unwrap().0));
        let _taken = first.accept().await.unwrap();
        servers.lose();
        assert_eq!(client.read(&mut said).await.unwrap(), 0, "it is cut");
    }

    #[tokio::test]
    async fn where_no_server_answers_each_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("postgres://127.0.0.1:{port},localhost:{port}/d");
        let servers = Servers::of(&url, |options| options).unwrap();
        let error = servers.connect().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_transient() && text.contains("127.0.0.1:") && text.contains("localhost:"), "{text}");
    }
}
