//! An archive in a bucket of an S3 compatible object store: what the configuration and the environment say about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::crypto::Crypto;
use super::http::{Connector, trust};
use crate::config::Settings;

/// Megabytes (2^20 bytes) of a part: what S3 asks for at the least, and what still fits in memory several times.
const LEAST_PART: u32 = 5;
const MOST_PART: u32 = 512;
/// Parts of a file at the most.
pub const PARTS: u64 = 10_000;
/// Tries after the first: answers 5xx, 429 and 408, lost connections, and what came too late where it may come twice.
const TRIES: usize = 4;
/// No try begins later than this after the first one. Signatures are valid for longer.
const LATEST: Duration = Duration::from_secs(180);

/// Variables of the environment that credentials come from, named as the tools of AWS name them. The first set that is
/// whole counts.
const CREDENTIALS: [&[&str]; 4] = [
    &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
    &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
    &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
];
/// What may stand beside them.
const BESIDE: [&str; 3] = ["AWS_SESSION_TOKEN", "AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL_STS"];

/// The environment, by the names of its variables.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    bucket: String,
    prefix: Path,
}

/// `s3://BUCKET/PREFIX`.
fn place(url: &str) -> Result<Place, String> {
    let wrong = |why: String| format!("audit.archive_url = {url:?}: {why}");
    let rest = url.strip_prefix("s3://").ok_or_else(|| match url.split_once("://") {
        Some((scheme, _)) => wrong(format!("the scheme {scheme:?} is not known: it takes s3://BUCKET/PREFIX")),
        None => wrong("it is no URL: it takes s3://BUCKET/PREFIX; a folder is audit.archive_directory".to_owned()),
    })?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("it names no bucket: it takes s3://BUCKET/PREFIX".to_owned()));
    }
    if bucket.contains('@') {
        // Which are not repeated.
        return Err("audit.archive_url: credentials do not stand here: they come from the environment".to_owned());
    }
    let letters = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bucket.len() > 63 || !bucket.chars().all(letters) {
        return Err(wrong(format!(
            "{bucket:?} is no name of a bucket: 1 to 63 letters, digits, \"-\", \".\" and \"_\""
        )));
    }
    let prefix = Path::parse(prefix).map_err(|e| wrong(format!("{prefix:?} is no prefix: {e}")))?;
    if let Some(c) = prefix.as_ref().chars().find(|c| "?#%".contains(*c)) {
        return Err(wrong(format!("{c:?} does not stand in a prefix")));
    }
    Ok(Place { bucket: bucket.to_owned(), prefix })
}

/// The endpoint to use, and whether it is without TLS.
fn endpoint(settings: &Settings, bucket: &str) -> Result<Option<(String, bool)>, String> {
    let text = settings.archive_endpoint.trim_end_matches('/');
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |why: &str| format!("audit.archive_endpoint = {:?}: {why}", settings.archive_endpoint);
    let uri: Uri = text.parse().map_err(|e| wrong(&format!("it is no URL: {e}")))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong("it takes https://HOST:PORT"));
    };
    if authority.as_str().contains('@') {
        return Err("audit.archive_endpoint: credentials do not stand here: they come from the environment".to_owned());
    }
    if uri.query().is_some() {
        return Err(wrong("it has a query: it takes https://HOST:PORT"));
    }
    let plain = match scheme {
        "https" => false,
        "http" if settings.archive_allow_http || is_loopback(authority.host()) => true,
        "http" => {
            return Err(wrong(
                "without TLS only this machine is taken: use https, or say audit.archive_allow_http = true where \
                 something else protects the way",
            ));
        }
        other => return Err(wrong(&format!("the scheme {other:?} is not known: it takes https://HOST:PORT"))),
    };
    let text = match settings.archive_path_style {
        true => text.to_owned(),
        false => text.replacen("://", &format!("://{bucket}."), 1),
    };
    Ok(Some((text, plain)))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The variables that give credentials.
fn credentials(environment: Environment<'_>) -> Result<Vec<(&'static str, String)>, String> {
    let value = |name: &'static str| Some((name, environment(name).filter(|value| !value.is_empty())?));
    let beside = || BESIDE.into_iter().filter_map(value);
    for set in CREDENTIALS {
        let found: Vec<_> = set.iter().copied().filter_map(value).collect();
        if found.len() == set.len() {
            return Ok(found.into_iter().chain(beside()).collect());
        }
        if let (Some((given, _)), Some(absent)) =
            (found.first(), set.iter().copied().find(|name| value(name).is_none()))
        {
            return Err(format!("audit.archive_url: {given} is set in the environment, {absent} is not: give both"));
        }
    }
    Err("audit.archive_url: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or what \
         the tools of AWS take for a web identity or a container"
        .to_owned())
}

/// Checks what the configuration says, but for the environment and files.
///
/// # Errors
/// Names the key and its value, and what it takes.
pub fn check(settings: &Settings) -> Result<(), String> {
    let part = settings.archive_part_mib;
    if !(LEAST_PART..=MOST_PART).contains(&part) {
        return Err(format!("audit.archive_part_mib = {part} is out of range: it takes {LEAST_PART} to {MOST_PART}"));
    }
    if settings.archive_url.is_empty() {
        return Ok(());
    }
    if !settings.archive_directory.is_empty() {
        return Err(format!(
            "audit.archive_url = {:?} and audit.archive_directory = {:?}: the archive is in one place, give one of the two",
            settings.archive_url, settings.archive_directory
        ));
    }
    if settings.archive_region.is_empty() {
        return Err(
            "audit.archive_region is empty: requests are signed for a region, \"us-east-1\" where a store has \
                    none"
                .to_owned(),
        );
    }
    endpoint(settings, &place(&settings.archive_url)?.bucket)?;
    Ok(())
}

/// The store.
///
/// # Errors
/// In one line, where something is not as it should be.
pub fn open(settings: &Settings, environment: Environment<'_>) -> Result<Arc<dyn ObjectStore>, String> {
    check(settings)?;
    let Place { bucket, prefix } = place(&settings.archive_url)?;
    let endpoint = endpoint(settings, &bucket)?;
    let tls = Arc::new(trust(&settings.archive_ca_file)?);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.archive_region)
        .with_virtual_hosted_style_request(!settings.archive_path_style)
        .with_retry(RetryConfig { backoff: BackoffConfig::default(), max_retries: TRIES, retry_timeout: LATEST })
        .with_crypto_provider(Arc::new(Crypto))
        .with_http_connector(Connector { tls });
    if let Some((endpoint, plain)) = endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    for (name, value) in credentials(environment)? {
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|e| format!("{name}: {e}"))?;
        builder = builder.with_config(key, value);
    }
    let store = builder.build().map_err(|e| format!("audit.archive_url: {e}"))?;
    Ok(if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    fn keys(name: &str) -> Option<String> {
        name.starts_with("AWS_").then(|| "x".to_owned())
    }

    fn refused(text: &str, environment: Environment<'_>) -> String {
        open(&settings(text), environment).map(|_| ()).unwrap_err()
    }

    #[test]
    fn every_mistake_is_one_line() {
        let cases = [
            ("archive_url = 'gs://b/p'", "audit.archive_url = \"gs://b/p\": the scheme \"gs\" is not known"),
            (
                "archive_url = '/srv/archive'",
                "it is no URL: it takes s3://BUCKET/PREFIX; a folder is audit.archive_directory",
            ),
            ("archive_url = 's3://'", "it names no bucket"),
            ("archive_url = 's3:///p'", "it names no bucket"),
            ("archive_url = 's3://a b/p'", "\"a b\" is no name of a bucket"),
            ("archive_url = 's3://key:hidden@b/p'", "credentials do not stand here"),
            ("archive_url = 's3://b/p//q'", "\"p//q\" is no prefix"),
            ("archive_url = 's3://b/p?x=1'", "'?' does not stand in a prefix"),
            ("archive_url = 's3://b'\narchive_directory = '/srv'", "the archive is in one place, give one of the two"),
            ("archive_url = 's3://b'\narchive_region = ''", "audit.archive_region is empty"),
            (
                "archive_url = 's3://b'\narchive_part_mib = 4",
                "audit.archive_part_mib = 4 is out of range: it takes 5 to 512",
            ),
            ("archive_url = 's3://b'\narchive_endpoint = 'minio:9000'", "it takes https://HOST:PORT"),
            ("archive_url = 's3://b'\narchive_endpoint = 'ftp://h'", "the scheme \"ftp\" is not known"),
            ("archive_url = 's3://b'\narchive_endpoint = 'https://key:hidden@h'", "credentials do not stand here"),
            ("archive_url = 's3://b'\narchive_endpoint = 'https://h/?x=1'", "it has a query"),
            (
                "archive_url = 's3://b'\narchive_endpoint = 'http://10.0.0.7:9000'",
                "without TLS only this machine is taken",
            ),
            (
                "archive_url = 's3://b'\narchive_endpoint = 'http://127.0.0.1.example'",
                "without TLS only this machine is taken",
            ),
            (
                "archive_url = 's3://b'\narchive_ca_file = '/nowhere/ca.pem'",
                "audit.archive_ca_file = \"/nowhere/ca.pem\": ",
            ),
        ];
        for (text, expected) in cases {
            let line = refused(text, &keys);
            assert!(
                line.contains(expected) && line.contains("audit.archive_") && !line.contains('\n'),
                "{text}: {line}"
            );
            assert!(!line.contains("hidden"), "{line}");
        }
    }

    #[test]
    fn credentials_come_from_the_environment_and_whole() {
        let set = |names: &'static [&'static str]| move |name: &str| names.contains(&name).then(|| "x".to_owned());
        let bucket = "archive_url = 's3://b'";
        assert!(refused(bucket, &set(&[])).contains("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        // What stands beside is no credential.
        assert!(refused(bucket, &set(&["AWS_SESSION_TOKEN", "AWS_REGION"])).contains("no credentials"));
        let half = refused(bucket, &set(&["AWS_SECRET_ACCESS_KEY"]));
        assert!(half.contains("AWS_SECRET_ACCESS_KEY is set in the environment, AWS_ACCESS_KEY_ID is not"), "{half}");
        let empty = refused(bucket, &|name| (name == "AWS_ACCESS_KEY_ID").then(String::new));
        assert!(empty.contains("no credentials"), "{empty}");
        for names in CREDENTIALS {
            open(&settings(bucket), &set(names)).unwrap();
        }
    }

    #[test]
    fn buckets_are_reached_by_path_or_by_name() {
        let at = |text: &str| {
            let settings = settings(text);
            endpoint(&settings, &place(&settings.archive_url).unwrap().bucket).unwrap()
        };
        assert_eq!(at("archive_url = 's3://b/p'"), None);
        let cases = [
            ("https://h:9000/", true, ("https://h:9000", false)),
            ("https://h/storage/v1/s3", true, ("https://h/storage/v1/s3", false)),
            ("https://h:9000", false, ("https://b.h:9000", false)),
            ("http://127.0.0.1:9000", true, ("http://127.0.0.1:9000", true)),
            ("http://[::1]:9000", true, ("http://[::1]:9000", true)),
            ("http://localhost", true, ("http://localhost", true)),
        ];
        for (endpoint, path_style, (used, plain)) in cases {
            let text =
                format!("archive_url = 's3://b/p'\narchive_endpoint = '{endpoint}'\narchive_path_style = {path_style}");
            assert_eq!(at(&text), Some((used.to_owned(), plain)), "{endpoint}");
        }
        let allowed = "archive_url = 's3://b'\narchive_endpoint = 'http://10.0.0.7'\narchive_allow_http = true";
        assert_eq!(at(allowed), Some(("http://10.0.0.7".to_owned(), true)));
        let Place { bucket, prefix } = place("s3://b/deltran/frankfurt-1/").unwrap();
        assert_eq!((bucket.as_str(), prefix.as_ref()), ("b", "deltran/frankfurt-1"));
    }
}
