-- The token ledger. Amounts are integer minor units; moments are microseconds since 1970 in UTC.

CREATE TABLE participant (
    id            text PRIMARY KEY,
    name          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('ONBOARDING', 'ACTIVE', 'SUSPENDED', 'DEFAULTED', 'EXITED')),
    registered_at bigint NOT NULL
);

-- What a participant may owe in a currency, and what stands behind it. A row is the right to take part.
CREATE TABLE membership (
    participant  text NOT NULL REFERENCES participant (id),
    currency     text NOT NULL,
    cap          numeric(38, 0) NOT NULL CHECK (cap >= 0),
    cover_policy text NOT NULL CHECK (cover_policy IN ('PREFUNDED', 'COLLATERAL', 'CREDIT_LINE')),
    collateral   numeric(38, 0) NOT NULL CHECK (collateral >= 0),
    PRIMARY KEY (participant, currency)
);

-- The terms as they were, by the number of the last posting before they came into force.
CREATE TABLE membership_history (
    participant   text NOT NULL,
    currency      text NOT NULL,
    after_posting bigint NOT NULL,
    cap           numeric(38, 0) NOT NULL,
    cover_policy  text NOT NULL,
    collateral    numeric(38, 0) NOT NULL,
    set_at        bigint NOT NULL
);
CREATE INDEX membership_history_key ON membership_history (participant, currency, after_posting);

-- Balances: one row per account, updated once per batch. The key is the account's name.
CREATE TABLE account (
    name        text PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('SAFEGUARD', 'MULTILATERAL', 'FEES', 'SETTLEMENT', 'RESERVED', 'POSITION')),
    currency    text NOT NULL,
    participant text,
    purpose     uuid,
    debits      numeric(38, 0) NOT NULL CHECK (debits >= 0),
    credits     numeric(38, 0) NOT NULL CHECK (credits >= 0)
) WITH (fillfactor = 60);
CREATE INDEX account_purpose ON account (purpose) WHERE purpose IS NOT NULL;

-- The log of postings: dense, append-only.
CREATE TABLE posting (
    seq            bigint PRIMARY KEY,
    group_id       uuid,
    debit          text NOT NULL,
    credit         text NOT NULL,
    amount         numeric(38, 0) NOT NULL CHECK (amount > 0),
    transaction_id uuid,
    posted_at      bigint NOT NULL
);

CREATE TABLE transaction (
    id              uuid PRIMARY KEY,
    -- Dense order of decision; the key of lists.
    position        bigint NOT NULL,
    payer           text NOT NULL,
    payee           text NOT NULL,
    currency        text NOT NULL,
    -- As it was asked: a refused amount may have any size and sign.
    amount          numeric(38, 0) NOT NULL,
    model           text NOT NULL CHECK (model IN ('NET_MULTILATERAL', 'NET_BILATERAL', 'GROSS')),
    priority        smallint NOT NULL,
    end_to_end_id   text NOT NULL,
    uetr            uuid,
    purpose         text NOT NULL,
    reserve_for     bigint,
    return_of       uuid,
    body_hash       bytea NOT NULL,
    -- What the submission led to; never changes.
    outcome_state   text NOT NULL CHECK (outcome_state IN ('HELD', 'RESERVED', 'COMMITTED', 'REJECTED')),
    decided_at      bigint NOT NULL,
    -- The present state.
    state           text NOT NULL CHECK (state IN ('HELD', 'RESERVED', 'COMMITTED', 'REJECTED', 'CANCELLED', 'EXPIRED')),
    updated_at      bigint NOT NULL,
    window_id       uuid,
    window_seq      bigint,
    expires_at      bigint,
    refusal_code    text,
    refusal_message text,
    refusal_details text,
    returned        numeric(38, 0) NOT NULL,
    CHECK ((window_id IS NULL) = (window_seq IS NULL)),
    CHECK ((state = 'REJECTED') = (refusal_code IS NOT NULL))
);
CREATE UNIQUE INDEX transaction_position ON transaction (position);
-- L8: a place in a window is taken once.
CREATE UNIQUE INDEX transaction_window ON transaction (window_id, window_seq) WHERE window_id IS NOT NULL;
CREATE INDEX transaction_waiting ON transaction (state) WHERE state IN ('HELD', 'RESERVED');

CREATE TABLE ledger_window (
    id         uuid PRIMARY KEY,
    currency   text NOT NULL,
    count      bigint NOT NULL,
    gross      numeric(38, 0) NOT NULL,
    -- State of the running SHA-256 over transaction ids.
    digest     bytea NOT NULL,
    opened_at  bigint NOT NULL,
    -- Control totals, once sealed.
    sealed     text,
    settled_at bigint
);
-- At most one open window per currency, whoever writes.
CREATE UNIQUE INDEX ledger_window_open ON ledger_window (currency) WHERE sealed IS NULL;
CREATE INDEX ledger_window_unsettled ON ledger_window (id) WHERE settled_at IS NULL;

CREATE TABLE withdrawal (
    id          uuid PRIMARY KEY,
    body_hash   bytea NOT NULL,
    participant text NOT NULL,
    currency    text NOT NULL,
    amount      numeric(38, 0) NOT NULL,
    reference   text NOT NULL,
    state       text NOT NULL CHECK (state IN ('REQUESTED', 'CONFIRMED', 'FAILED'))
);

-- Commands that were carried out or proposed, with their answers.
CREATE TABLE command (
    id        uuid PRIMARY KEY,
    body_hash bytea NOT NULL,
    answer    text NOT NULL
);

-- The writer's own counters. `batch` and the lease's `epoch` tell after a lost connection whether a COMMIT took effect.
CREATE TABLE writer_state (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    batch       bigint NOT NULL DEFAULT 0,
    epoch       bigint NOT NULL DEFAULT 0,
    posting_seq bigint NOT NULL DEFAULT 0,
    position    bigint NOT NULL DEFAULT 0,
    last_at     bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO writer_state DEFAULT VALUES;

-- Append-only by rights and by trigger.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: postings are only ever added', TG_OP, TG_TABLE_NAME;
END
$$;
CREATE TRIGGER posting_append_only BEFORE UPDATE OR DELETE ON posting
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER posting_no_truncate BEFORE TRUNCATE ON posting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON posting FROM deltran_token;
REVOKE DELETE, TRUNCATE ON transaction, account, ledger_window, command, withdrawal, membership_history FROM deltran_token;
