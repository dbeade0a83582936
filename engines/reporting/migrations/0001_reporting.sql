-- Read models from consumed events, and reports. Moments are microseconds since 1970-01-01T00:00:00Z, business days are
-- days since 1970-01-01, amounts integer minor units. (epoch, seq) is the number of the ledger's event.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: it is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- The time zone in which business days are counted; fixed once something is counted in it.
CREATE TABLE business_zone (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    time_zone text NOT NULL
);

-- When the last applied event of each producer happened.
CREATE TABLE applied (
    producer text PRIMARY KEY,
    last_at  bigint NOT NULL
) WITH (fillfactor = 50);

-- Committed payments, deposits and confirmed withdrawals: a row each. No payer: fiat arrived; no payee: fiat left.
CREATE TABLE entry (
    epoch         bigint NOT NULL,
    seq           bigint NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('NET', 'GROSS', 'DEPOSIT', 'WITHDRAWAL')),
    id            uuid NOT NULL,
    currency      text NOT NULL,
    payer         text,
    payee         text,
    amount        bigint NOT NULL CHECK (amount > 0),
    window_id     uuid,
    window_seq    bigint,
    at            bigint NOT NULL,
    day           integer NOT NULL,
    end_to_end_id text NOT NULL,
    uetr          text,
    return_of     uuid,
    reference     text NOT NULL,
    PRIMARY KEY (epoch, seq),
    CHECK ((kind = 'NET') = (window_id IS NOT NULL)),
    CHECK ((window_id IS NULL) = (window_seq IS NULL)),
    CHECK (payer IS NOT NULL OR payee IS NOT NULL)
);
-- A place in a window is taken once.
CREATE UNIQUE INDEX entry_window ON entry (window_id, window_seq) WHERE window_id IS NOT NULL;
CREATE INDEX entry_window_payer ON entry (window_id, payer, window_seq) WHERE window_id IS NOT NULL;
CREATE INDEX entry_window_payee ON entry (window_id, payee, window_seq) WHERE window_id IS NOT NULL;
CREATE INDEX entry_payer ON entry (payer, currency, day, epoch, seq) WHERE window_id IS NULL;
CREATE INDEX entry_payee ON entry (payee, currency, day, epoch, seq) WHERE window_id IS NULL;

-- Changes of token accounts (credits − debits), by which balances are taken back to an earlier event.
CREATE TABLE movement (
    epoch       bigint NOT NULL,
    seq         bigint NOT NULL,
    n           integer NOT NULL,
    currency    text NOT NULL,
    account     text NOT NULL CHECK (account IN ('SAFEGUARD', 'MULTILATERAL', 'SETTLEMENT', 'RESERVED')),
    participant text,
    change      numeric(38, 0) NOT NULL,
    PRIMARY KEY (epoch, seq, n)
);

-- The sum of movements; the hub's accounts have an empty participant.
CREATE TABLE balance (
    currency    text NOT NULL,
    account     text NOT NULL,
    participant text NOT NULL,
    balance     numeric(38, 0) NOT NULL,
    PRIMARY KEY (currency, account, participant)
) WITH (fillfactor = 60);

-- Change of a participant's tokens, spendable and locked together, by business day.
CREATE TABLE token_day (
    participant text NOT NULL,
    currency    text NOT NULL,
    day         integer NOT NULL,
    change      numeric(38, 0) NOT NULL,
    PRIMARY KEY (participant, currency, day)
) WITH (fillfactor = 60);

-- Transactions that are HELD or RESERVED.
CREATE TABLE pending (
    id            uuid PRIMARY KEY,
    state         text NOT NULL CHECK (state IN ('HELD', 'RESERVED')),
    payer         text NOT NULL,
    payee         text NOT NULL,
    amount        bigint NOT NULL,
    currency      text NOT NULL,
    model         text NOT NULL,
    end_to_end_id text NOT NULL,
    uetr          text,
    return_of     uuid
);

-- Windows as the ledger's events tell them: what was consumed, what was sealed, what settled them.
CREATE TABLE ledger_window (
    window_id     uuid PRIMARY KEY,
    currency      text NOT NULL,
    count         bigint NOT NULL DEFAULT 0,
    gross         numeric(38, 0) NOT NULL DEFAULT 0,
    sealed_count  bigint,
    sealed_gross  numeric(38, 0),
    sealed_digest text,
    sealed_at     bigint,
    -- Over the payments that were consumed, once they are all there.
    digest        text,
    group_id      uuid,
    posted_epoch  bigint,
    posted_seq    bigint,
    posted_at     bigint,
    posted_day    integer
) WITH (fillfactor = 60);
CREATE INDEX ledger_window_day ON ledger_window (currency, posted_day) WHERE posted_day IS NOT NULL;
CREATE INDEX ledger_window_posted ON ledger_window (currency, posted_epoch, posted_seq);

-- What everyone paid and received in a window.
CREATE TABLE flow (
    window_id      uuid NOT NULL,
    participant    text NOT NULL,
    paid_count     bigint NOT NULL,
    paid           numeric(38, 0) NOT NULL,
    received_count bigint NOT NULL,
    received       numeric(38, 0) NOT NULL,
    PRIMARY KEY (window_id, participant)
) WITH (fillfactor = 60);
CREATE INDEX flow_participant ON flow (participant, window_id);

-- Posted settlements, and their legs. A large one comes in parts.
CREATE TABLE posted_group (
    group_id   uuid PRIMARY KEY,
    currency   text NOT NULL,
    window_ids uuid[] NOT NULL,
    parts      integer NOT NULL,
    received   integer NOT NULL,
    posted_at  bigint NOT NULL
);
CREATE TABLE settled_leg (
    group_id    uuid NOT NULL REFERENCES posted_group (group_id),
    participant text NOT NULL,
    net         numeric(38, 0) NOT NULL,
    given_back  numeric(38, 0) NOT NULL,
    PRIMARY KEY (group_id, participant)
);

CREATE TABLE participant (
    id    text PRIMARY KEY,
    state text NOT NULL
);
CREATE TABLE membership (
    participant text NOT NULL,
    currency    text NOT NULL,
    PRIMARY KEY (participant, currency)
);

-- Windows and netting sets as clearing's events tell them.
CREATE TABLE clearing_window (
    window_id      uuid PRIMARY KEY,
    currency       text NOT NULL,
    schedule       text,
    opened_at      bigint,
    state          text NOT NULL,
    netting_set_id uuid
);
CREATE TABLE netting_set (
    netting_set_id uuid PRIMARY KEY,
    currency       text NOT NULL,
    window_ids     uuid[] NOT NULL,
    count          bigint NOT NULL,
    gross          numeric(38, 0) NOT NULL,
    moved          numeric(38, 0) NOT NULL,
    efficiency     integer NOT NULL,
    participants   integer NOT NULL,
    largest_debtor text,
    digest         text NOT NULL,
    netted_at      bigint NOT NULL
);

-- Settled batches as settlement's events tell them.
CREATE TABLE settled_batch (
    batch_id       uuid PRIMARY KEY,
    netting_set_id uuid NOT NULL UNIQUE,
    window_ids     uuid[] NOT NULL,
    currency       text NOT NULL,
    moved          numeric(38, 0) NOT NULL,
    final_at       bigint NOT NULL
);

-- What was consumed as a fact is never changed.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['entry', 'movement', 'settled_leg', 'netting_set', 'settled_batch'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I
                        FOR EACH ROW EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
END $$;
REVOKE UPDATE, DELETE, TRUNCATE ON entry, movement, settled_leg, netting_set, settled_batch FROM deltran_reporting;
