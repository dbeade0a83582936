//! Windows in the ledger: opening, sealing with control totals, earmarking debtors, settlement.

use std::collections::BTreeMap;

use deltran_events::data::transactions::{
    CoverPolicy, Earmark, SettledLeg, SettlementPosted, WindowEarmarked, WindowSealed,
};
use deltran_kernel::{Currency, Minor, Money, ParticipantId, PostingGroupId, Timestamp, WindowId};
use sha2::Digest;

use super::account::AccountKey;
use super::command::{Answer, Applied, By, Funding, SealTotals};
use super::ledger::{About, Ledger, Window};
use super::refusal::{Denied, Refusal, RefusalCode};

type Decided = Result<Applied<Answer>, Denied>;

/// A transfer to be posted.
type Transfer = (AccountKey, AccountKey, Minor);

/// Debtors in one `window.earmarked`, so that an event never becomes too large.
const EARMARKS_PER_EVENT: usize = 400;
/// Legs in one `settlement.posted`, which also names up to a thousand windows.
const LEGS_PER_EVENT: usize = 200;

impl Ledger {
    pub(super) fn open_window(&mut self, id: WindowId, currency: Currency, at: Timestamp) -> Decided {
        if let Some((known, opened_at, sealed)) = self.window_of(id) {
            if known != currency {
                return Err(Denied::conflict("window id", id));
            }
            if sealed {
                return Err(Denied::wrong_state(format!("window {id} is sealed"), "SEALED"));
            }
            return Ok(Applied::AlreadyApplied(Answer::Opened { at: opened_at }));
        }
        if let Some(open) = self.open.get(&currency) {
            let message = format!("window {open} of {currency} is open: at most one per currency");
            return Err(Denied::wrong_state(message, "OPEN"));
        }
        // ---- writes
        self.start_window(id, currency, at);
        Ok(Applied::Executed(Answer::Opened { at }))
    }

    /// Currency, opening time and whether it is sealed, of a window in memory or in storage.
    fn window_of(&self, id: WindowId) -> Option<(Currency, Timestamp, bool)> {
        let live = self.windows.get(&id).map(|w| (w.currency, w.opened_at, w.sealed.is_some()));
        live.or_else(|| self.known.windows.get(&id).map(|w| (w.currency, w.opened_at, w.sealed.is_some())))
    }

    fn start_window(&mut self, id: WindowId, currency: Currency, at: Timestamp) {
        self.windows.insert(id, Window::new(currency, at));
        self.open.insert(currency, id);
        self.touch_window(id);
    }

    pub(super) fn seal_window(&mut self, id: WindowId, next: Option<WindowId>, by: &By, at: Timestamp) -> Decided {
        let stored = self.known.windows.get(&id).and_then(|w| w.sealed.clone());
        let live = self.windows.get(&id).and_then(|w| w.sealed.clone());
        if let Some(answer) = live.or(stored) {
            return Ok(Applied::AlreadyApplied(answer));
        }
        let window = self.windows.get(&id).cloned().ok_or_else(|| Denied::not_found("window", id))?;
        let currency = window.currency;
        if let Some(next) = next
            && (next == id || self.window_of(next).is_some())
        {
            return Err(Denied::wrong_state(format!("window {next} was opened before"), "OPEN"));
        }
        let mut net = Vec::with_capacity(window.members.len());
        let mut earmarks = Vec::new();
        for member in &window.members {
            let position = self.position(*member, currency, id);
            let debit = position.neg().or_zero();
            let earmark = debit.at_most(self.settlement(*member, currency).or_zero());
            earmarks.push((*member, debit, earmark));
            net.push((*member, position));
        }
        let sum = Minor::sum(net.iter().map(|(_, n)| *n)).unwrap_or_default();
        if !sum.is_zero() {
            let detail = format!("positions of window {id} sum to {sum:?}");
            return Err(Denied::Breach { invariant: "L3", detail });
        }
        // ---- writes
        let mut locked = Vec::new();
        for (member, debit, earmark) in earmarks {
            self.earmark_for(member, currency, id, earmark, About::default(), at);
            locked.push((member, earmark));
            if let Some(membership) = self.memberships.get_mut(&(member, currency)) {
                membership.sealed_debit = membership.sealed_debit.add(debit).unwrap_or_default();
                let rest = debit.sub(earmark).unwrap_or_default();
                membership.unfunded = membership.unfunded.add(rest).unwrap_or_default();
            }
        }
        let totals = SealTotals {
            window: id,
            currency,
            count: window.count,
            gross: window.gross,
            net,
            digest: window.digest.clone().finalize().into(),
            opened_at: window.opened_at,
            sealed_at: at,
        };
        let event = WindowSealed {
            window_id: id,
            currency,
            count: totals.count,
            gross: Money::new(totals.gross, currency).into(),
            digest: hex::encode(totals.digest),
            next_window_id: next,
        };
        let answer = Answer::Sealed(Box::new(totals));
        if let Some(window) = self.windows.get_mut(&id) {
            window.sealed = Some(answer.clone());
        }
        self.open.remove(&currency);
        self.touch_window(id);
        if let Some(next) = next {
            self.start_window(next, currency, at);
        }
        self.say(id.to_string(), None, by, event);
        self.say_earmarked(id, currency, &locked, by);
        Ok(Applied::Executed(answer))
    }

    fn say_earmarked(&mut self, id: WindowId, currency: Currency, locked: &[(ParticipantId, Minor)], by: &By) {
        let earmarks: Vec<Earmark> = locked
            .iter()
            .filter(|(_, amount)| amount.is_positive())
            .map(|(participant, amount)| Earmark {
                participant: *participant,
                amount: Money::new(*amount, currency).into(),
            })
            .collect();
        for earmarks in earmarks.chunks(EARMARKS_PER_EVENT) {
            let event = WindowEarmarked { window_id: id, currency, earmarks: earmarks.to_vec() };
            self.say(id.to_string(), None, by, event);
        }
    }

    fn earmark_for(
        &mut self,
        member: ParticipantId,
        currency: Currency,
        window: WindowId,
        amount: Minor,
        about: About,
        at: Timestamp,
    ) {
        if amount.is_positive() {
            let debit = AccountKey::Settlement(member, currency);
            let credit = AccountKey::Reserved(member, currency, window.uuid());
            let posted = self.post(debit, credit, amount, about, at);
            debug_assert!(posted.is_ok(), "tokens that exist can be moved");
        }
    }

    /// The windows of a linked posting: all sealed, unsettled, and of one currency.
    fn sealed_windows(&self, ids: &[WindowId]) -> Result<Currency, Denied> {
        let mut currency = None;
        for id in ids {
            let Some(window) = self.windows.get(id) else {
                return Err(match self.known.windows.get(id) {
                    Some(row) if row.settled_at.is_some() => {
                        Denied::wrong_state(format!("window {id} is settled"), "SETTLED")
                    }
                    _ => Denied::not_found("window", id),
                });
            };
            if window.sealed.is_none() {
                return Err(Denied::wrong_state(format!("window {id} is not sealed"), "OPEN"));
            }
            if currency.replace(window.currency).is_some_and(|c| c != window.currency) {
                return Err(Denied::wrong_state("windows of one posting must have one currency", "SEALED"));
            }
        }
        let mut distinct = ids.to_vec();
        distinct.sort();
        distinct.dedup();
        if distinct.len() != ids.len() {
            return Err(Denied::wrong_state("a window is named twice", "SEALED"));
        }
        currency.ok_or_else(|| Denied::wrong_state("no window is named", "NONE"))
    }

    /// Net position of everyone over several windows.
    fn net_over(&self, ids: &[WindowId], currency: Currency) -> Result<BTreeMap<ParticipantId, Minor>, Denied> {
        let mut net = BTreeMap::new();
        for id in ids {
            for member in self.windows.get(id).iter().flat_map(|w| &w.members) {
                let entry = net.entry(*member).or_insert(Minor::ZERO);
                *entry = entry.add(self.position(*member, currency, *id)).map_err(|_| range_breach("L3"))?;
            }
        }
        Ok(net)
    }

    fn reserved_over(&self, member: ParticipantId, ids: &[WindowId], currency: Currency) -> Result<Minor, Denied> {
        Minor::sum(ids.iter().map(|w| self.balance(AccountKey::Reserved(member, currency, w.uuid()))))
            .map_err(|_| range_breach("L2"))
    }

    fn funding(&self, ids: &[WindowId], currency: Currency) -> Result<Vec<Funding>, Denied> {
        let mut debtors = Vec::new();
        for (participant, net) in self.net_over(ids, currency)? {
            if net.is_negative() {
                let policy =
                    self.memberships.get(&(participant, currency)).map_or(CoverPolicy::Prefunded, |m| m.terms.policy);
                let reserved = self.reserved_over(participant, ids, currency)?;
                debtors.push(Funding { participant, required: net.neg(), reserved, policy });
            }
        }
        Ok(debtors)
    }

    /// Locks what each net debtor of the windows still lacks, as far as its tokens go.
    pub(super) fn earmark(
        &mut self,
        group: PostingGroupId,
        ids: &[WindowId],
        by: &By,
        at: Timestamp,
    ) -> Result<Answer, Denied> {
        let currency = self.sealed_windows(ids)?;
        let debtors = self.funding(ids, currency)?;
        // ---- writes
        let mut locked: BTreeMap<WindowId, Vec<(ParticipantId, Minor)>> = BTreeMap::new();
        for debtor in &debtors {
            let mut lacking = debtor.required.sub(debtor.reserved).unwrap_or_default().or_zero();
            for id in ids {
                let member = debtor.participant;
                let debit = self.position(member, currency, *id).neg().or_zero();
                let earmarked = self.balance(AccountKey::Reserved(member, currency, id.uuid()));
                let rest = debit.sub(earmarked).unwrap_or_default().or_zero();
                let tokens = self.settlement(member, currency).or_zero();
                let amount = lacking.at_most(rest).at_most(tokens);
                self.earmark_for(member, currency, *id, amount, About::group(group), at);
                locked.entry(*id).or_default().push((member, amount));
                lacking = lacking.sub(amount).unwrap_or_default();
                if let Some(membership) = self.memberships.get_mut(&(member, currency)) {
                    membership.unfunded = membership.unfunded.sub(amount).unwrap_or_default();
                }
            }
        }
        for (id, locked) in &locked {
            self.say_earmarked(*id, currency, locked, by);
        }
        Ok(Answer::Funding { at, debtors: self.funding(ids, currency)? })
    }

    /// Posts every leg of a settlement, or none: debtors' locked tokens to the hub, the hub's to the
    /// creditors, and every position reversed.
    pub(super) fn settle(
        &mut self,
        group: PostingGroupId,
        ids: &[WindowId],
        legs: &[(ParticipantId, Money)],
        by: &By,
        at: Timestamp,
    ) -> Result<Answer, Denied> {
        let currency = self.sealed_windows(ids)?;
        let net = self.net_over(ids, currency)?;
        check_legs(&net, legs, currency)?;
        let debtors = self.funding(ids, currency)?;
        if let Some(short) = debtors.iter().find(|d| d.reserved < d.required) {
            let missing = Money::new(short.required.sub(short.reserved).unwrap_or_default(), currency);
            let message = format!("participant {} still lacks {missing}", short.participant);
            let refusal = Refusal::new(RefusalCode::Liquidity, message);
            return Err(refusal.with("participant", short.participant).with("missing", missing.amount()).into());
        }
        let token_legs = self.token_legs(&net, ids, currency)?;
        let position_legs = self.position_legs(ids, currency)?;
        let hub = AccountKey::Multilateral(currency);
        let through_hub = token_legs.iter().try_fold(Minor::ZERO, |sum, (debit, credit, amount)| {
            let sum = if *credit == hub { sum.add(*amount)? } else { sum };
            if *debit == hub { sum.sub(*amount) } else { Ok(sum) }
        });
        if through_hub != Ok(Minor::ZERO) || !self.balance(hub).is_zero() {
            return Err(Denied::Breach {
                invariant: "L4",
                detail: format!("settlement {group} would leave {hub} open"),
            });
        }
        if let Some((debit, credit, _)) =
            token_legs.iter().chain(&position_legs).find(|(d, c, amount)| !self.can_post(*d, *c, *amount))
        {
            return Err(Denied::Breach {
                invariant: "L1",
                detail: format!("{debit} → {credit} would leave the range"),
            });
        }
        // ---- writes
        self.say_settled(group, ids, currency, &net, &token_legs, by, at);
        for (debit, credit, amount) in token_legs.into_iter().chain(position_legs) {
            let posted = self.post(debit, credit, amount, About::group(group), at);
            debug_assert!(posted.is_ok(), "range is checked before");
        }
        self.close_windows(ids, currency, at);
        Ok(Answer::Funding { at, debtors })
    }

    #[expect(clippy::too_many_arguments, reason = "what is posted, about what, by whom and when")]
    fn say_settled(
        &mut self,
        group: PostingGroupId,
        ids: &[WindowId],
        currency: Currency,
        net: &BTreeMap<ParticipantId, Minor>,
        token_legs: &[Transfer],
        by: &By,
        at: Timestamp,
    ) {
        let mut back: BTreeMap<ParticipantId, Minor> = BTreeMap::new();
        for (debit, credit, amount) in token_legs {
            if let (AccountKey::Reserved(member, ..), AccountKey::Settlement(..)) = (debit, credit) {
                let sum = back.entry(*member).or_insert(Minor::ZERO);
                *sum = sum.add(*amount).unwrap_or_default();
            }
        }
        let legs: Vec<SettledLeg> = net
            .iter()
            .map(|(participant, net)| SettledLeg {
                participant: *participant,
                net: Money::new(*net, currency).into(),
                given_back: Money::new(back.get(participant).copied().unwrap_or_default(), currency).into(),
            })
            .collect();
        // A settlement without legs is one all the same.
        let parts = legs.len().div_ceil(LEGS_PER_EVENT).max(1);
        for part in 1..=parts {
            let from = (part - 1) * LEGS_PER_EVENT;
            let event = SettlementPosted {
                group_id: group,
                window_ids: ids.to_vec(),
                currency,
                part: part as u32,
                parts: parts as u32,
                legs: legs.iter().skip(from).take(LEGS_PER_EVENT).cloned().collect(),
                posted_at: at,
            };
            self.say(group.to_string(), None, by, event);
        }
    }

    /// Token legs: debtors pay the hub out of what is locked, what is locked beyond that goes back, the
    /// hub pays creditors.
    fn token_legs(
        &self,
        net: &BTreeMap<ParticipantId, Minor>,
        ids: &[WindowId],
        currency: Currency,
    ) -> Result<Vec<Transfer>, Denied> {
        let hub = AccountKey::Multilateral(currency);
        let mut legs = Vec::new();
        for (member, position) in net {
            let mut owed = position.neg().or_zero();
            for id in ids {
                let locked = AccountKey::Reserved(*member, currency, id.uuid());
                let available = self.balance(locked).or_zero();
                let pays = owed.at_most(available);
                let back = available.sub(pays).map_err(|_| range_breach("L2"))?;
                owed = owed.sub(pays).map_err(|_| range_breach("L2"))?;
                legs.push((locked, hub, pays));
                legs.push((locked, AccountKey::Settlement(*member, currency), back));
            }
        }
        for (member, position) in net {
            legs.push((hub, AccountKey::Settlement(*member, currency), position.or_zero()));
        }
        legs.retain(|(_, _, amount)| amount.is_positive());
        Ok(legs)
    }

    /// Position legs: each window's creditors against its debtors, in order of participant, until all
    /// stand at zero.
    fn position_legs(&self, ids: &[WindowId], currency: Currency) -> Result<Vec<Transfer>, Denied> {
        let mut legs = Vec::new();
        for id in ids {
            let members = self.windows.get(id).map(|w| w.members.clone()).unwrap_or_default();
            let open: Vec<_> = members.iter().map(|m| (*m, self.position(*m, currency, *id))).collect();
            let mut debtors = open.iter().filter(|(_, p)| p.is_negative()).map(|(m, p)| (*m, p.neg()));
            let mut debtor = debtors.next();
            for (creditor, position) in open.iter().filter(|(_, p)| p.is_positive()) {
                let mut left = *position;
                while left.is_positive() {
                    let Some((member, owed)) = debtor else { return Err(range_breach("L3")) };
                    let amount = left.at_most(owed);
                    let key = |m| AccountKey::Position(m, currency, *id);
                    legs.push((key(*creditor), key(member), amount));
                    left = left.sub(amount).map_err(|_| range_breach("L3"))?;
                    let rest = owed.sub(amount).map_err(|_| range_breach("L3"))?;
                    debtor = if rest.is_zero() { debtors.next() } else { Some((member, rest)) };
                }
            }
            if debtor.is_some() {
                return Err(range_breach("L3"));
            }
        }
        Ok(legs)
    }

    /// Settled windows count against nothing any more and leave memory.
    fn close_windows(&mut self, ids: &[WindowId], currency: Currency, at: Timestamp) {
        for id in ids {
            let Some(window) = self.windows.remove(id) else { continue };
            self.effects.windows.insert(*id, window.row(Some(at)));
            self.known.windows.insert(*id, window.row(Some(at)));
            let Some(Answer::Sealed(totals)) = &window.sealed else { continue };
            for (member, position) in &totals.net {
                if let Some(membership) = self.memberships.get_mut(&(*member, currency)) {
                    membership.sealed_debit = membership.sealed_debit.sub(position.neg().or_zero()).unwrap_or_default();
                }
            }
        }
        let members: Vec<ParticipantId> =
            self.memberships.keys().filter(|(_, c)| *c == currency).map(|(member, _)| *member).collect();
        for member in members {
            let unfunded = self.unfunded_of(member, currency);
            if let Some(membership) = self.memberships.get_mut(&(member, currency)) {
                membership.unfunded = unfunded;
            }
        }
    }

    /// The unfunded rest of a participant's sealed windows, from accounts.
    pub fn unfunded_of(&self, member: ParticipantId, currency: Currency) -> Minor {
        let sealed = self.windows.iter().filter(|(_, w)| w.currency == currency && w.sealed.is_some());
        Minor::sum(sealed.map(|(id, _)| {
            let debit = self.position(member, currency, *id).neg().or_zero();
            let earmarked = self.balance(AccountKey::Reserved(member, currency, id.uuid()));
            debit.sub(earmarked).unwrap_or_default().or_zero()
        }))
        .unwrap_or_default()
    }

    /// The net debits of a participant's sealed windows, from accounts.
    pub fn sealed_debit_of(&self, member: ParticipantId, currency: Currency) -> Minor {
        let sealed = self.windows.iter().filter(|(_, w)| w.currency == currency && w.sealed.is_some());
        Minor::sum(sealed.map(|(id, _)| self.position(member, currency, *id).neg().or_zero())).unwrap_or_default()
    }
}

/// Legs must be the ledger's own positions, to the last participant.
fn check_legs(
    net: &BTreeMap<ParticipantId, Minor>,
    legs: &[(ParticipantId, Money)],
    currency: Currency,
) -> Result<(), Denied> {
    let mut asked: BTreeMap<ParticipantId, Minor> = BTreeMap::new();
    for (participant, amount) in legs {
        if amount.currency() != currency || asked.insert(*participant, amount.minor()).is_some() {
            return Err(Denied::wrong_state(format!("leg of {participant} is not one leg in {currency}"), "SEALED"));
        }
    }
    for participant in net.keys().chain(asked.keys()) {
        let own = net.get(participant).copied().unwrap_or_default();
        let given = asked.get(participant).copied().unwrap_or_default();
        if own != given {
            let (own, given) = (Money::new(own, currency), Money::new(given, currency));
            let message = format!("the leg of {participant} is {given}, but its position is {own}: nothing was posted");
            return Err(Denied::wrong_state(message, "SEALED"));
        }
    }
    Ok(())
}

fn range_breach(invariant: &'static str) -> Denied {
    Denied::Breach { invariant, detail: "positions and earmarks do not add up".into() }
}
