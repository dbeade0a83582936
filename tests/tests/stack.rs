//! All engines in this process: they start, say who they are, know their callers, and stop in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use deltran_api::platform::v1::GetStatusRequest;
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_tests::{Stack, eventually, parts};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_start_stop_and_start_again() {
    let mut stack = Stack::of(&[]).start().await;
    for _ in 0..2 {
        let mut operator = PlatformServiceClient::new(stack.role("operator", "ada"));
        let status = operator.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let names: Vec<&str> = status.engines.iter().map(|engine| engine.engine.as_str()).collect();
        assert_eq!(names, parts().iter().map(|part| part.name).collect::<Vec<_>>());

        let mut bank = PlatformServiceClient::new(stack.bank("ALFAAEXX"));
        let refused = bank.get_status(GetStatusRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        stack.restart_engines().await;
    }
    // A relay and a sequencer each hold their lease on the new processes.
    for lease in ["token.relay", "audit.relay"] {
        let held = stack.metrics.lease_held.with_label_values(&[lease]);
        eventually(lease, async || (held.get() == 1).then_some(())).await;
    }
    stack.stop().await;
}
