//! Sets monitoring rules.

use deltran_events::data::compliance::{AmountOf, RuleChanged, RuleScope};
use deltran_kernel::{CommandId, Money};
use deltran_messaging::Outgoing;
use deltran_runtime::{DbError, Failure, FailureKind};

use super::{By, Desk};
use crate::domain::Outcome;
use crate::domain::rule::{self, Draft, Rule, RuleError};
use crate::store::{self, ListedRule};

/// Why a rule was not set.
#[derive(Debug, thiserror::Error)]
pub enum RuleFailure {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The rule does not fit.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl From<RuleFailure> for Failure {
    fn from(failure: RuleFailure) -> Self {
        let text = failure.to_string();
        match failure {
            RuleFailure::Db(error) => error.into(),
            RuleFailure::Rule(RuleError::Conflict(id)) => Failure::conflict("command", id),
            RuleFailure::Rule(RuleError::Malformed { field, .. }) => {
                Failure::new(FailureKind::Malformed, "malformed", text).with("field", field)
            }
        }
    }
}

impl Desk {
    /// Puts a new version of a rule in use. It begins with empty windows, from the first batch of
    /// transactions that is taken afterwards.
    ///
    /// # Errors
    /// `malformed`, `conflict`.
    pub async fn set_rule(&self, command_id: CommandId, draft: Draft, by: &By) -> Result<ListedRule, RuleFailure> {
        let definition = draft.check()?;
        let at = self.clock.now();
        let mut tx = self.door.begin("command").await?;
        store::lock_rules(&mut tx).await?;
        let earlier = store::rule_of_command(&mut *tx, command_id).await?;
        let present = store::find_rule(&mut *tx, &definition.name).await?;
        let names = store::count_rules(&mut *tx).await?;
        let in_use = present.as_ref().map(|present| &present.rule);
        let outcome = rule::set(earlier.as_ref(), in_use, names, command_id, &definition, &by.user, at)?;
        if let Outcome::Executed(rule) = &outcome {
            store::insert_rule(&mut tx, rule).await?;
            let event = Outgoing::new(changed(rule), command_id, &by.user).traced(by.trace.clone());
            tx.commit(&[event]).await?;
            return Ok(ListedRule { rule: rule.clone(), current: true, late: 0 });
        }
        let rule = outcome.into_inner();
        let now = present.filter(|present| present.rule.version == rule.version);
        Ok(ListedRule { current: now.is_some(), late: now.map_or(0, |now| now.late), rule })
    }
}

fn changed(rule: &Rule) -> RuleChanged {
    let Draft { name, kind, mode, scope, window_seconds, max_count, min_count, band, amounts } =
        rule.definition.draft();
    let given = |n: u64| (n > 0).then_some(n);
    let amount = |money: Money| AmountOf { amount: money.into(), currency: money.currency() };
    RuleChanged {
        rule: name,
        rule_version: rule.version,
        kind,
        mode,
        scope: scope.unwrap_or(RuleScope::Payer),
        window_seconds,
        max_count: given(max_count),
        min_count: given(min_count),
        band: (band > 0).then_some(band),
        amounts: amounts.into_iter().map(amount).collect(),
        changed_by: rule.set_by.clone(),
    }
}
