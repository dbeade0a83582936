-- Clearing windows, what was counted of them, and frozen netting sets.
-- Moments are microseconds since 1970-01-01T00:00:00Z; amounts are minor units of the currency.

CREATE TABLE clearing_window (
    window_id        uuid PRIMARY KEY,
    -- Order of planning; lists are paged by it, newest first.
    number           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    schedule         text NOT NULL,
    currency         text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    state            text NOT NULL CHECK (state IN
        ('SCHEDULED', 'OPEN', 'CLOSING', 'CLOSED', 'NETTED', 'SETTLING', 'SETTLED', 'FAILED', 'ABORTED')),
    opens_at_us      bigint NOT NULL,
    -- Null where a person closes it.
    closes_at_us     bigint,
    -- Whether an operator moved the closing time: then the timetable leaves it alone.
    extended         boolean NOT NULL DEFAULT false,
    opened_at_us     bigint,
    closed_at_us     bigint,
    settled_at_us    bigint,
    -- Set while its opening is ordered and the ledger has not answered.
    open_ordered_by  text,
    close_ordered_by text,
    -- The window that the seal of this one opens.
    next_window_id   uuid,
    -- Set where it ends as ABORTED if the ledger seals it empty.
    abort_reason     text,
    sealed_count     bigint CHECK (sealed_count >= 0),
    sealed_gross     numeric(38, 0) CHECK (sealed_gross >= 0),
    sealed_digest    bytea CHECK (octet_length(sealed_digest) = 32),
    netting_set_id   uuid,
    note             text,
    CHECK (next_window_id <> window_id),
    CHECK (state IN ('SCHEDULED', 'ABORTED') OR opened_at_us IS NOT NULL),
    CHECK (state NOT IN ('CLOSED', 'NETTED', 'SETTLING', 'SETTLED', 'FAILED') OR
           (closed_at_us IS NOT NULL AND sealed_count IS NOT NULL AND sealed_gross IS NOT NULL AND sealed_digest IS NOT NULL)),
    CHECK (state NOT IN ('NETTED', 'SETTLING', 'SETTLED', 'FAILED') OR netting_set_id IS NOT NULL),
    CHECK (state <> 'SETTLED' OR settled_at_us IS NOT NULL),
    CHECK (state <> 'ABORTED' OR coalesce(sealed_count, 0) = 0)
) WITH (fillfactor = 70);

-- C4: the ledger has at most one open window per currency, so at most one may be open, opening or closing.
CREATE UNIQUE INDEX one_open_window ON clearing_window (currency)
    WHERE state IN ('OPEN', 'CLOSING') OR (state = 'SCHEDULED' AND open_ordered_by IS NOT NULL);
CREATE INDEX unfinished_window ON clearing_window (number) WHERE state IN ('SCHEDULED', 'OPEN', 'CLOSING', 'CLOSED');
CREATE INDEX window_of_currency ON clearing_window (currency, number);

-- What was consumed of each window. No foreign key: the ledger may speak of a window first.
CREATE TABLE tally (
    window_id    uuid PRIMARY KEY,
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    count        bigint NOT NULL CHECK (count > 0),
    gross        numeric(38, 0) NOT NULL CHECK (gross >= 0),
    -- window_seq 1 to this are in the digest.
    folded       bigint NOT NULL CHECK (folded BETWEEN 0 AND count),
    -- The highest window_seq that was seen.
    highest      bigint NOT NULL CHECK (highest >= count),
    -- State of SHA-256 over the 16-byte transaction ids so far.
    digest_state bytea NOT NULL
) WITH (fillfactor = 50);

-- Consumed ahead of their turn: they wait for the window_seq before them.
CREATE TABLE pending_obligation (
    window_id      uuid NOT NULL,
    window_seq     bigint NOT NULL CHECK (window_seq > 0),
    transaction_id uuid NOT NULL,
    PRIMARY KEY (window_id, window_seq)
);

-- Gross amount and number of obligations between two participants in a window.
CREATE TABLE obligation_total (
    window_id uuid NOT NULL,
    currency  text NOT NULL,
    payer     text NOT NULL,
    payee     text NOT NULL,
    count     bigint NOT NULL CHECK (count > 0),
    gross     numeric(38, 0) NOT NULL CHECK (gross > 0),
    PRIMARY KEY (window_id, currency, payer, payee),
    CHECK (payer <> payee)
) WITH (fillfactor = 70);

-- The ledger's net per participant when it sealed a window.
CREATE TABLE sealed_position (
    window_id   uuid NOT NULL,
    participant text NOT NULL,
    net         numeric(38, 0) NOT NULL,
    PRIMARY KEY (window_id, participant)
);

CREATE TABLE netting_set (
    netting_set_id  uuid PRIMARY KEY,
    currency        text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    count           bigint NOT NULL CHECK (count >= 0),
    gross           numeric(38, 0) NOT NULL CHECK (gross >= 0),
    moved           numeric(38, 0) NOT NULL CHECK (moved BETWEEN 0 AND gross),
    efficiency      integer NOT NULL CHECK (efficiency BETWEEN 0 AND 10000),
    largest_debtor  text,
    -- What would change hands, and in how many legs, if pairs settled between themselves.
    bilateral_moved numeric(38, 0) NOT NULL CHECK (bilateral_moved BETWEEN moved AND gross),
    bilateral_legs  bigint NOT NULL CHECK (bilateral_legs >= 0),
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32),
    netted_at_us    bigint NOT NULL
);

CREATE TABLE netting_set_window (
    netting_set_id uuid NOT NULL REFERENCES netting_set,
    window_id      uuid NOT NULL REFERENCES clearing_window,
    PRIMARY KEY (netting_set_id, window_id)
);
CREATE INDEX netting_set_of_window ON netting_set_window (window_id);

CREATE TABLE net_position (
    netting_set_id uuid NOT NULL REFERENCES netting_set,
    participant    text NOT NULL,
    net            numeric(38, 0) NOT NULL,
    PRIMARY KEY (netting_set_id, participant)
);

-- What is frozen stays as it is.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is frozen: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

DO $$
DECLARE frozen text;
BEGIN
    FOREACH frozen IN ARRAY ARRAY['sealed_position', 'netting_set', 'netting_set_window', 'net_position'] LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM deltran_clearing', frozen);
        EXECUTE format('CREATE TRIGGER frozen_row BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', frozen);
        EXECUTE format('CREATE TRIGGER frozen_table BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', frozen);
    END LOOP;
END $$;
