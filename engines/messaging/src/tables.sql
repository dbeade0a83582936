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
    confirmed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO outbox_mark DEFAULT VALUES ON CONFLICT DO NOTHING;

-- The stream that the relay publishes to: when the broker created it, in its own words (none before the first look), the
-- highest sequence that it acknowledged, and whether it gave out a sequence twice.
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS stream_created text NOT NULL DEFAULT '';
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS acknowledged bigint NOT NULL DEFAULT 0 CHECK (acknowledged >= 0);
ALTER TABLE outbox_mark ADD COLUMN IF NOT EXISTS repeated boolean NOT NULL DEFAULT false;

-- After a restore numbers go on in a new epoch, from 1. What then still waits in the outbox is of earlier epochs: it keeps its
-- place with numbers at or below 0, the last of the epoch before at 0, and so do the marks.
ALTER TABLE outbox_mark DROP CONSTRAINT IF EXISTS outbox_mark_check;
-- The timeline of the database at the last start (0 before the first), and whether the engine takes nothing until an
-- operator has decided.
ALTER TABLE outbox_counter ADD COLUMN IF NOT EXISTS timeline bigint NOT NULL DEFAULT 0 CHECK (timeline >= 0);
ALTER TABLE outbox_counter ADD COLUMN IF NOT EXISTS waits boolean NOT NULL DEFAULT false;

-- Epochs that ended, each with the last number that this database knows of.
CREATE TABLE IF NOT EXISTS outbox_epoch (
    epoch    bigint PRIMARY KEY,
    last     bigint NOT NULL CHECK (last >= 0),
    reason   text NOT NULL,
    ended_at timestamptz NOT NULL
);

-- Events that the stream has and this database never gave out: it was restored to an earlier moment.
CREATE TABLE IF NOT EXISTS outbox_beyond (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    producer        text NOT NULL,
    producer_seq    bigint NOT NULL,
    event_id        text NOT NULL,
    subject         text NOT NULL,
    correlation_id  text NOT NULL,
    participant_id  text NOT NULL,
    stream_sequence bigint NOT NULL,
    UNIQUE (producer, producer_seq)
);

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
