//! A database per test.

use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const VARIABLE: &str = "DELTRAN_TEST_DATABASE_URL";

/// A fresh, empty database on the server of `DELTRAN_TEST_DATABASE_URL`. Dropped, it is gone.
#[derive(Debug)]
pub struct Postgres {
    server: String,
    name: String,
    url: String,
}

impl Postgres {
    /// Creates the database.
    pub async fn fresh() -> Self {
        let server = std::env::var(VARIABLE).unwrap_or_else(|_| {
            panic!("{VARIABLE} is not set: these tests need a Postgres server; run them with `make test`")
        });
        let name = format!("t_{}", SystemIds::new().next_id(SystemClock.now()).simple());
        let url = with_database(&server, &name);
        execute(&server, format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        Self { server, name, url }
    }

    /// Its URL, as the user that owns it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A small pool as the user that owns it.
    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(3)
            .connect(&self.url)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime of its own: the one of the test may be the one that is going.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        if dropped.join().is_err() {
            eprintln!("database {} could not be dropped", self.name);
        }
    }
}

async fn execute(server: &str, statement: String) {
    let mut connection =
        PgConnection::connect(server).await.unwrap_or_else(|e| panic!("the server of {VARIABLE} does not answer: {e}"));
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await {
        panic!("{statement}: {error}");
    }
    // Closing is a courtesy; the connection ends either way.
    let _ = connection.close().await;
}

/// The URL with another database.
fn with_database(url: &str, name: &str) -> String {
    let (base, options) = url.split_once('?').map_or((url, None), |(base, options)| (base, Some(options)));
    let host = base.find("://").map_or(0, |at| at + 3);
    let end = base[host..].find('/').map_or(base.len(), |at| host + at);
    let options = options.map(|o| format!("?{o}")).unwrap_or_default();
    format!("{}/{name}{options}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://u:p@h:1/db?sslmode=disable", "postgres://u:p@h:1/t?sslmode=disable"),
            ("postgres://h", "postgres://h/t"),
            ("postgres:///db?host=/run", "postgres:///t?host=/run"),
        ] {
            assert_eq!(with_database(url, "t"), expected);
        }
    }
}
