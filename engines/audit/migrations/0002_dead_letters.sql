-- What no consumer could process, and what an operator decided about it.
CREATE TABLE dead_letter (
    -- The sequence in DEADLETTERS.
    dead_letter_id  bigint PRIMARY KEY CHECK (dead_letter_id > 0),
    stream          text NOT NULL,
    stream_sequence bigint NOT NULL,
    consumer        text NOT NULL,
    subject         text NOT NULL,
    reason          text NOT NULL,
    attempts        bigint NOT NULL,
    payload         bytea NOT NULL,
    digest          bytea NOT NULL,
    recorded_at     timestamptz NOT NULL,
    state           text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'REPLAYED', 'DROPPED')),
    -- How often it was published again.
    replays         integer NOT NULL DEFAULT 0 CHECK (replays >= 0),
    decided_by      text,
    CHECK ((state = 'OPEN') = (decided_by IS NULL))
);
CREATE INDEX dead_letter_origin ON dead_letter (stream, stream_sequence, consumer);

-- Messages that the broker gave up on, until they are dead letters.
CREATE TABLE advisory (
    stream          text NOT NULL,
    stream_sequence bigint NOT NULL,
    consumer        text NOT NULL,
    deliveries      bigint NOT NULL,
    received_at     timestamptz NOT NULL,
    done            boolean NOT NULL DEFAULT false,
    PRIMARY KEY (stream, stream_sequence, consumer)
);
CREATE INDEX advisory_open ON advisory (received_at) WHERE NOT done;
