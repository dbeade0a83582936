-- The tables of the backbone, once in every engine's schema.

-- The last number given out. Every transaction that publishes locks this row last before COMMIT, so
-- that numbers have no gap and are in the order of commits.
CREATE TABLE IF NOT EXISTS outbox_counter (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch    bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    assigned bigint NOT NULL DEFAULT 0 CHECK (assigned >= 0)
) WITH (fillfactor = 50);
INSERT INTO outbox_counter DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Events in the order of commits, until the audit ledger has them.
CREATE TABLE IF NOT EXISTS outbox (
    seq      bigint PRIMARY KEY,
    event_id uuid NOT NULL,
    subject  text NOT NULL,
    schema   text NOT NULL,
    envelope bytea NOT NULL,
    trace    text
);

-- How far the relay has published and the audit ledger has confirmed.
CREATE TABLE IF NOT EXISTS outbox_mark (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    published bigint NOT NULL DEFAULT 0,
    confirmed bigint NOT NULL DEFAULT 0,
    CHECK (confirmed >= 0 AND published >= 0)
) WITH (fillfactor = 50);
INSERT INTO outbox_mark DEFAULT VALUES ON CONFLICT DO NOTHING;

-- The stream that the relay publishes to: when the broker created it, in its own words (none before the first look), the
-- highest sequence that it acknowledged, and whether it gave out a sequence twice.
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS stream_created text NOT NULL DEFAULT '';
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS acknowledged bigint NOT NULL DEFAULT 0 CHECK (acknowledged >= 0);
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS repeated boolean NOT NULL DEFAULT false;

-- What each consumer has received, per producer: sorted, disjoint ranges as [low, high] pairs in one
-- array. This alone decides what is a duplicate.
CREATE TABLE IF NOT EXISTS received (
    consumer text NOT NULL,
    producer text NOT NULL,
    ranges   bigint[] NOT NULL CHECK (cardinality(ranges) % 2 = 0),
    PRIMARY KEY (consumer, producer)
) WITH (fillfactor = 50);

-- Events of publishers without a producer number, by id and content.
CREATE TABLE IF NOT EXISTS received_event (
    consumer    text NOT NULL,
    event_id    uuid NOT NULL,
    digest      bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id, digest)
);
