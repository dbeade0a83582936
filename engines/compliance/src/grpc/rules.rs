//! Monitoring: rules, and what crossed them.

use deltran_api::compliance::v1 as pb;
use deltran_events::data::compliance::{RuleKind, RuleMode, RuleScope};
use deltran_kernel::{AlertId, Money};
use deltran_runtime::{Caller, Failure, wire};

use super::{by, optional_word, word};
use crate::domain::alert::Alert;
use crate::domain::rule::Draft;
use crate::handle::Desk;
use crate::store::{self, AlertFilter, ListedRule};

/// The longest name of a rule that is looked for, in characters.
const MAX_NAME: usize = 64;

/// An alert for an answer.
pub fn alert(alert: Alert) -> pb::Alert {
    pb::Alert {
        alert_id: alert.alert_id.to_string(),
        rule_version: alert.version,
        kind: alert.kind.as_str().to_owned(),
        shadow: alert.shadow,
        payer: alert.thread.payer.to_string(),
        payee: alert.thread.payee.map(|payee| payee.to_string()).unwrap_or_default(),
        window_from: Some(wire::to_timestamp(alert.from)),
        window_to: Some(wire::to_timestamp(alert.to)),
        count: alert.sum.count,
        amount: alert.amount().map(wire::to_money),
        limit_count: alert.limit_count().unwrap_or(0),
        limit_amount: alert.limit_amount().map(wire::to_money),
        transaction_id: alert.transaction_id.to_string(),
        transaction_ids: alert.transactions.iter().map(ToString::to_string).collect(),
        raised_at: Some(wire::to_timestamp(alert.raised_at)),
        case_id: alert.case_id.map(|id| id.to_string()).unwrap_or_default(),
        rule: alert.rule,
    }
}

fn rule(listed: ListedRule) -> pb::Rule {
    let ListedRule { rule, current, late } = listed;
    let draft = rule.definition.draft();
    pb::Rule {
        rule: draft.name,
        version: rule.version,
        kind: draft.kind.as_str().to_owned(),
        mode: draft.mode.as_str().to_owned(),
        scope: draft.scope.map(|scope| scope.as_str().to_owned()).unwrap_or_default(),
        window_seconds: draft.window_seconds,
        max_count: draft.max_count,
        min_count: draft.min_count,
        band: draft.band,
        amounts: draft.amounts.into_iter().map(wire::to_money).collect(),
        // Nobody set the rules that ship.
        set_at: rule.command_id.map(|_| wire::to_timestamp(rule.set_at)),
        set_by: rule.set_by,
        current,
        late,
    }
}

/// A page of what crossed rules.
pub async fn list_alerts(desk: &Desk, request: pb::ListAlertsRequest) -> Result<pb::ListAlertsResponse, Failure> {
    let page = wire::page::<AlertId>(request.page.as_ref())?;
    let rule = wire::text("rule", &request.rule, MAX_NAME)?;
    let filter = AlertFilter {
        rule: (!rule.is_empty()).then_some(rule),
        payer: wire::parse_optional("participant", &request.participant)?,
        case_id: wire::parse_optional("case_id", &request.case_id)?,
        without_shadow: request.without_shadow,
    };
    let alerts = store::list_alerts(desk.door.db(), &page, &filter).await?;
    let next_page_token = wire::next_token(alerts.len(), page.size, alerts.last().map(|alert| alert.alert_id));
    Ok(pb::ListAlertsResponse { alerts: alerts.into_iter().map(alert).collect(), next_page_token })
}

/// Puts a version of a rule in use.
pub async fn set_rule(
    desk: &Desk,
    caller: Caller,
    request: pb::SetRuleRequest,
) -> Result<pb::SetRuleResponse, Failure> {
    if request.gate {
        return Err(Failure::unimplemented("a monitoring rule before commit (gate)"));
    }
    let command_id = wire::parse("command_id", &request.command_id)?;
    let amount = |money| wire::money("amounts", Some(money));
    let draft = Draft {
        kind: word("kind", &request.kind, RuleKind::ALL, RuleKind::as_str)?,
        mode: word("mode", &request.mode, RuleMode::ALL, RuleMode::as_str)?,
        scope: optional_word("scope", &request.scope, RuleScope::ALL, RuleScope::as_str)?,
        window_seconds: request.window_seconds,
        max_count: request.max_count,
        min_count: request.min_count,
        band: request.band,
        amounts: request.amounts.iter().map(amount).collect::<Result<Vec<Money>, _>>()?,
        name: request.rule,
    };
    let set = desk.set_rule(command_id, draft, &by(caller)).await?;
    Ok(pb::SetRuleResponse { rule: Some(rule(set)) })
}

/// The last rule of a page, as a token: `<version>/<name>`.
fn token(token: &str) -> Result<Option<(u32, String)>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = token.split_once('/').and_then(|(version, name)| Some((version.parse().ok()?, name.to_owned())));
    parts.map(Some).ok_or_else(|| Failure::malformed("page.token", "is not one that this call gave"))
}

/// A page of rules.
pub async fn list_rules(desk: &Desk, request: pb::ListRulesRequest) -> Result<pb::ListRulesResponse, Failure> {
    let page = wire::page::<String>(request.page.as_ref())?;
    let after = token(page.after.as_deref().unwrap_or_default())?;
    let name = wire::text("rule", &request.rule, MAX_NAME)?;
    let name = (!name.is_empty()).then_some(name.as_str());
    let after = after.as_ref().map(|(version, name)| (name.as_str(), *version));
    let rules = store::list_rules(desk.door.db(), after, page.size, name, request.history).await?;
    let last = rules.last().map(|last| format!("{}/{}", last.rule.version, last.rule.definition.name));
    let next_page_token = wire::next_token(rules.len(), page.size, last);
    Ok(pb::ListRulesResponse { rules: rules.into_iter().map(rule).collect(), next_page_token })
}
