//! What operators ask of a fleet to begin a day and to end a window.

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{CloseWindowRequest, OpenWindowRequest};
use tonic::Code;

use super::Fleet;
use crate::node::{Connection, PATIENCE, participants};
use crate::{As, within};

impl Fleet {
    fn clearing(&self, at: &str) -> ClearingServiceClient<Connection> {
        ClearingServiceClient::new(self.to(at, As::role("operator", "ada")))
    }

    /// Brings banks in: participant, opening deposit and net debit cap in USD.
    pub async fn banks(&self, at: &str, banks: &[(&str, &str, &str)]) {
        let file = self.write("participants.csv", participants(banks));
        self.must(at, &["participant", "import", "--file", &file]).await;
    }

    /// Opens a window of USD; asks again while clearing is away.
    pub async fn open_window(&self, at: &str, window_id: String) {
        let request = OpenWindowRequest { window_id, schedule: "manual".into(), currency: "USD".into() };
        let mut clearing = self.clearing(at);
        within(PATIENCE, "the window to be open", async || match clearing.open_window(request.clone()).await {
            Ok(_) => Some(()),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        })
        .await;
    }

    /// Closes a window and opens the next, where there is one; asks again while clearing is away, which changes nothing.
    pub async fn close_window(&self, at: &str, window_id: String, next: Option<String>) {
        let request = CloseWindowRequest { window_id, next_window_id: next.unwrap_or_default() };
        let mut clearing = self.clearing(at);
        within(PATIENCE, "the window to be closed", async || match clearing.close_window(request.clone()).await {
            Ok(_) => Some(()),
            // An order that was taken before its answer was lost.
            Err(status) if status.code() == Code::FailedPrecondition => Some(()),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        })
        .await;
    }
}
