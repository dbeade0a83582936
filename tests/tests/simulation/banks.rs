//! What banks and operators remember: what they sent, and what they were told.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::transactions::TransactionState;
use deltran_kernel::{TransactionId, WithdrawalId};
use deltran_token::domain::command::{Answer, Command, Instruction, Outcome};
use deltran_token::domain::refusal::Denied;

use super::check::{Checked, Truth, breach, holds};
use super::token::{Decided, For, Rows};

/// The memory of those outside.
#[derive(Default)]
pub struct Banks {
    pub sent: Vec<Instruction>,
    pub heard: BTreeMap<TransactionId, Outcome>,
    committed: BTreeSet<TransactionId>,
    pub commands: Vec<Command>,
    answers: BTreeMap<usize, Answer>,
    pub withdrawals: Vec<WithdrawalId>,
}

impl Banks {
    /// Somebody is answered.
    pub fn hear(&mut self, reply: For, decided: Decided, rows: &Rows, truth: &Truth) -> Checked {
        match (reply, decided) {
            (For::Submission(id), Ok(applied)) => {
                let (answer, _) = applied.into_parts();
                let Answer::Outcome(outcome) = answer else { return breach("L6", format!("{id}: {answer:?}")) };
                if let Some(before) = self.heard.get(&id) {
                    holds(*before == outcome, "L6", || format!("{id} was answered {before:?}, then {outcome:?}"))?;
                }
                let stored = rows.transactions.get(&id).map(|record| record.outcome());
                holds(stored.as_ref() == Some(&outcome), "B1", || {
                    format!("{id} was answered {}, stored is {:?}", outcome.state, stored.map(|s| s.state))
                })?;
                self.heard.insert(id, outcome);
            }
            (For::Submission(id), Err(Denied::Undecided(_))) => {
                holds(!self.heard.contains_key(&id), "L6", || format!("{id} was decided and is undecided"))?;
            }
            (For::Submission(id), Err(denied)) => return breach("L6", format!("{id}: {denied}")),
            (For::Altered(_), Err(Denied::Conflict { .. })) => {}
            (For::Altered(id), other) => return breach("L6", format!("{id} with another body: {other:?}")),
            (For::Phase(id), Ok(applied)) => {
                if applied.into_parts().0 == Answer::Transaction(TransactionState::Committed) {
                    self.committed.insert(id);
                    let state = truth.state_of(id);
                    holds(state == Some(TransactionState::Committed), "B1", || {
                        format!("{id} was answered COMMITTED and is {state:?}")
                    })?;
                }
            }
            (For::Operator(which), Ok(applied)) => {
                let (answer, _) = applied.into_parts();
                // A proposal becomes an approval; everything else stays as it was answered first.
                let proposal = matches!(&answer, Answer::Collateral { .. });
                let moves = matches!(&answer, Answer::Withdrawal(_));
                if let Some(before) = self.answers.get(&which).filter(|_| !proposal && !moves) {
                    holds(*before == answer, "L6", || format!("command {which}: {before:?}, then {answer:?}"))?;
                }
                self.answers.insert(which, answer);
            }
            (For::Phase(_) | For::Operator(_) | For::Caller, _) => {}
        }
        Ok(())
    }

    /// Nothing that was told to be committed is lost, and nothing refused is posted (the ledger's own rows say so).
    pub fn check(&self, rows: &Rows, truth: &Truth) -> Checked {
        for (id, outcome) in &self.heard {
            let stored = rows.transactions.get(id).map(|record| record.outcome());
            holds(stored.as_ref() == Some(outcome), "B1", || {
                format!("{id} was answered {}, and is not", outcome.state)
            })?;
        }
        for id in &self.committed {
            let state = truth.state_of(*id);
            holds(state == Some(TransactionState::Committed), "B1", || format!("{id} was COMMITTED and is {state:?}"))?;
        }
        Ok(())
    }

    /// Submissions whose outcome nobody was told.
    pub fn unanswered(&self) -> Vec<usize> {
        let open = |i: &Instruction| !self.heard.contains_key(&i.id);
        self.sent.iter().enumerate().filter(|(_, i)| open(i)).map(|(place, _)| place).collect()
    }
}
