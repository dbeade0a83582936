//! Signed webhooks: the desk that keeps endpoints, and the sender that delivers.

pub mod client;
pub mod connector;
pub mod desk;
pub mod lane;
pub mod random;
pub mod sender;
pub mod settings;
pub mod vault;

use std::sync::Arc;

use deltran_messaging::Door;
use deltran_runtime::EngineContext;
use deltran_runtime::boot::BootError;
use tokio::sync::Notify;

use crate::config::Settings;
use client::Client;
use connector::{Connector, Resolve, SystemResolver, tls};
use desk::Desk;
use random::{Random, SystemRandom};
use sender::Sender;
use vault::Vault;

/// The parts of webhooks, connected.
pub struct Webhooks {
    /// Carries out the commands on endpoints.
    pub desk: Arc<Desk>,
    /// Delivers.
    pub sender: Sender,
    /// Tells the sender that something was filed.
    pub wake: Arc<Notify>,
}

impl Webhooks {
    /// Webhooks of the engine, over the machine's resolver and random generator.
    ///
    /// # Errors
    /// Where the master key or the authorities cannot be read.
    pub fn new(context: &EngineContext, door: &Door, settings: &Settings) -> Result<Self, BootError> {
        Self::over(context, door, settings, Arc::new(SystemResolver), Arc::new(SystemRandom::default()))
    }

    /// The same, over a resolver and a random generator.
    ///
    /// # Errors
    /// As [`Webhooks::new`].
    pub fn over(
        context: &EngineContext,
        door: &Door,
        settings: &Settings,
        resolver: Arc<dyn Resolve>,
        random: Arc<dyn Random>,
    ) -> Result<Self, BootError> {
        let own = &settings.webhooks;
        let vault = Vault::open(&settings.master_key, &settings.master_key_file, random.clone());
        let vault = Arc::new(vault.map_err(BootError::Other)?);
        if !vault.is_open() {
            tracing::warn!("webhook endpoints cannot be registered: no master key is set");
        }
        let policy = Arc::new(own.policy(settings.allow_loopback));
        let connector = Connector {
            resolver,
            policy: policy.clone(),
            tls: tls(&own.ca_file).map_err(BootError::Other)?,
            timeout: own.connect_timeout(),
        };
        let idle = usize::try_from(own.per_endpoint).unwrap_or(1);
        let client = Client::new(connector, own.timeout(), idle, context.clock.clone());
        let wake = Arc::new(Notify::new());
        let overlap = i64::try_from(own.rotation_overlap_seconds).unwrap_or(0).saturating_mul(1_000_000);
        let desk = Desk::new(context, door.clone(), vault.clone(), policy, overlap, wake.clone());
        let sender = Sender::new(context.clone(), door.clone(), vault, client, random, wake.clone(), own);
        Ok(Self { desk: Arc::new(desk), sender, wake })
    }
}
