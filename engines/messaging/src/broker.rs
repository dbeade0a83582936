//! The connection to NATS JetStream.

use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, Context};
use deltran_runtime::lease::RoundError;
use tokio::sync::watch;

use crate::decoder::Decoder;

/// Publishes under way at once over all relays of a process.
const MAX_INFLIGHT: usize = 16_384;

/// Why the broker did not do it.
#[derive(Debug, thiserror::Error)]
#[error("broker: {0}")]
pub struct BrokerError(pub String);

impl BrokerError {
    /// From anything that has a text.
    pub fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl From<BrokerError> for RoundError {
    fn from(error: BrokerError) -> Self {
        Self::Later(error.to_string())
    }
}

/// What the broker says about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamInfo {
    /// Messages that it holds.
    pub messages: u64,
    /// The lowest sequence that it holds; one above the last where it holds none.
    pub first_sequence: u64,
    /// The last sequence that it gave out.
    pub last_sequence: u64,
}

/// A connection that comes back by itself when the broker does.
#[derive(Clone)]
pub struct Broker {
    client: async_nats::Client,
    jetstream: Context,
    decoder: Decoder,
    /// How often it was connected.
    connections: watch::Receiver<u64>,
}

impl Broker {
    /// Begins to connect; succeeds while the broker is away and connects when it is there.
    ///
    /// # Errors
    /// Where the URL cannot be read.
    pub async fn connect(url: &str, name: &str) -> Result<Self, BrokerError> {
        let servers: Vec<async_nats::ServerAddr> = url
            .split(',')
            .map(|u| u.trim().parse().map_err(|e| BrokerError(format!("URL {u:?} is not valid: {e}"))))
            .collect::<Result<_, _>>()?;
        let (connected, connections) = watch::channel(0);
        let client = async_nats::ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|attempts| Duration::from_millis((50 << attempts.min(5)) as u64))
            .event_callback(move |event| {
                tracing::info!(%event, "broker connection");
                if matches!(event, async_nats::Event::Connected) {
                    connected.send_modify(|count| *count += 1);
                }
                async {}
            })
            .connect(servers)
            .await
            .map_err(BrokerError::new)?;
        let jetstream = ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            // What a broker that died has not acknowledged is sent again after this.
            .ack_timeout(Duration::from_secs(5))
            .max_ack_inflight(MAX_INFLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self { client, jetstream, decoder: Decoder::default(), connections })
    }

    /// Whether the broker answers at present.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Changes when the connection was made anew: what was on its way over the last one is lost.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        connections
    }

    /// The core connection.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// What a stream holds; `None` where there is no such stream.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, BrokerError> {
        use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
        match self.jetstream.get_stream(stream).await {
            Ok(stream) => {
                let state = &stream.cached_info().state;
                Ok(Some(StreamInfo {
                    messages: state.messages,
                    first_sequence: state.first_sequence,
                    last_sequence: state.last_sequence,
                }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(BrokerError::new(error)),
            },
        }
    }

    /// What all consumers on this connection decode with.
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// JetStream.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }
}
