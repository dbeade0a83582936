//! Payments of a load, from a seed: who pays whom, how much, and between which persons and companies.

use deltran_api::common::v1::Money;
use deltran_api::token::v1::{Party, SubmitTransactionsRequest, TransactionInstruction};
use deltran_kernel::{Clock, IdSource, SeededIds, SystemClock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::stream::bank;
use crate::problem::Problem;

/// Names in the pool.
pub const POOL: usize = 100_000;
/// One payment of so many names somebody who is like an entry of the list.
const LISTED_EVERY: u64 = 10_000;
/// The name on the list that ships with the product, with a letter changed.
const LIKE_LISTED: &str = "Vostok Shadow Tradinq LLC";
/// The currency of all payments.
pub const CURRENCY: &str = "USD";

const GIVEN: [&str; 40] = [
    "Ada", "Amir", "Anna", "Boris", "Carla", "Chen", "Clara", "Daniel", "Elena", "Emil", "Fatima", "Felix", "Grace",
    "Hanna", "Hugo", "Ines", "Ivan", "Jonas", "Julia", "Kenji", "Lara", "Leon", "Lina", "Luca", "Maria", "Mehmet",
    "Mila", "Nadia", "Noah", "Olga", "Omar", "Paula", "Priya", "Rafael", "Rosa", "Samir", "Sofia", "Tomas", "Wei",
    "Yara",
];
const FAMILY: [&str; 50] = [
    "Abadi",
    "Almeida",
    "Andersson",
    "Bauer",
    "Becker",
    "Bianchi",
    "Brandt",
    "Carvalho",
    "Chaudhry",
    "Conti",
    "Dubois",
    "Eriksen",
    "Fernandez",
    "Fischer",
    "Fontaine",
    "Garcia",
    "Greco",
    "Haddad",
    "Hoffmann",
    "Ivanova",
    "Jansen",
    "Kaufmann",
    "Keller",
    "Kowalski",
    "Larsen",
    "Leclerc",
    "Lindgren",
    "Mancini",
    "Meyer",
    "Moreau",
    "Nakamura",
    "Novak",
    "Okafor",
    "Olsen",
    "Pereira",
    "Petrov",
    "Popescu",
    "Ricci",
    "Rossi",
    "Santos",
    "Schneider",
    "Silva",
    "Tanaka",
    "Vargas",
    "Virtanen",
    "Wagner",
    "Weber",
    "Yamamoto",
    "Zhang",
    "Zimmermann",
];
const FORM: [&str; 5] = ["", " GmbH", " Ltd", " Trading SA", " & Co KG"];

/// The name at a place of the pool.
pub fn name(place: usize) -> String {
    let (given, rest) = (GIVEN[place % GIVEN.len()], place / GIVEN.len());
    let (family, rest) = (FAMILY[rest % FAMILY.len()], rest / FAMILY.len());
    let (second, form) = (FAMILY[(rest * 7 + place) % FAMILY.len()], FORM[rest % FORM.len()]);
    format!("{given} {family} {second}{form}")
}

/// Where the payments come from.
pub struct Load {
    banks: Vec<String>,
    names: Vec<String>,
    ids: SeededIds,
    rng: StdRng,
    hot: bool,
    number: u64,
}

impl Load {
    /// Payments between so many banks; with `hot` half of them go to the first one.
    ///
    /// # Errors
    /// None: what names the banks is a BIC.
    pub fn new(seed: u64, banks: usize, hot: bool) -> Result<Self, Problem> {
        let banks = (0..banks).map(|n| bank(n).map(|b| b.to_string())).collect::<Result<_, _>>();
        Ok(Self {
            banks: banks.map_err(|e| Problem::refused(e.to_string()))?,
            names: (0..POOL).map(name).collect(),
            ids: SeededIds::new(seed),
            rng: StdRng::seed_from_u64(seed),
            hot,
            number: 0,
        })
    }

    /// The banks.
    pub fn banks(&self) -> &[String] {
        &self.banks
    }

    /// The next payment of one of the banks, by chance.
    pub fn anybody(&mut self) -> TransactionInstruction {
        let payer = self.rng.random_range(0..self.banks.len());
        self.payment(payer)
    }

    /// The next payment of a bank.
    fn payment(&mut self, payer: usize) -> TransactionInstruction {
        self.number += 1;
        let others = self.banks.len();
        let payee = match self.hot && payer != 0 && self.rng.random_bool(0.5) {
            true => 0,
            false => (payer + self.rng.random_range(1..others)) % others,
        };
        let listed = self.number.is_multiple_of(LISTED_EVERY);
        let originator = self.rng.random_range(0..POOL);
        let beneficiary = self.rng.random_range(0..POOL);
        let minor = self.rng.random_range(100..100_000u32);
        let party = |name: &str, account: usize| Party {
            name: name.to_owned(),
            account: format!("{account:010}"),
            ..Party::default()
        };
        TransactionInstruction {
            transaction_id: self.ids.next_id(SystemClock.now()).to_string(),
            payer: self.banks[payer].clone(),
            payee: self.banks[payee].clone(),
            amount: Some(Money {
                amount: format!("{}.{:02}", minor / 100, minor % 100),
                currency: CURRENCY.to_owned(),
            }),
            end_to_end_id: format!("BENCH-{:012}", self.number),
            originator: Some(party(&self.names[originator], originator)),
            beneficiary: Some(party(if listed { LIKE_LISTED } else { &self.names[beneficiary] }, beneficiary)),
            ..TransactionInstruction::default()
        }
    }

    /// A message of the next payments of a bank.
    pub fn message(&mut self, sequence: u64, payer: usize, payments: usize) -> SubmitTransactionsRequest {
        let transactions = (0..payments).map(|_| self.payment(payer)).collect();
        SubmitTransactionsRequest { sequence, transactions }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_pool_has_many_names() {
        let names: BTreeSet<String> = (0..POOL).map(name).collect();
        assert!(names.len() > POOL * 9 / 10, "{}", names.len());
    }

    #[test]
    fn a_hot_account_gets_half() {
        let mut load = Load::new(1, 20, true).unwrap();
        let to_first = (0..2000).filter(|n| load.payment(1 + n % 19).payee == load.banks()[0]).count();
        assert!((900..1200).contains(&to_first), "{to_first}");
        assert!((0..100).all(|n| load.payment(n % 20).payee != load.banks()[n % 20]));
    }
}
