//! Commands about subscriptions, and who has subscribed at present, kept in memory by version.

use std::sync::Arc;

use arc_swap::ArcSwap;
use deltran_kernel::{Clock, SubscriptionId};
use deltran_runtime::{Caller, Db, DbError, Failure};
use sqlx::PgConnection;

use crate::domain::subscription::{self, Applied, Audience, Refused, Subscription, Wish};
use crate::store::subscriptions as store;

/// All subscriptions.
pub struct Subscriptions {
    db: Db,
    clock: Arc<dyn Clock>,
    known: ArcSwap<(i64, Arc<Audience>)>,
}

impl Subscriptions {
    /// Of an engine's database.
    pub fn new(db: Db, clock: Arc<dyn Clock>) -> Self {
        Self { db, clock, known: ArcSwap::from_pointee((-1, Arc::default())) }
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Who has subscribed, as the given connection sees it.
    pub async fn audience(&self, on: &mut PgConnection) -> Result<Arc<Audience>, DbError> {
        let version = store::version(&mut *on).await?;
        let known = self.known.load_full();
        if known.0 == version {
            return Ok(known.1.clone());
        }
        let audience = Arc::new(Audience::of(store::present(on).await?));
        self.known.store(Arc::new((version, audience.clone())));
        Ok(audience)
    }

    /// Who has subscribed at this moment.
    pub async fn audience_now(&self) -> Result<Arc<Audience>, DbError> {
        let mut connection = self.db.pool().acquire().await?;
        self.audience(&mut connection).await
    }

    /// Subscribes; it holds for what the router reads from the answer on.
    pub async fn subscribe(&self, id: SubscriptionId, wish: Wish, caller: &Caller) -> Result<Subscription, Failure> {
        let mut tx = self.db.begin().await?;
        store::next_version(&mut tx).await?;
        let known = store::find(&mut tx, id).await?;
        if known.as_ref().is_some_and(|known| !caller.may_see(known.wish.participant)) {
            return Err(Failure::conflict("subscription", id));
        }
        let present = store::count(&mut tx, wish.participant).await?;
        match subscription::subscribe(id, wish, known, present, &caller.user, self.clock.now())? {
            Applied::AlreadyApplied(subscription) => Ok(subscription),
            Applied::Executed(subscription) => {
                store::insert(&mut tx, &subscription).await?;
                tx.commit().await?;
                Ok(subscription)
            }
        }
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, id: SubscriptionId, caller: &Caller) -> Result<Subscription, Failure> {
        let mut tx = self.db.begin().await?;
        store::next_version(&mut tx).await?;
        let known = store::find(&mut tx, id).await?.filter(|known| caller.may_see(known.wish.participant));
        let known = known.ok_or_else(|| Failure::not_found("subscription", id))?;
        match subscription::unsubscribe(known, &caller.user, self.clock.now()) {
            Applied::AlreadyApplied(subscription) => Ok(subscription),
            Applied::Executed(subscription) => {
                if let Some((at, by)) = &subscription.ended {
                    store::end(&mut tx, id, *at, by).await?;
                }
                tx.commit().await?;
                Ok(subscription)
            }
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match &refused {
            Refused::Malformed { field, message } => Self::malformed(field, message),
            Refused::Conflict(id) => Self::conflict("subscription", id),
            Refused::Ended { .. } => Self::wrong_state(refused.to_string(), "ENDED"),
            Refused::TooMany(_) => Self::wrong_state(refused.to_string(), "TOO_MANY_SUBSCRIPTIONS"),
        }
    }
}
