-- What is counted of the ledger's events, in the same transaction as what was received. Every row carries
-- the version of the batch that changed it last: a process that is behind reads what is newer than it knows.

CREATE TABLE book (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0)
) WITH (fillfactor = 50);
INSERT INTO book DEFAULT VALUES;

CREATE TABLE window_book (
    window_id uuid PRIMARY KEY,
    currency  text NOT NULL,
    count     bigint NOT NULL,
    gross     numeric(38,0) NOT NULL,
    sealed    boolean NOT NULL,
    settled   boolean NOT NULL,
    version   bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX window_book_unsettled ON window_book (currency) WHERE NOT settled;

CREATE TABLE window_member (
    window_id      uuid NOT NULL,
    participant    text NOT NULL,
    sent           numeric(38,0) NOT NULL,
    received       numeric(38,0) NOT NULL,
    sent_count     bigint NOT NULL,
    received_count bigint NOT NULL,
    version        bigint NOT NULL,
    PRIMARY KEY (window_id, participant)
) WITH (fillfactor = 50);

CREATE TABLE window_pair (
    window_id uuid NOT NULL,
    payer     text NOT NULL,
    payee     text NOT NULL,
    gross     numeric(38,0) NOT NULL,
    count     bigint NOT NULL,
    version   bigint NOT NULL,
    PRIMARY KEY (window_id, payer, payee)
) WITH (fillfactor = 50);

-- Gross by the hour since 1970 in which it was committed.
CREATE TABLE corridor_hour (
    hour     bigint NOT NULL,
    corridor text NOT NULL,
    currency text NOT NULL,
    gross    numeric(38,0) NOT NULL,
    count    bigint NOT NULL,
    version  bigint NOT NULL,
    PRIMARY KEY (hour, corridor, currency)
) WITH (fillfactor = 50);

-- Decisions by the second in which their bucket of five seconds begins.
CREATE TABLE decision (
    bucket   bigint NOT NULL,
    scope    text NOT NULL,
    accepted bigint NOT NULL,
    refused  bigint NOT NULL,
    version  bigint NOT NULL,
    PRIMARY KEY (bucket, scope)
) WITH (fillfactor = 50);

-- Transactions that are HELD or RESERVED.
CREATE TABLE waiting (
    transaction_id uuid PRIMARY KEY,
    payer          text NOT NULL,
    payee          text NOT NULL,
    currency       text NOT NULL,
    amount         numeric(38,0) NOT NULL,
    gross          boolean NOT NULL,
    reserved       boolean NOT NULL
);

-- Use of liquidity by business day. Peaks: see domain/liquidity.rs.
CREATE TABLE liquidity_day (
    participant    text NOT NULL,
    currency       text NOT NULL,
    day            text NOT NULL CHECK (day ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'),
    sent           numeric(38,0) NOT NULL,
    received       numeric(38,0) NOT NULL,
    sent_count     bigint NOT NULL,
    received_count bigint NOT NULL,
    peak_1         numeric(38,0),
    peak_1_at      bigint,
    peak_2         numeric(38,0),
    peak_2_at      bigint,
    peak_3         numeric(38,0),
    peak_3_at      bigint,
    rising         numeric(38,0),
    rising_at      bigint,
    trough         numeric(38,0),
    PRIMARY KEY (day, participant, currency)
) WITH (fillfactor = 50);

-- Alarms that ring.
CREATE TABLE alarm (
    kind         text NOT NULL,
    participant  text NOT NULL,
    counterparty text NOT NULL DEFAULT '',
    currency     text NOT NULL,
    threshold    integer NOT NULL,
    since        bigint NOT NULL,
    PRIMARY KEY (kind, participant, counterparty, currency, threshold)
);
