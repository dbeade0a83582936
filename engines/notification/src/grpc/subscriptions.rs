//! Subscribing, unsubscribing, and looking at subscriptions.

use deltran_api::notification::v1 as pb;
use deltran_kernel::{Money, SubscriptionId};
use deltran_runtime::{Caller, Failure, wire};

use super::Service;
use crate::domain::subscription::{Subscription, Wish};
use crate::store::subscriptions::{self as store, Shown};

pub async fn subscribe(
    service: &Service,
    caller: Caller,
    request: pb::SubscribeRequest,
) -> Result<pb::SubscribeResponse, Failure> {
    let id: SubscriptionId = wire::parse("subscription_id", &request.subscription_id)?;
    let participant = super::whose(&caller, &request.participant)?;
    let currency = wire::parse_optional("currency", &request.currency)?;
    let minimum = Some(request.minimum_amount.as_str()).filter(|text| !text.is_empty());
    let wish = Wish::new(participant, super::kinds(&request.kinds)?, currency, minimum)?;
    let subscription = service.subscriptions.subscribe(id, wish, &caller).await?;
    Ok(pb::SubscribeResponse { subscription: Some(to_subscription(&subscription)) })
}

pub async fn unsubscribe(
    service: &Service,
    caller: Caller,
    request: pb::UnsubscribeRequest,
) -> Result<pb::UnsubscribeResponse, Failure> {
    let id: SubscriptionId = wire::parse("subscription_id", &request.subscription_id)?;
    let subscription = service.subscriptions.unsubscribe(id, &caller).await?;
    Ok(pb::UnsubscribeResponse { subscription: Some(to_subscription(&subscription)) })
}

pub async fn list_subscriptions(
    service: &Service,
    caller: Caller,
    request: pb::ListSubscriptionsRequest,
) -> Result<pb::ListSubscriptionsResponse, Failure> {
    let page = wire::page::<i64>(request.page.as_ref())?;
    let shown = Shown {
        participant: caller.scope(wire::parse_optional("participant", &request.participant)?)?,
        kind: wire::parse_optional("kind", &request.kind)?,
        with_ended: request.with_ended,
    };
    let rows = store::list(service.subscriptions.db().pool(), &shown, &page).await?;
    let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|(number, _)| number));
    let subscriptions = rows.iter().map(|(_, subscription)| to_subscription(subscription)).collect();
    Ok(pb::ListSubscriptionsResponse { subscriptions, next_page_token })
}

fn to_subscription(subscription: &Subscription) -> pb::Subscription {
    let wish = &subscription.wish;
    let minimum = wish.filter.currency.zip(wish.filter.minimum);
    let (ended_at, ended_by) = match &subscription.ended {
        Some((at, by)) => (Some(wire::to_timestamp(*at)), by.clone()),
        None => (None, String::new()),
    };
    pb::Subscription {
        subscription_id: subscription.id.to_string(),
        participant: wish.participant.to_string(),
        kinds: wish.kinds.iter().map(ToString::to_string).collect(),
        currency: wish.filter.currency.map(|currency| currency.to_string()).unwrap_or_default(),
        minimum_amount: minimum.map(|(currency, least)| Money::new(least, currency).amount()).unwrap_or_default(),
        created_at: Some(wire::to_timestamp(subscription.created_at)),
        created_by: subscription.created_by.clone(),
        ended_at,
        ended_by,
    }
}
