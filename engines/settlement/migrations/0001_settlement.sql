-- Settlement batches. Times are microseconds since 1970-01-01T00:00:00Z.

-- One batch per netting set. What the netting set said never changes; the rest follows the states.
CREATE TABLE batch (
    number           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    batch_id         uuid PRIMARY KEY,
    netting_set_id   uuid NOT NULL UNIQUE,
    currency         text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    transactions     bigint NOT NULL CHECK (transactions >= 0),
    gross            numeric(38,0) NOT NULL CHECK (gross >= 0),
    moved            numeric(38,0) NOT NULL CHECK (moved BETWEEN 0 AND gross),
    participants     integer NOT NULL CHECK (participants >= 0),
    digest           text NOT NULL,
    state            text NOT NULL CHECK (state IN ('PENDING', 'RESERVED', 'SETTLED', 'AWAITING_FUNDS', 'RECAST', 'ABORTED')),
    -- Whether the legs were read from clearing, checked and stored.
    loaded           boolean NOT NULL,
    -- Number of the next earmark try; a number is used again until the ledger has answered it.
    next_earmark     integer NOT NULL CHECK (next_earmark > 0),
    -- The ledger refused the settle command: funding is asked before it is sent again.
    doubted          boolean NOT NULL,
    -- A named invariant does not hold: somebody must look.
    alarm            boolean NOT NULL,
    note             text NOT NULL,
    created_at       bigint NOT NULL,
    funding_deadline bigint,
    final_at         bigint,
    -- Counts the writes, so that no decision is stored over a state that it was not made from.
    revision         bigint NOT NULL CHECK (revision > 0),
    CHECK (state <> 'AWAITING_FUNDS' OR funding_deadline IS NOT NULL),
    CHECK ((state = 'SETTLED') = (final_at IS NOT NULL)),
    CHECK (loaded OR state = 'PENDING'),
    CHECK (NOT doubted OR state = 'RESERVED')
) WITH (fillfactor = 70);
CREATE INDEX batch_open ON batch (number) WHERE state IN ('PENDING', 'RESERVED', 'AWAITING_FUNDS');

-- A window is in at most one batch that was not given up.
CREATE TABLE batch_window (
    batch_id  uuid NOT NULL REFERENCES batch,
    window_id uuid NOT NULL,
    released  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (batch_id, window_id)
);
CREATE UNIQUE INDEX batch_window_once ON batch_window (window_id) WHERE NOT released;
CREATE INDEX batch_window_of ON batch_window (window_id);

-- The frozen net positions. Plus receives, minus owes.
CREATE TABLE batch_leg (
    batch_id     uuid NOT NULL REFERENCES batch,
    participant  text NOT NULL,
    net          numeric(38,0) NOT NULL,
    required     numeric(38,0) NOT NULL CHECK (required = greatest(-net, 0)),
    -- What the ledger said last.
    reserved     numeric(38,0) NOT NULL CHECK (reserved >= 0),
    cover_policy text CHECK (cover_policy IN ('PREFUNDED', 'COLLATERAL', 'CREDIT_LINE')),
    PRIMARY KEY (batch_id, participant)
) WITH (fillfactor = 70);

-- The arrows between states, held by the database too: what ended stays as it is, and what the
-- netting set said is never rewritten.
CREATE FUNCTION batch_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('SETTLED', 'RECAST', 'ABORTED') THEN
        RAISE EXCEPTION 'batch % is % and changes no more', OLD.batch_id, OLD.state;
    END IF;
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('PENDING', 'RESERVED'), ('PENDING', 'AWAITING_FUNDS'),
        ('AWAITING_FUNDS', 'RESERVED'), ('AWAITING_FUNDS', 'ABORTED'),
        ('RESERVED', 'SETTLED'), ('RESERVED', 'AWAITING_FUNDS')) THEN
        RAISE EXCEPTION 'batch %: % may not become %', OLD.batch_id, OLD.state, NEW.state;
    END IF;
    IF (NEW.batch_id, NEW.netting_set_id, NEW.currency, NEW.transactions, NEW.gross, NEW.moved, NEW.participants, NEW.digest,
        NEW.created_at)
       IS DISTINCT FROM
       (OLD.batch_id, OLD.netting_set_id, OLD.currency, OLD.transactions, OLD.gross, OLD.moved, OLD.participants, OLD.digest,
        OLD.created_at)
       OR (OLD.loaded AND NOT NEW.loaded) THEN
        RAISE EXCEPTION 'batch %: what the netting set said is frozen', OLD.batch_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER batch_guard BEFORE UPDATE ON batch FOR EACH ROW EXECUTE FUNCTION batch_guard();

CREATE FUNCTION batch_leg_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.batch_id, NEW.participant, NEW.net) IS DISTINCT FROM (OLD.batch_id, OLD.participant, OLD.net) THEN
        RAISE EXCEPTION 'batch %: the legs are frozen', OLD.batch_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER batch_leg_guard BEFORE UPDATE ON batch_leg FOR EACH ROW EXECUTE FUNCTION batch_leg_guard();

REVOKE DELETE, TRUNCATE ON batch, batch_window, batch_leg FROM deltran_settlement;
