//! What can happen, as data: a list of these can be pasted into a test as it is printed.
//!
//! Operations name things by numbers that are taken modulo what is there, so that a list stays meaningful whatever is
//! left out of it.

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    Token,
    Clearing,
    Settlement,
    Risk,
    Audit,
}

impl Engine {
    pub const ALL: [Self; 5] = [Self::Token, Self::Clearing, Self::Settlement, Self::Risk, Self::Audit];
    /// Those that publish.
    pub const SPEAKERS: [Self; 4] = [Self::Token, Self::Clearing, Self::Settlement, Self::Audit];
}

/// A stream of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    Transactions,
    Clearing,
    Settlement,
    Audit,
}

impl Log {
    pub const ALL: [Self; 4] = [Self::Transactions, Self::Clearing, Self::Settlement, Self::Audit];
    /// Those that AUDIT copies.
    pub const SOURCES: [Self; 3] = [Self::Transactions, Self::Clearing, Self::Settlement];
}

/// A durable consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// The ledger's events, for clearing.
    Obligations,
    /// Settlement's events, for clearing.
    Batches,
    /// Clearing's events, for settlement.
    Sets,
    /// The ledger's events, for risk.
    Exposures,
    /// Everything, for the audit ledger.
    Leaves,
}

impl Feed {
    pub const ALL: [Self; 5] = [Self::Obligations, Self::Batches, Self::Sets, Self::Exposures, Self::Leaves];
}

/// How a transaction of an engine's database ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Committed, and whoever waits hears of it.
    Done,
    /// The process dies before COMMIT.
    DiesBefore,
    /// The process dies after COMMIT, before anybody hears of it.
    DiesAfter,
    /// COMMIT takes effect, and its answer (or the acknowledgement to the broker) is lost.
    AnswerLost,
    /// COMMIT takes no effect, and the process lives.
    Fails,
}

/// What becomes of a call from one engine to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Answered,
    NeverArrives,
    AnswerLost,
}

/// How a payment is to settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Net,
    NetHold,
    Gross,
    GrossHold,
}

/// What compliance says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    Approve,
    Review,
    Decline,
    /// It does not answer.
    Silent,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A bank submits; the gates are asked, then the command waits for the writer.
    Submit {
        payer: u8,
        payee: u8,
        units: u16,
        euro: bool,
        way: Way,
        screen: Screen,
    },
    /// A bank sends an earlier submission again, as it was.
    Retry {
        which: u16,
        screen: Screen,
    },
    /// The same id with another body.
    Alter {
        which: u16,
    },
    Return {
        which: u16,
        units: u16,
    },
    Commit {
        which: u16,
    },
    Cancel {
        which: u16,
    },
    Release {
        which: u16,
        release: bool,
    },
    Deposit {
        bank: u8,
        units: u16,
        euro: bool,
    },
    Withdraw {
        bank: u8,
        units: u16,
        euro: bool,
    },
    EndWithdrawal {
        which: u16,
        confirmed: bool,
    },
    Cap {
        bank: u8,
        units: u16,
        euro: bool,
    },
    Collateral {
        bank: u8,
        units: u16,
        euro: bool,
    },
    Suspend {
        bank: u8,
        suspended: bool,
    },
    /// An earlier command of an operator is sent again.
    Again {
        which: u16,
    },
    /// The ledger's writer takes up to so many commands that wait.
    Write {
        most: u8,
        fate: Fate,
    },
    /// Operators of clearing.
    Open {
        euro: bool,
        fate: Fate,
    },
    Close {
        euro: bool,
        next: bool,
        fate: Fate,
    },
    Abort {
        euro: bool,
        fate: Fate,
    },
    NetAgain {
        euro: bool,
        all: bool,
        fate: Fate,
    },
    /// The driver of windows takes one that is due a step further.
    Windows {
        nth: u8,
        call: Call,
        ledger: Fate,
        fate: Fate,
    },
    /// The driver of batches.
    Batches {
        nth: u8,
        call: Call,
        ledger: Fate,
        fate: Fate,
    },
    /// A relay publishes up to so many rows; it may die before it has marked them.
    Relay {
        engine: Engine,
        most: u8,
        marked: bool,
    },
    /// A relay asks the audit ledger how far it has its events, and lets rows go.
    Confirm {
        engine: Engine,
    },
    /// AUDIT copies what another stream has.
    Copy {
        log: Log,
        most: u8,
    },
    /// A consumer is delivered messages; those that are skipped come later.
    Deliver {
        feed: Feed,
        skip: u8,
        most: u8,
        fate: Fate,
    },
    /// What was not acknowledged comes again: in its place, or after what is new.
    Redeliver {
        feed: Feed,
        in_order: bool,
    },
    /// The broker loses the last messages of a stream; cursors of its consumers with them, or not.
    Rollback {
        log: Log,
        last: u8,
        cursors: bool,
    },
    /// The broker loses every message of a stream.
    Wipe {
        log: Log,
    },
    /// A stream is deleted.
    Delete {
        log: Log,
    },
    /// A stream is deleted and created again from its first sequence, as somebody's script might do.
    Remake {
        log: Log,
    },
    /// The keeper of streams looks, and mends what two looks saw lost; it dies after so many steps of that.
    Keep {
        steps: u8,
    },
    /// An operator compares everything and has it repaired.
    Repair,
    /// A process dies.
    Crash {
        engine: Engine,
    },
    /// Another process takes the ledger's lease while this one is frozen.
    TakeOver,
    /// The frozen one wakes and goes on where it was.
    Wake {
        fate: Fate,
    },
    /// Risk compares its memory with its database.
    Reload,
    Checkpoint,
    Advance {
        seconds: u16,
    },
    /// Nothing goes wrong for a while, and everything is carried on as far as it goes.
    Calm,
}

/// A generator of numbers that gives the same for the same seed, on every machine (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn bool(&mut self) -> bool {
        self.one_in(2)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn units(&mut self, most: u64) -> u16 {
        (1 + self.below(most)) as u16
    }
}

/// How rough a day is. Each seed has one: some lose much, some nothing, so that long ways are gone to their end too.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// One in so many transactions of a database does not end well.
    crashes: u64,
    /// One in so many operations is a loss of the broker.
    losses: u64,
    /// One in so many operations is a calm.
    calms: u64,
}

/// The operations of a seed.
pub fn ops(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    let weather = Weather {
        crashes: random.of(&[4, 8, 20, 1_000_000]),
        losses: random.of(&[25, 60, 200, 1_000_000]),
        calms: random.of(&[30, 60, 400]),
    };
    (0..count).map(|_| random.op(weather)).collect()
}

impl Random {
    fn fate(&mut self, weather: Weather) -> Fate {
        if self.one_in(weather.crashes) {
            self.of(&[Fate::DiesBefore, Fate::DiesAfter, Fate::AnswerLost, Fate::Fails])
        } else {
            Fate::Done
        }
    }

    fn call(&mut self, weather: Weather) -> Call {
        if self.one_in(weather.crashes) { self.of(&[Call::NeverArrives, Call::AnswerLost]) } else { Call::Answered }
    }

    fn op(&mut self, weather: Weather) -> Op {
        if self.one_in(weather.calms) {
            return Op::Calm;
        }
        if self.one_in(weather.losses) {
            let log = self.of(&Log::ALL);
            return match self.below(8) {
                0 => Op::Wipe { log },
                1 => Op::Delete { log },
                2 => Op::Remake { log },
                _ => Op::Rollback { log, last: 1 + self.below(12) as u8, cursors: self.bool() },
            };
        }
        match self.below(100) {
            0..=21 => self.submit(),
            22..=29 => self.second(),
            30..=34 => self.operator(),
            35..=48 => Op::Write { most: 1 + self.below(8) as u8, fate: self.fate(weather) },
            49..=53 => self.window(weather),
            54..=59 => {
                let (nth, call, ledger) = (self.below(4) as u8, self.call(weather), self.fate(weather));
                Op::Windows { nth, call, ledger, fate: self.fate(weather) }
            }
            60..=64 => {
                let (nth, call, ledger) = (self.below(4) as u8, self.call(weather), self.fate(weather));
                Op::Batches { nth, call, ledger, fate: self.fate(weather) }
            }
            65..=73 => {
                let marked = !self.one_in(weather.crashes);
                Op::Relay { engine: self.of(&Engine::SPEAKERS), most: 1 + self.below(30) as u8, marked }
            }
            74..=77 => Op::Copy { log: self.of(&Log::SOURCES), most: 1 + self.below(30) as u8 },
            78..=89 => {
                let skip = if self.one_in(6) { self.below(4) as u8 } else { 0 };
                let most = 1 + self.below(20) as u8;
                Op::Deliver { feed: self.of(&Feed::ALL), skip, most, fate: self.fate(weather) }
            }
            90..=91 => Op::Redeliver { feed: self.of(&Feed::ALL), in_order: !self.one_in(3) },
            92 => Op::Confirm { engine: self.of(&Engine::SPEAKERS) },
            93 => Op::Reload,
            94 => Op::Checkpoint,
            95 => Op::Advance { seconds: self.of(&[1, 5, 25, 150]) },
            _ => self.rare(weather),
        }
    }

    fn submit(&mut self) -> Op {
        let way = self.of(&[Way::Net, Way::Net, Way::Net, Way::Net, Way::NetHold, Way::Gross, Way::GrossHold]);
        let screen = match self.below(24) {
            0 => Screen::Silent,
            1 => Screen::Decline,
            2 | 3 => Screen::Review,
            _ => Screen::Approve,
        };
        let (payer, payee, units) = (self.below(4) as u8, self.below(4) as u8, self.units(120));
        Op::Submit { payer, payee, units, euro: self.one_in(4), way, screen }
    }

    fn second(&mut self) -> Op {
        let which = self.draw() as u16;
        match self.below(12) {
            0..=2 => Op::Retry { which, screen: self.of(&[Screen::Approve, Screen::Approve, Screen::Silent]) },
            3 => Op::Alter { which },
            4 | 5 => Op::Return { which, units: self.units(80) },
            6 | 7 => Op::Commit { which },
            8 => Op::Cancel { which },
            _ => Op::Release { which, release: !self.one_in(3) },
        }
    }

    fn operator(&mut self) -> Op {
        let (bank, euro) = (self.below(4) as u8, self.one_in(4));
        match self.below(10) {
            0..=2 => Op::Deposit { bank, units: self.units(200), euro },
            3 => Op::Withdraw { bank, units: self.units(200), euro },
            4 => Op::EndWithdrawal { which: self.draw() as u16, confirmed: self.bool() },
            5 => Op::Cap { bank, units: self.units(400), euro },
            6 => Op::Collateral { bank, units: self.units(300), euro },
            7 => Op::Suspend { bank, suspended: self.bool() },
            _ => Op::Again { which: self.draw() as u16 },
        }
    }

    fn window(&mut self, weather: Weather) -> Op {
        let (euro, fate) = (self.one_in(4), self.fate(weather));
        match self.below(10) {
            0..=2 => Op::Open { euro, fate },
            3..=6 => Op::Close { euro, next: !self.one_in(4), fate },
            7 => Op::Abort { euro, fate },
            _ => Op::NetAgain { euro, all: self.bool(), fate },
        }
    }

    fn rare(&mut self, weather: Weather) -> Op {
        if weather.crashes > 1_000 {
            return Op::Keep { steps: u8::MAX };
        }
        match self.below(8) {
            0 => Op::Crash { engine: self.of(&Engine::ALL) },
            1 => Op::TakeOver,
            2 => Op::Wake { fate: Fate::Done },
            3 => Op::Repair,
            4 => Op::Keep { steps: self.below(12) as u8 },
            _ => Op::Keep { steps: u8::MAX },
        }
    }
}
