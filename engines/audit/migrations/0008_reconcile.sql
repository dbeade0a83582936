-- Comparisons of outboxes, streams and ledger.

-- The last one.
CREATE TABLE reconcile_run (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    ended_at    timestamptz NOT NULL,
    compared    bigint NOT NULL CHECK (compared >= 0),
    differences bigint NOT NULL CHECK (differences >= 0),
    repaired    bigint NOT NULL CHECK (repaired >= 0)
);

-- Received sequences that a stream lost, and whose events were found elsewhere or published again: sorted, disjoint
-- ranges as [low, high] pairs. A place that is empty and known to be.
CREATE TABLE stream_hole (
    stream text PRIMARY KEY,
    ranges bigint[] NOT NULL CHECK (cardinality(ranges) % 2 = 0)
);

-- Differences that it left, the first thousand of each class, so that each is told of once.
CREATE TABLE reconcile_difference (
    place      text NOT NULL,
    kind       text NOT NULL,
    item       text NOT NULL,
    first_seen timestamptz NOT NULL,
    PRIMARY KEY (place, kind, item)
);
