//! What an attempt means for a delivery: done, again later, given up, or never again.

use deltran_kernel::Timestamp;

/// Longest text of a `Retry-After` header that is read.
const MAX_HEADER: usize = 64;

/// When a delivery is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Microseconds to wait after the first, second, … failure. After the last one the delivery is given up.
    pub delays: Vec<i64>,
    /// How much longer than that it may take at most, in percent of the delay: 0 to 100.
    pub jitter_percent: u32,
    /// The longest wait that a receiver may ask for, in microseconds.
    pub longest_retry_after: i64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver answered.
    Status {
        /// The HTTP status.
        code: u16,
        /// For how many microseconds the receiver asked to be left alone.
        retry_after: Option<i64>,
    },
    /// There was no answer.
    Fault(Fault),
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The host has no address.
    Resolve,
    /// The host's address is one that webhooks do not go to.
    AddressRefused,
    /// The connection was not made.
    Connect,
    /// The certificate is not valid, or TLS failed otherwise.
    Tls,
    /// The connection broke, or what came is not HTTP.
    Protocol,
    /// No answer in time.
    Timeout,
}

impl Fault {
    /// The word for it in tables and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::AddressRefused => "address_refused",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
        }
    }
}

impl Answer {
    /// What was wrong, in one word; empty where nothing was.
    pub fn error(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Status { code: 200..=299, .. } => "",
            Self::Status { code: 300..=399, .. } => "redirect",
            Self::Status { code: 410, .. } => "gone",
            Self::Status { .. } => "status",
        }
    }

    /// The HTTP status, where there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Fault(_) => None,
        }
    }

    /// Whether the receiver took it: any 2xx. A redirect is not followed and is a failure.
    pub fn is_success(&self) -> bool {
        self.error().is_empty()
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// It is tried again at this time.
    Again(Timestamp),
    /// It was tried as often as the schedule says.
    Exhausted,
    /// The receiver wants nothing any more (410): the endpoint is to be disabled.
    Gone,
}

impl Schedule {
    /// How often a delivery is tried at most.
    pub fn tries(&self) -> u32 {
        u32::try_from(self.delays.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// What becomes of a delivery after its attempt number `attempt` (from 1) ended with `answer` at `now`.
    /// `jitter` is anything from 0 to its largest value: how much of the permitted extra time is used.
    pub fn judge(&self, attempt: u32, answer: &Answer, jitter: u16, now: Timestamp) -> Verdict {
        let asked = match answer {
            answer if answer.is_success() => return Verdict::Delivered,
            Answer::Status { code: 410, .. } => return Verdict::Gone,
            Answer::Status { retry_after, .. } => retry_after.unwrap_or(0).clamp(0, self.longest_retry_after),
            Answer::Fault(_) => 0,
        };
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(delay) = self.delays.get(index) else { return Verdict::Exhausted };
        let extra =
            i128::from(*delay) * i128::from(self.jitter_percent) * i128::from(jitter) / (100 * i128::from(u16::MAX));
        let extra = i64::try_from(extra).unwrap_or(i64::MAX);
        Verdict::Again(now.plus_micros(delay.saturating_add(extra).max(asked)))
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date. In microseconds from `now`, none where
/// it cannot be read or is in the past.
pub fn retry_after(header: &str, now: Timestamp) -> Option<i64> {
    let text = header.trim();
    if text.len() > MAX_HEADER {
        return None;
    }
    let micros = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(1_000_000)
    } else {
        let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(at.as_micros()).ok()?.saturating_sub(now.micros())
    };
    (micros > 0).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    fn schedule() -> Schedule {
        Schedule {
            delays: vec![5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR],
            jitter_percent: 20,
            longest_retry_after: 12 * HOUR,
        }
    }

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    fn now() -> Timestamp {
        "2025-11-06T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_schedule_is_that_of_the_design() {
        let waits = [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
        for (attempt, wait) in (1..).zip(waits) {
            let again = |jitter| schedule().judge(attempt, &status(500), jitter, now());
            assert_eq!(again(0), Verdict::Again(now().plus_micros(wait)), "{attempt}");
            assert_eq!(again(u16::MAX), Verdict::Again(now().plus_micros(wait + wait / 5)), "{attempt}");
        }
        assert_eq!(schedule().judge(8, &status(500), 0, now()), Verdict::Exhausted);
        assert_eq!(schedule().tries(), 8);
    }

    #[test]
    fn only_a_2xx_is_a_success() {
        for (code, error) in
            [(200, ""), (204, ""), (299, ""), (301, "redirect"), (307, "redirect"), (404, "status"), (503, "status")]
        {
            let expected = if error.is_empty() { Verdict::Delivered } else { Verdict::Again(now().plus_seconds(5)) };
            assert_eq!(status(code).error(), error, "{code}");
            assert_eq!(schedule().judge(1, &status(code), 0, now()), expected, "{code}");
        }
        assert_eq!(schedule().judge(1, &status(410), 0, now()), Verdict::Gone);
        assert_eq!(schedule().judge(8, &status(410), 0, now()), Verdict::Gone);
        assert_eq!(schedule().judge(8, &status(200), 0, now()), Verdict::Delivered);
        for fault in [Fault::Timeout, Fault::Connect, Fault::Tls, Fault::AddressRefused, Fault::Resolve] {
            assert_eq!(schedule().judge(2, &Answer::Fault(fault), 0, now()), Verdict::Again(now().plus_seconds(300)));
        }
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_within_bounds() {
        let after = |attempt, micros| {
            let answer = Answer::Status { code: 503, retry_after: Some(micros) };
            schedule().judge(attempt, &answer, 0, now())
        };
        assert_eq!(after(1, MINUTE), Verdict::Again(now().plus_micros(MINUTE)));
        assert_eq!(after(2, MINUTE), Verdict::Again(now().plus_micros(5 * MINUTE)), "never sooner than the schedule");
        assert_eq!(after(1, i64::MAX), Verdict::Again(now().plus_micros(12 * HOUR)));
        assert_eq!(after(1, -1), Verdict::Again(now().plus_micros(5 * SECOND)));
        assert_eq!(after(8, MINUTE), Verdict::Exhausted);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (header, micros) in [
            ("120", Some(120 * SECOND)),
            (" 1 ", Some(SECOND)),
            ("0", None),
            ("-5", None),
            ("", None),
            ("soon", None),
            ("1.5", None),
            ("99999999999999999999", Some(i64::MAX)),
            ("Thu, 06 Nov 2025 12:01:00 GMT", Some(MINUTE)),
            ("Thursday, 06-Nov-25 12:01:00 GMT", Some(MINUTE)),
            ("Thu, 06 Nov 2025 11:59:00 GMT", None),
        ] {
            assert_eq!(retry_after(header, now()), micros, "{header:?}");
        }
        assert_eq!(retry_after(&"1".repeat(65), now()), None);
    }
}
