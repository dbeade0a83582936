//! Whether the broker forgot: what was known of a stream against what the broker says now.

use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::stored::Mark;

use super::reconcile::{LeafHead, Retention, StreamSide};

/// A stream that is made anew begins so far above the highest sequence that anybody knows: acknowledgements of the last
/// moments may not have been told of yet.
pub const ABOVE: u64 = 1_000_000;

/// What was known of a stream at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// When the broker created it, in its words.
    pub created: String,
    /// The highest sequence.
    pub highest: u64,
    /// When the message there was stored, where one stood there.
    pub highest_at: Option<Timestamp>,
    /// Its first message and when that was stored, where it had any.
    pub first: Option<(u64, Timestamp)>,
}

/// What the broker says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When it was created.
    pub created: String,
    /// The sequence that it was created to begin with.
    pub begins_at: u64,
    /// Messages that it holds.
    pub messages: u64,
    /// The lowest sequence that it holds; one above the last where it holds none.
    pub first: u64,
    /// The last sequence that it gave out.
    pub last: u64,
    /// When the message at the highest known sequence was stored, where one stands there.
    pub known_at: Option<Timestamp>,
    /// How long it keeps things.
    pub retention: Retention,
    /// Why relays keep their events, where they do.
    pub mark: Option<Mark>,
}

/// What others know of a stream; all of it was asked for before the broker was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// The highest sequence that a relay had acknowledged, or that came to a consumer of this engine.
    pub highest: u64,
    /// Sequences at which nothing is any more, as is known.
    pub holes: Ranges,
    /// Whether a relay saw a sequence given out twice.
    pub repeated: bool,
}

/// What is to be done about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was, or further.
    Well,
    /// It is new to us, or was made anew in a way that nobody takes for the old one: from now on it counts.
    Adopt,
    /// It is being refilled: go on.
    Resume,
    /// The broker forgot.
    Lost(String),
}

/// Judges one look. Nothing is known of a stream that was never there.
pub fn judge(known: Option<&Known>, look: Option<&Look>, others: &Others, now: Timestamp) -> Verdict {
    let repeats = repeats(known, look, others);
    let Some(look) = look else { return repeats.map_or(Verdict::Well, Verdict::Lost) };
    match look.mark {
        Some(Mark::Refilled) => return Verdict::Resume,
        Some(Mark::Held) => return Verdict::Lost("it was about to be made anew".into()),
        None => {}
    }
    if let Some(why) = repeats {
        return Verdict::Lost(why);
    }
    if known.is_some_and(|known| known.created != look.created) {
        return Verdict::Adopt;
    }
    if let Some((first, stored_at)) = known.and_then(|known| known.first)
        && look.first > first
        && look.retention.keeps(stored_at, now)
    {
        return Verdict::Lost(format!("it was emptied: message {first} is gone before its time"));
    }
    // Sequences have no gap, and only the oldest messages are let go of.
    let empty = (look.last + 1).saturating_sub(look.first.max(1)).saturating_sub(look.messages);
    let lost = empty.saturating_sub(others.holes.within(look.first, look.last).count());
    if lost > 0 {
        return Verdict::Lost(format!("it was truncated: {lost} messages are gone before their time"));
    }
    if known.is_some() { Verdict::Well } else { Verdict::Adopt }
}

/// Why a stream gives out sequences that were given out before, where it does. What is published to it would lift it to
/// where it was, and nobody could tell any more that it forgot.
fn repeats(known: Option<&Known>, look: Option<&Look>, others: &Others) -> Option<String> {
    let highest = highest(known, others);
    let Some(look) = look else {
        return (known.is_some() || highest > 0).then(|| "it was deleted".to_owned());
    };
    if known.is_some_and(|known| known.created != look.created) {
        let from = look.begins_at.max(1);
        return (look.begins_at <= highest)
            .then(|| format!("it was made anew, to begin at {from} where {highest} was known"));
    }
    if look.last < highest {
        return Some(format!("it was rolled back: it ends at {} where {highest} was known", look.last));
    }
    // Whatever was published since then lifted it above where it was.
    if let Some(known) = known
        && let (Some(then), Some(now)) = (known.highest_at, look.known_at)
        && then != now
    {
        let place = known.highest;
        return Some(format!(
            "it was rolled back: message {place} was stored at {then}, and one of {now} stands there"
        ));
    }
    others.repeated.then(|| "it was rolled back: a relay was given a sequence twice".to_owned())
}

/// Whether nothing may be published to a stream on demand before it is made anew: it gives out sequences again, or that is
/// under way. Where it only lacks messages, what is published again goes above them.
pub fn must_be_anew(known: Option<&Known>, look: Option<&Look>, others: &Others) -> bool {
    look.is_some_and(|look| look.mark.is_some()) || repeats(known, look, others).is_some()
}

/// The highest sequence that anybody knows.
pub fn highest(known: Option<&Known>, others: &Others) -> u64 {
    known.map_or(0, |known| known.highest).max(others.highest)
}

/// Whether a leaf belongs into a stream that is refilled with the leaves of its own.
pub fn refills(leaf: &LeafHead, stream: &str, side: &StreamSide, now: Timestamp) -> bool {
    leaf.valid
        && leaf.event_id.is_some()
        && leaf.origin.0 == stream
        && side.retention.is_some_and(|retention| retention.keeps(leaf.earliest, now))
        && !side.held.has(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const NOW: Timestamp = Timestamp::from_micros(100 * DAY);

    fn known() -> Known {
        let at = |day| Timestamp::from_micros(day * DAY);
        Known { created: "a".into(), highest: 9, highest_at: Some(at(100)), first: Some((3, at(99))) }
    }

    fn look() -> Look {
        let retention = Retention { max_age: Some(7 * DAY), evicts: false };
        let known_at = Some(NOW);
        Look { created: "a".into(), begins_at: 0, messages: 8, first: 3, last: 10, known_at, retention, mark: None }
    }

    fn others() -> Others {
        Others { highest: 10, holes: Ranges::default(), repeated: false }
    }

    fn word(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Well => "well",
            Verdict::Adopt => "adopt",
            Verdict::Resume => "resume",
            Verdict::Lost(why) => why.split(':').next().unwrap().split(',').next().unwrap(),
        }
    }

    #[test]
    fn every_way_to_forget_is_told_from_going_on() {
        let old = Known { first: Some((3, Timestamp::from_micros(90 * DAY))), ..known() };
        let hole = Others { holes: Ranges::from_pairs(&[5, 5]).unwrap(), ..others() };
        type Row = (Option<Known>, Option<Look>, Others, &'static str, bool);
        let another = Some(Timestamp::from_micros(100 * DAY + 1));
        let rows: [Row; 23] = [
            (Some(known()), Some(look()), others(), "well", false),
            (Some(known()), Some(Look { last: 30, messages: 28, ..look() }), others(), "well", false),
            (None, Some(look()), others(), "adopt", false),
            (None, None, Others::default(), "well", false),
            (None, None, others(), "it was deleted", true),
            (None, Some(Look { messages: 0, first: 0, last: 0, ..look() }), Others::default(), "adopt", false),
            (Some(known()), None, others(), "it was deleted", true),
            (Some(known()), Some(Look { created: "b".into(), ..look() }), others(), "it was made anew", true),
            (
                Some(known()),
                Some(Look { created: "b".into(), begins_at: 11, first: 11, ..look() }),
                others(),
                "adopt",
                false,
            ),
            (
                Some(known()),
                Some(Look { created: "b".into(), mark: Some(Mark::Refilled), ..look() }),
                others(),
                "resume",
                true,
            ),
            (
                Some(known()),
                Some(Look { mark: Some(Mark::Held), ..look() }),
                others(),
                "it was about to be made anew",
                true,
            ),
            (Some(known()), Some(Look { last: 9, ..look() }), others(), "it was rolled back", true),
            (None, Some(Look { last: 9, ..look() }), others(), "it was rolled back", true),
            (Some(known()), Some(Look { known_at: another, ..look() }), others(), "it was rolled back", true),
            // It was deleted by a hand: that is what is counted as a hole.
            (Some(known()), Some(Look { known_at: None, ..look() }), others(), "well", false),
            (Some(Known { highest_at: None, ..known() }), Some(look()), others(), "well", false),
            (
                Some(known()),
                Some(Look { created: "b".into(), begins_at: 11, first: 11, known_at: another, ..look() }),
                others(),
                "adopt",
                false,
            ),
            (Some(known()), Some(look()), Others { repeated: true, ..others() }, "it was rolled back", true),
            (Some(known()), Some(Look { messages: 0, first: 11, ..look() }), others(), "it was emptied", false),
            // Nothing that came later is known: what began above it is another one.
            (
                Some(known()),
                Some(Look { created: "b".into(), begins_at: 11, first: 11, ..look() }),
                Others { repeated: true, ..others() },
                "adopt",
                false,
            ),
            (Some(old), Some(Look { messages: 0, first: 11, ..look() }), others(), "well", false),
            (Some(known()), Some(Look { messages: 7, ..look() }), others(), "it was truncated", false),
            (Some(known()), Some(Look { messages: 7, ..look() }), hole, "well", false),
        ];
        for (known, look, others, expected, anew) in rows {
            let verdict = judge(known.as_ref(), look.as_ref(), &others, NOW);
            assert_eq!(word(&verdict), expected, "{known:?} {look:?} {others:?}");
            // A repair on demand waits for exactly those that would give out sequences again.
            assert_eq!(must_be_anew(known.as_ref(), look.as_ref(), &others), anew, "{known:?} {look:?} {others:?}");
        }
    }

    #[test]
    fn the_highest_is_what_anybody_knows() {
        assert_eq!(highest(Some(&known()), &Others::default()), 9);
        assert_eq!(highest(Some(&known()), &others()), 10);
        assert_eq!(highest(None, &Others { highest: 12, ..others() }), 12);
    }
}
