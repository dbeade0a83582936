//! Which faults there are, and in which order they come.

use std::collections::{BTreeMap, VecDeque};

use crate::random::Random;

macro_rules! kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its words in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    NodeKilled = "node: SIGKILL",
    NodeRestarted = "node: SIGTERM and start",
    NodeFrozen = "node: SIGSTOP",
    BrokerKilled = "broker: SIGKILL",
    BrokerFrozen = "broker: SIGSTOP",
    BrokerWiped = "broker: store wiped",
    BrokerRolledBack = "broker: store rolled back",
    StreamDeleted = "stream: deleted",
    StreamRecreated = "stream: deleted and made anew from 1",
    StreamPurged = "stream: purged",
    StreamEmptied = "stream: its message files lost",
    PostgresKilled = "Postgres: SIGKILL",
    BackendKilled = "Postgres: SIGKILL of a session",
    PostgresFrozen = "Postgres: SIGSTOP",
    ClientsCut = "clients: connections cut",
    BrokerCut = "broker: connections cut",
    PostgresCut = "Postgres: connections cut",
    ClientAnswersLost = "clients: answers withheld, then cut",
    BrokerAnswersLost = "broker: answers withheld, then cut",
    PostgresAnswersLost = "Postgres: answers withheld, then cut",
    ClientsSlow = "clients: connections delayed",
    BrokerSlow = "broker: connections delayed",
    PostgresSlow = "Postgres: connections delayed",
    ClientsSilent = "clients: nothing passes",
    BrokerSilent = "broker: nothing passes",
    PostgresSilent = "Postgres: nothing passes",
    ClockForward = "node: clock jumps forward and back",
    ClockBack = "node: clock jumps back and forward",
    BrokerDiskFull = "broker: disk full",
    PostgresDiskFull = "Postgres: disk full",
}

/// Kinds of the short form.
const SHORT: &[Kind] = &[
    Kind::NodeKilled,
    Kind::StreamDeleted,
    Kind::PostgresAnswersLost,
    Kind::BrokerKilled,
    Kind::ClientAnswersLost,
    Kind::PostgresKilled,
    Kind::NodeFrozen,
];

/// A fault that is to come.
#[derive(Debug)]
pub struct Fault {
    /// Its number in the run, from 1.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// What its details follow from.
    pub random: Random,
}

/// The faults of a run, from its seed: every kind comes once, in an order of the seed, before any comes again.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    kinds: Vec<Kind>,
    deck: VecDeque<Kind>,
    order: Random,
    drawn: u32,
    endless: bool,
}

impl Plan {
    /// Every kind over and over, but for those that cannot be made here.
    pub fn long(seed: u64, without: &BTreeMap<Kind, String>) -> Self {
        let kinds = Kind::ALL.iter().copied().filter(|kind| !without.contains_key(kind)).collect();
        Self::of(seed, kinds, true)
    }

    /// The quick kinds, once.
    pub fn short(seed: u64) -> Self {
        Self::of(seed, SHORT.to_vec(), false)
    }

    fn of(seed: u64, kinds: Vec<Kind>, endless: bool) -> Self {
        Self { seed, kinds, deck: VecDeque::new(), order: Random::of(seed, "plan"), drawn: 0, endless }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.deck.is_empty() && (self.drawn == 0 || self.endless) {
            let mut kinds = self.kinds.clone();
            self.order.shuffle(&mut kinds);
            if self.drawn == 0 {
                // Streams that are made anew after the loss of the whole store refuse to be purged, as the catalog says.
                kinds.sort_by_key(|kind| *kind != Kind::StreamPurged);
                let first = kinds.len().min(1);
                self.order.shuffle(&mut kinds[first..]);
            }
            self.deck = kinds.into();
        }
        let kind = self.deck.pop_front()?;
        self.drawn += 1;
        let random = Random::of(self.seed, &format!("fault {}", self.drawn));
        Some(Fault { number: self.drawn, kind, random })
    }
}

#[test]
fn a_seed_gives_one_plan_and_every_kind_comes_before_any_comes_again() {
    let kinds = |seed| Plan::long(seed, &BTreeMap::new()).take(60).map(|fault| fault.kind).collect::<Vec<_>>();
    assert_eq!(kinds(1), kinds(1));
    assert_ne!(kinds(1), kinds(2));
    for round in kinds(7).chunks(Kind::ALL.len()) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, Kind::ALL);
    }
    let without = BTreeMap::from([(Kind::ClockBack, "no compiler".to_owned())]);
    assert!(Plan::long(1, &without).take(100).all(|fault| fault.kind != Kind::ClockBack));
    assert_eq!(Plan::short(1).count(), SHORT.len());
}
