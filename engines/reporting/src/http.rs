//! `/v1/reports/{id}/{file}`: a file of a report over HTTP, in whole or in part.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deltran_kernel::ReportId;
use deltran_runtime::rights::{Access, access};
use deltran_runtime::{Caller, Failure, wire};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};

use crate::domain::job::content_type;
use crate::grpc::Service;

/// The RPC whose rights count here as well.
const SAME_RIGHTS: &str = "/deltran.reporting.v1.ReportingService/DownloadReport";

/// The pages of the engine.
pub fn pages(service: Service) -> Router {
    Router::new().route("/v1/reports/{id}/{file}", get(download)).with_state(service)
}

async fn download(
    State(service): State<Service>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Access::Roles(roles) = access(SAME_RIGHTS) else { return Err(Failure::internal("downloads have no rights")) };
    if !roles.contains(&caller.role) {
        let words: Vec<_> = roles.iter().map(|r| r.as_str()).collect();
        let what = format!("role {} may not download reports: it is for {}", caller.role.as_str(), words.join(", "));
        return Err(Failure::unauthorised(what));
    }
    let id: ReportId = wire::parse("id", &id)?;
    let report = service.visible(&caller, id).await?;
    let file = service.file(&report, &name)?;
    let etag = format!("\"{}\"", file.sha256);
    let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
    let fixed = [
        (ETAG, etag.clone()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    if text(IF_NONE_MATCH).is_some_and(|known| matches(known, &etag)) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    // A part of what the caller has in another version is of no use to it.
    let same = text(IF_RANGE).is_none_or(|known| known == etag);
    let (status, from, to) = match text(RANGE).filter(|_| same).map(|range| part(range, file.size)) {
        None | Some(Part::Whole) => (StatusCode::OK, 0, file.size),
        Some(Part::Bytes(from, to)) => (StatusCode::PARTIAL_CONTENT, from, to),
        Some(Part::Beyond) => {
            let whole = [(CONTENT_RANGE, format!("bytes */{}", file.size))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, fixed, whole).into_response());
        }
    };
    let chunks = service.files.read(&report, &file.name, from, to).await;
    let chunks = chunks.map_err(|e| Failure::internal(format!("report {id}: {e}")))?;
    let about = [
        (CONTENT_TYPE, content_type(&file.name).to_owned()),
        (CONTENT_LENGTH, (to - from).to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file.name)),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; style-src 'unsafe-inline'".to_owned()),
    ];
    let mut response = (status, fixed, about, Body::from_stream(chunks)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{}", to - 1, file.size);
        let range = range.parse().map_err(|e| Failure::internal(format!("{range:?}: {e}")))?;
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    Ok(response)
}

/// Whether a list of entity tags names this one.
fn matches(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// What a `Range` header asks for (RFC 9110).
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Everything: the header is of another form, or asks for several parts.
    Whole,
    /// From, and up to without.
    Bytes(u64, u64),
    /// Nothing of it is there.
    Beyond,
}

fn part(range: &str, size: u64) -> Part {
    let Some((from, to)) = range.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Part::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (from.trim(), to.trim()) {
        ("", suffix) => match number(suffix) {
            None => Part::Whole,
            Some(0) => Part::Beyond,
            Some(_) if size == 0 => Part::Beyond,
            Some(suffix) => Part::Bytes(size.saturating_sub(suffix), size),
        },
        (from, to) => {
            let last = if to.is_empty() { Some(u64::MAX) } else { number(to) };
            match (number(from), last) {
                (Some(from), Some(last)) if from <= last => {
                    if from >= size {
                        Part::Beyond
                    } else {
                        Part::Bytes(from, last.saturating_add(1).min(size))
                    }
                }
                _ => Part::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (range, size, expected) in [
            ("bytes=0-", 10, Part::Bytes(0, 10)),
            ("bytes=3-", 10, Part::Bytes(3, 10)),
            ("bytes=3-5", 10, Part::Bytes(3, 6)),
            ("bytes=3-99", 10, Part::Bytes(3, 10)),
            ("bytes=9-9", 10, Part::Bytes(9, 10)),
            ("bytes=-4", 10, Part::Bytes(6, 10)),
            ("bytes=-99", 10, Part::Bytes(0, 10)),
            ("bytes=10-", 10, Part::Beyond),
            ("bytes=-0", 10, Part::Beyond),
            ("bytes=0-", 0, Part::Beyond),
            ("bytes=-5", 0, Part::Beyond),
            ("bytes=5-3", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=x-", 10, Part::Whole),
            ("lines=0-1", 10, Part::Whole),
            ("bytes=18446744073709551615-18446744073709551615", 10, Part::Beyond),
            ("bytes=0-18446744073709551615", 10, Part::Bytes(0, 10)),
        ] {
            assert_eq!(part(range, size), expected, "{range} of {size}");
        }
    }

    #[test]
    fn tags_are_found_in_a_list() {
        for (list, found) in [("\"a\"", true), ("\"b\", \"a\"", true), ("W/\"a\"", true), ("*", true), ("\"b\"", false)]
        {
            assert_eq!(matches(list, "\"a\""), found, "{list}");
        }
    }
}
