//! Every metric of the platform, registered once.

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ident = $name:literal [$($label:literal),*] $($buckets:expr)?;)*) => {
        /// The metrics, by name. Cloning shares them.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Metrics {
            /// Registers every metric in a registry of its own.
            ///
            /// # Errors
            /// Where two metrics share a name: a defect.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let help = concat!($($doc),*).trim();
                    let $field = metrics!(@make $type, $name, help, [$($label),*] $(, $buckets)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }
        }
    };
    (@make HistogramVec, $name:literal, $help:expr, [$($label:literal),*], $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])
    };
    (@make $type:ident, $name:literal, $help:expr, [$($label:literal),*]) => {
        $type::new(Opts::new($name, $help), &[$($label),*])
    };
}

const SECONDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const SIZES: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0];

metrics! {
    /// Duration of RPCs in seconds.
    rpc_seconds: HistogramVec = "deltran_rpc_seconds" ["method", "code"] SECONDS;
    /// Duration of database transactions in seconds.
    tx_seconds: HistogramVec = "deltran_tx_seconds" ["engine", "name", "result"] SECONDS;
    /// Commands per group commit of the ledger writer.
    writer_batch: HistogramVec = "deltran_writer_batch_commands" ["engine"] SIZES;
    /// Decided transactions by outcome; for refusals the fixed code.
    transactions: IntCounterVec = "deltran_transactions_total" ["outcome"];
    /// Events written to the outbox: the last number given out.
    outbox_assigned: IntGaugeVec = "deltran_outbox_assigned" ["engine"];
    /// Events stored by the broker: the last number acknowledged.
    outbox_published: IntGaugeVec = "deltran_outbox_published" ["engine"];
    /// Events confirmed by the audit ledger: the last number.
    outbox_confirmed: IntGaugeVec = "deltran_outbox_confirmed" ["engine"];
    /// Failed publishes, by what was wrong.
    publish_failures: IntCounterVec = "deltran_publish_failures_total" ["engine", "reason"];
    /// Events consumed, by what became of them: applied, duplicate, unread, dead_letter, retry.
    consumed: IntCounterVec = "deltran_consumed_total" ["consumer", "result"];
    /// 1 while a consumer that must not skip stands before a message it cannot process.
    consumer_stopped: IntGaugeVec = "deltran_consumer_stopped" ["consumer"];
    /// Commands waiting in a bounded queue.
    queue_depth: IntGaugeVec = "deltran_queue_depth" ["queue"];
    /// Requests refused because a queue was full.
    overloads: IntCounterVec = "deltran_overloads_total" ["queue"];
    /// 1 while this process holds the lease.
    lease_held: IntGaugeVec = "deltran_lease_held" ["lease"];
    /// Breaches of a named invariant. Anything but 0 is an emergency.
    invariant_breaches: IntCounterVec = "deltran_invariant_breaches_total" ["invariant"];
    /// 1 while a condition holds that somebody must look at.
    alerts: IntGaugeVec = "deltran_alert" ["alert"];
    /// Leaves in the audit ledger.
    audit_leaves: IntGaugeVec = "deltran_audit_leaves" ["validity"];
    /// Streams that the broker forgot and that were made anew.
    streams_mended: IntCounterVec = "deltran_streams_mended_total" ["stream"];
    /// Windows by state.
    windows: IntGaugeVec = "deltran_windows" ["state"];
    /// Attempts to deliver a webhook, by how they ended: ok, or the word of the attempt.
    webhook_attempts: IntCounterVec = "deltran_webhook_attempts_total" ["result"];
    /// Requests that were malformed, by field.
    malformed: IntCounterVec = "deltran_malformed_total" ["field"];
    /// Seconds of processor time by task group, where measured.
    stage_seconds: CounterVec = "deltran_stage_seconds_total" ["stage"];
    /// Build information; always 1.
    build_info: GaugeVec = "deltran_build_info" ["version"];
}

impl Metrics {
    /// All metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// Where a family cannot be encoded: a defect.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts the breach of a named invariant and says so in the log. Tests count on the metric being 0.
    pub fn breach(&self, invariant: &str, detail: &str) {
        self.invariant_breaches.with_label_values(&[invariant]).inc();
        tracing::error!(invariant, detail, "invariant breached");
    }

    /// Raises or clears an alert.
    pub fn alert(&self, alert: &str, raised: bool) {
        self.alerts.with_label_values(&[alert]).set(i64::from(raised));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_encodes() {
        let metrics = Metrics::new().unwrap();
        metrics.breach("L1", "a test");
        assert!(metrics.encode().unwrap().contains("deltran_invariant_breaches_total{invariant=\"L1\"} 1"));
    }
}
