//! The generated trait: one line per RPC.

use deltran_api::token::v1 as pb;
use deltran_api::token::v1::token_service_server::TokenService;
use tonic::{Request, Response, Status};

use super::Api;

macro_rules! unary {
    ($($rpc:ident($request:ident) -> $response:ident = $method:ident;)*) => {
        #[tonic::async_trait]
        impl TokenService for Api {
            type SubmitTransactionsStream = super::submit::Answers;
            type WatchTransactionsStream = super::watch::Watched;

            async fn submit_transactions(
                &self,
                request: Request<tonic::Streaming<pb::SubmitTransactionsRequest>>,
            ) -> Result<Response<Self::SubmitTransactionsStream>, Status> {
                Ok(self.submit_many(request)?)
            }

            async fn watch_transactions(
                &self,
                request: Request<pb::WatchTransactionsRequest>,
            ) -> Result<Response<Self::WatchTransactionsStream>, Status> {
                Ok(Api::watch_transactions(self, request).await?)
            }

            async fn verify_ledger(
                &self,
                _: Request<pb::VerifyLedgerRequest>,
            ) -> Result<Response<pb::VerifyLedgerResponse>, Status> {
                Ok(Api::verify_ledger(self).await?)
            }

            $(async fn $rpc(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Ok(Api::$method(self, request).await?)
            })*
        }
    };
}

unary! {
    submit_transaction(SubmitTransactionRequest) -> SubmitTransactionResponse = submit_one;
    commit_transaction(CommitTransactionRequest) -> CommitTransactionResponse = commit_transaction;
    cancel_transaction(CancelTransactionRequest) -> CancelTransactionResponse = cancel_transaction;
    return_transaction(ReturnTransactionRequest) -> ReturnTransactionResponse = return_transaction;
    get_transaction(GetTransactionRequest) -> GetTransactionResponse = get_transaction;
    list_transactions(ListTransactionsRequest) -> ListTransactionsResponse = list_transactions;
    confirm_deposit(ConfirmDepositRequest) -> ConfirmDepositResponse = confirm_deposit;
    request_withdrawal(RequestWithdrawalRequest) -> RequestWithdrawalResponse = request_withdrawal;
    confirm_withdrawal(ConfirmWithdrawalRequest) -> ConfirmWithdrawalResponse = confirm_withdrawal;
    fail_withdrawal(FailWithdrawalRequest) -> FailWithdrawalResponse = fail_withdrawal;
    get_balances(GetBalancesRequest) -> GetBalancesResponse = get_balances;
    list_postings(ListPostingsRequest) -> ListPostingsResponse = list_postings;
    register_participant(RegisterParticipantRequest) -> RegisterParticipantResponse = register_participant;
    set_participant_state(SetParticipantStateRequest) -> SetParticipantStateResponse = set_participant_state;
    list_participants(ListParticipantsRequest) -> ListParticipantsResponse = list_participants;
    enable_currency(EnableCurrencyRequest) -> EnableCurrencyResponse = enable_currency;
    resume_ledger(ResumeLedgerRequest) -> ResumeLedgerResponse = resume_ledger;
    set_collateral(SetCollateralRequest) -> SetCollateralResponse = set_collateral;
    open_window(OpenWindowRequest) -> OpenWindowResponse = open_window;
    seal_window(SealWindowRequest) -> SealWindowResponse = seal_window;
    post_linked(PostLinkedRequest) -> PostLinkedResponse = post_linked;
    set_limit(SetLimitRequest) -> SetLimitResponse = set_limit;
    release_transaction(ReleaseTransactionRequest) -> ReleaseTransactionResponse = release_transaction;
}
