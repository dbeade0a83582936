//! `NotificationService`: one implementation, delegating to a module per subject.

mod endpoints;
mod feed;
mod subscriptions;

use std::collections::BTreeSet;
use std::sync::Arc;

use deltran_api::notification::v1 as pb;
use deltran_api::notification::v1::notification_service_server::NotificationService;
use deltran_kernel::ParticipantId;
use deltran_runtime::{Caller, Failure, wire};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::domain::Kind;
use crate::feed::Pulse;
use crate::subscriptions::Subscriptions;
use crate::webhook::desk::Desk;

/// The service.
pub struct Service {
    /// Subscriptions, and the engine's database.
    pub subscriptions: Arc<Subscriptions>,
    /// Wakes readers of feeds.
    pub pulse: Arc<Pulse>,
    /// Cancelled when endless answers must end.
    pub closing: CancellationToken,
    /// Commands on endpoints.
    pub desk: Arc<Desk>,
}

/// Kinds by their words.
pub(crate) fn kinds<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<BTreeSet<Kind>, Failure> {
    words.into_iter().map(|word| wire::parse("kinds", word.as_ref())).collect()
}

/// Whose feed a caller reads: a bank its own, anybody else that of the participant that it names.
pub(crate) fn whose(caller: &Caller, asked: &str) -> Result<ParticipantId, Failure> {
    let asked = wire::parse_optional("participant", asked)?;
    caller.scope(asked)?.ok_or_else(|| Failure::malformed("participant", "is missing: name whose"))
}

macro_rules! delegate {
    ($($method:ident: $request:ident -> $response:ident = $module:ident;)*) => {
        #[tonic::async_trait]
        impl NotificationService for Service {
            type StreamNotificationsStream = BoxStream<'static, Result<pb::StreamNotificationsResponse, Status>>;

            async fn stream_notifications(
                &self,
                request: Request<pb::StreamNotificationsRequest>,
            ) -> Result<Response<Self::StreamNotificationsStream>, Status> {
                Ok(Response::new(feed::stream_notifications(self, Caller::of(&request)?, request.into_inner()).await?))
            }

            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                let caller = Caller::of(&request)?;
                Ok(Response::new($module::$method(self, caller, request.into_inner()).await?))
            })*
        }
    };
}

delegate! {
    subscribe: SubscribeRequest -> SubscribeResponse = subscriptions;
    unsubscribe: UnsubscribeRequest -> UnsubscribeResponse = subscriptions;
    list_subscriptions: ListSubscriptionsRequest -> ListSubscriptionsResponse = subscriptions;
    list_notifications: ListNotificationsRequest -> ListNotificationsResponse = feed;
    create_endpoint: CreateEndpointRequest -> CreateEndpointResponse = endpoints;
    update_endpoint: UpdateEndpointRequest -> UpdateEndpointResponse = endpoints;
    disable_endpoint: DisableEndpointRequest -> DisableEndpointResponse = endpoints;
    enable_endpoint: EnableEndpointRequest -> EnableEndpointResponse = endpoints;
    delete_endpoint: DeleteEndpointRequest -> DeleteEndpointResponse = endpoints;
    rotate_secret: RotateSecretRequest -> RotateSecretResponse = endpoints;
    list_endpoints: ListEndpointsRequest -> ListEndpointsResponse = endpoints;
    list_attempts: ListAttemptsRequest -> ListAttemptsResponse = endpoints;
    replay_deliveries: ReplayDeliveriesRequest -> ReplayDeliveriesResponse = endpoints;
}
