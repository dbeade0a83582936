-- The streams as the broker showed them at the last look, by which it is noticed where it forgot.
CREATE TABLE stream_known (
    stream     text PRIMARY KEY,
    -- In the broker's own words: another text is another stream under the same name.
    created    text NOT NULL,
    highest    bigint NOT NULL CHECK (highest >= 0),
    -- Its first message, where it had any.
    first      bigint,
    first_at   timestamptz,
    -- Its configuration, in the broker's words.
    config     text NOT NULL,
    -- Leaves before this one are expected in it as far as their own stream should hold them: it was made anew then, out
    -- of the others.
    since_leaf bigint NOT NULL DEFAULT 0 CHECK (since_leaf >= 0),
    CHECK ((first IS NULL) = (first_at IS NULL))
) WITH (fillfactor = 50);

-- Streams that the broker forgot and that are made anew, until they have what they should.
CREATE TABLE stream_mended (
    stream     text PRIMARY KEY,
    reason     text NOT NULL,
    noticed_at timestamptz NOT NULL
);

-- Messages that stood in such a stream only, and in no outbox: they are published to the new one.
CREATE TABLE stream_carried (
    stream  text NOT NULL,
    subject text NOT NULL,
    digest  bytea NOT NULL,
    payload bytea NOT NULL,
    place   bigint NOT NULL,
    PRIMARY KEY (stream, subject, digest)
);
