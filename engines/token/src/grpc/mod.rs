//! The gRPC service: decode, hand to the writer or the store, encode. No business decisions.

mod admin;
mod encode;
mod engines;
mod query;
mod service;
mod submit;
mod watch;

use deltran_api::token::v1::token_service_server::TokenServiceServer;
use deltran_messaging::Broker;
use deltran_runtime::{Caller, EngineContext, Failure};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::domain::command::{BodyHash, By};
use crate::domain::refusal::Denied;
use crate::gate::Submissions;
use crate::store::Store;
use crate::writer::WriterHandle;

/// What the service works with. Cloning shares it.
#[derive(Clone)]
pub struct Api {
    context: EngineContext,
    broker: Broker,
    store: Store,
    writer: WriterHandle,
    submissions: Submissions,
}

/// The service for the server.
pub fn service(
    context: &EngineContext,
    broker: Broker,
    store: Store,
    writer: WriterHandle,
    submissions: Submissions,
) -> TokenServiceServer<Api> {
    let api = Api { context: context.clone(), broker, store, writer, submissions };
    TokenServiceServer::new(api).max_decoding_message_size(8 << 20)
}

fn by(caller: &Caller) -> By {
    By { user: caller.user.clone(), trace: caller.trace.clone() }
}

/// Hash of a request: the same id with another body is a conflict.
fn body_hash(message: &impl Message) -> BodyHash {
    Sha256::digest(message.encode_to_vec()).into()
}

/// What a denied command is to its caller.
fn failure(denied: Denied) -> Failure {
    match denied {
        Denied::NotFound { what, id } => Failure::not_found(what, id),
        Denied::Conflict { what, id } => Failure::conflict(what, id),
        Denied::WrongState { message, state } => Failure::wrong_state(message, state),
        Denied::Unauthorised(message) => Failure::unauthorised(message),
        Denied::Undecided(message) => Failure::unavailable(message),
        Denied::Refused(refusal) => {
            let mut failure =
                Failure::new(deltran_runtime::FailureKind::WrongState, refusal.code.as_str(), refusal.message);
            failure.details = refusal.details;
            failure
        }
        breach @ Denied::Breach { .. } => Failure::internal(breach),
    }
}
