//! The one door to Postgres: a pool per engine, bound to its schema and role, its transactions and
//! their metrics.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::Metrics;
use crate::primary::{self, Servers};
use crate::renewal::Renewals;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection, or it was lost. What was under way may or may not have been committed.
    #[error("database does not answer: {0}")]
    Unavailable(String),
    /// The lease is not held (any more): another process leads.
    #[error("the lease is not held")]
    NotLeader,
    /// A stored value cannot be what it is: a defect or tampering.
    #[error("stored data is not valid: {0}")]
    Corrupt(String),
    /// Anything else: a defect.
    #[error("database error: {0}")]
    Other(String),
}

impl DbError {
    /// A stored value that cannot be what it is.
    pub fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Classes of SQLSTATE after which the same transaction may succeed when tried again:
/// serialization failure and deadlock.
const RETRY: [&str; 2] = ["40001", "40P01"];
/// Classes that mean that the server is not there: connection exceptions, operator intervention
/// (shutdown, crash, still starting), insufficient resources, read-only while failing over.
const AWAY: [&str; 4] = ["08", "57", "53", "25006"];

/// So long a connection that has answered counts as one that answers.
const BELIEVED: Duration = Duration::from_secs(1);

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default();
                if AWAY.iter().any(|class| code.starts_with(class)) || RETRY.contains(&code.as_ref()) || code == "25P03"
                {
                    Self::Unavailable(error.to_string())
                } else {
                    Self::Other(error.to_string())
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A transaction. It ends with [`Tx::commit`]; dropped before that, it is rolled back.
pub struct Tx {
    inner: sqlx::Transaction<'static, Postgres>,
}

impl Tx {
    /// Commits. After an error the outcome is unknown: read back before telling anyone.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.inner.commit().await?)
    }
}

impl Deref for Tx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

/// A pool of connections of one engine.
#[derive(Clone)]
pub struct Db {
    engine: &'static str,
    pool: PgPool,
    /// One connection, so that leases are renewed however busy the pool is.
    renewing: PgPool,
    renewals: Renewals,
    metrics: Metrics,
    /// Dropped with the last clone, it ends the search for the server that takes writes.
    _following: Arc<DropGuard>,
}

/// How an engine's pool is opened.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// The database's URL; with several hosts, the one that takes writes is used.
    pub url: String,
    /// At most this many connections.
    pub max_connections: u32,
    /// How long to wait for a connection before the database counts as unavailable.
    pub acquire_timeout: Duration,
}

impl Db {
    /// Opens the pool of an engine: its schema is the search path, its role the only rights.
    ///
    /// Connections are made when they are needed, so this succeeds while the database is away.
    pub fn open(engine: &'static str, options: &DbOptions, metrics: Metrics) -> Result<Self, DbError> {
        let servers = servers(&options.url, engine, Some(&role_of(engine)))?;
        let (connect, door) = servers.way()?;
        let pool = |connections: u32| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(options.acquire_timeout)
                .max_lifetime(None)
                .test_before_acquire(false)
                .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta)))
                .connect_lazy_with(connect.clone())
        };
        let (pool, renewing, ended) = (pool(options.max_connections), pool(1), CancellationToken::new());
        tokio::spawn(Arc::new(servers).follow(door, pool.clone(), engine, ended.clone()));
        let renewals = Renewals::by(renewing.clone());
        Ok(Self { engine, pool, renewing, renewals, metrics, _following: Arc::new(ended.drop_guard()) })
    }

    /// Whose pool it is.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// The pool, for reading outside a transaction.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The timeline that the database writes in; none in recovery.
    ///
    /// # Errors
    /// Where it does not answer, or the server has none, as some managed ones.
    pub async fn timeline(&self) -> Result<Option<u32>, DbError> {
        Ok(primary::timeline(&self.pool).await?)
    }

    /// Where leases are renewed and given back: nothing that waits for another may go here.
    pub(crate) fn renewing(&self) -> &PgPool {
        &self.renewing
    }

    /// Whoever renews the leases.
    pub(crate) fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    /// Begins a transaction that the caller commits. Where COMMIT loses its connection the outcome is unknown: the
    /// caller reads it back. Work that causes events begins at the door of `messaging` instead.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        // In a task of its own, which comes to its end where the caller goes away meanwhile: broken off between BEGIN and
        // its answer, the pool would lend a connection whose transaction it does not know of, and what the next ones
        // write there outside a transaction would never be committed.
        let pool = self.pool.clone();
        match tokio::spawn(async move { pool.begin().await }).await {
            Ok(begun) => Ok(Tx { inner: begun? }),
            Err(error) => Err(DbError::Unavailable(error.to_string())),
        }
    }

    /// Counts a transaction that has ended.
    pub fn observe(&self, name: &'static str, started: Instant, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.tx_seconds.with_label_values(&[self.engine, name, result]).observe(seconds);
    }
}

/// The Postgres role of an engine.
pub fn role_of(engine: &str) -> String {
    format!("deltran_{engine}")
}

/// A connection has answered when it was given back; whether it still does is asked of one that has been idle since.
async fn is_alive(connection: &mut PgConnection, meta: PoolConnectionMetadata) -> sqlx::Result<bool> {
    if meta.idle_for >= BELIEVED {
        connection.ping().await?;
    }
    Ok(true)
}

fn servers(url: &str, engine: &str, role: Option<&str>) -> Result<Servers, DbError> {
    Servers::of(url, |options: PgConnectOptions| {
        options
            .application_name(&application_name(engine, std::process::id()))
            .options(role.map(|role| ("role", role)))
            .options([
                ("search_path", engine),
                ("timezone", "UTC"),
                // Below the lease time: whoever takes over finds no locks of a process that was stopped or cut off.
                ("idle_in_transaction_session_timeout", "2500"),
                ("tcp_user_timeout", "2500"),
            ])
    })
}

/// What the connections of an engine call themselves in `pg_stat_activity`: engine and process id.
pub fn application_name(engine: &str, process: u32) -> String {
    format!("deltran-{engine}/{process}")
}

/// Creates an engine's schema and role and applies migrations, in their order. Any number of
/// processes may do so at once.
///
/// `shared` are the tables that every engine has (outbox, received ranges, leases); `own` are the
/// engine's.
///
/// # Errors
/// Where the database is away, the user may not create roles, or a migration fails.
pub async fn migrate(engine: &'static str, url: &str, shared: &[(&str, &str)], own: &Migrator) -> Result<(), DbError> {
    let mut connection = servers(url, engine, None)?.connect().await?;
    let role = role_of(engine);
    // Roles are the whole cluster's, so the lock is too.
    sqlx::query("SELECT pg_advisory_lock(hashtext('deltran.migrate'))").execute(&mut connection).await?;
    let statements = [
        format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ),
        format!(
            "DO $$ BEGIN IF NOT pg_has_role(current_user, '{role}', 'MEMBER') THEN GRANT {role} TO CURRENT_USER; END IF; END $$"
        ),
        format!("CREATE SCHEMA IF NOT EXISTS {engine}"),
        format!("GRANT USAGE ON SCHEMA {engine} TO {role}"),
        format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {engine} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}"),
        format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {engine} GRANT USAGE, SELECT ON SEQUENCES TO {role}"),
    ];
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    for (name, script) in shared {
        tracing::debug!(engine, script = name, "applying shared tables");
        sqlx::raw_sql(sqlx::AssertSqlSafe((*script).to_owned())).execute(&mut connection).await?;
    }
    own.run_direct(None, &mut connection, false)
        .await
        .map_err(|e| DbError::Other(format!("migration of {engine}: {e}")))?;
    connection.close().await?;
    Ok(())
}
