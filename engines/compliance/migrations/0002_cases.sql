-- Cases, monitoring rules, what they have added up, and the alerts they raised. Times are microseconds since
-- 1970-01-01T00:00:00Z; amounts are minor units.

-- The reason and notes of steps may hold personal data: they leave this schema only to officers and auditors.
CREATE TABLE case_file (
    case_id      uuid PRIMARY KEY,
    subject_kind text NOT NULL CHECK (subject_kind IN ('participant', 'transaction')),
    subject      text NOT NULL,
    state        text NOT NULL CHECK (state IN ('OPEN', 'INVESTIGATING', 'CLOSED')),
    outcome      text CHECK (outcome IN ('confirmed', 'false_positive', 'valuable')),
    assignee     text,
    due_at       bigint,
    escalated_to text,
    cause        text NOT NULL CHECK (cause IN ('officer', 'hold', 'alert')),
    opened_at    bigint NOT NULL,
    opened_by    text NOT NULL,
    closed_at    bigint,
    CHECK ((state = 'CLOSED') = (outcome IS NOT NULL)),
    CHECK ((state = 'CLOSED') = (closed_at IS NOT NULL)),
    CHECK (state = 'OPEN' OR assignee IS NOT NULL)
);
-- At most one case per subject that is not closed, whatever a program does.
CREATE UNIQUE INDEX case_file_open ON case_file (subject_kind, subject) WHERE state <> 'CLOSED';
CREATE INDEX case_file_subject ON case_file (subject_kind, subject, case_id);
CREATE INDEX case_file_state ON case_file (state, case_id);
CREATE INDEX case_file_assignee ON case_file (assignee, case_id);

-- Every step of every case, for ever. A command writes one step.
CREATE TABLE case_step (
    step       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id    uuid NOT NULL REFERENCES case_file,
    command_id uuid UNIQUE,
    action     text NOT NULL CHECK (action IN
        ('OPENED', 'ASSIGNED', 'NOTED', 'ESCALATED', 'CLOSED', 'REOPENED', 'HOLD', 'ALERT')),
    state      text NOT NULL CHECK (state IN ('OPEN', 'INVESTIGATING', 'CLOSED')),
    by_user    text NOT NULL,
    written    text NOT NULL DEFAULT '',
    to_user    text,
    due_at     bigint,
    outcome    text,
    reference  uuid,
    at         bigint NOT NULL,
    CHECK ((reference IS NOT NULL) = (action IN ('HOLD', 'ALERT'))),
    CHECK ((to_user IS NOT NULL) = (action IN ('ASSIGNED', 'ESCALATED'))),
    CHECK ((outcome IS NOT NULL) = (action = 'CLOSED'))
);
CREATE INDEX case_step_case ON case_step (case_id, step);

-- Every version of every monitoring rule, for ever; the highest one of a name is in use.
CREATE TABLE rule_version (
    rule           text NOT NULL,
    version        integer NOT NULL CHECK (version > 0),
    kind           text NOT NULL CHECK (kind IN ('velocity', 'structuring')),
    mode           text NOT NULL CHECK (mode IN ('ACTIVE', 'SHADOW', 'OFF')),
    scope          text NOT NULL CHECK (scope IN ('PAYER', 'PAIR')),
    window_seconds bigint NOT NULL CHECK (window_seconds > 0),
    max_count      bigint NOT NULL DEFAULT 0 CHECK (max_count >= 0),
    min_count      bigint NOT NULL DEFAULT 0 CHECK (min_count >= 0),
    band           integer NOT NULL DEFAULT 0 CHECK (band BETWEEN 0 AND 9999),
    currencies     text[] NOT NULL DEFAULT '{}',
    amounts        numeric(38, 0)[] NOT NULL DEFAULT '{}',
    command_id     uuid UNIQUE,
    set_at         bigint NOT NULL,
    set_by         text NOT NULL,
    PRIMARY KEY (rule, version),
    CHECK (cardinality(currencies) = cardinality(amounts))
);

-- Whoever sets a rule locks this row first; monitoring sees by the revision that it must read them anew.
CREATE TABLE rule_mark (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint NOT NULL DEFAULT 1 CHECK (revision > 0)
) WITH (fillfactor = 50);
INSERT INTO rule_mark DEFAULT VALUES;

-- The rules that ship with the product.
INSERT INTO rule_version (rule, version, kind, mode, scope, window_seconds, max_count, currencies, amounts, set_at, set_by)
VALUES ('velocity', 1, 'velocity', 'ACTIVE', 'PAYER', 3600, 50000, '{EUR,USD}', '{10000000000,10000000000}', 0, 'deltran');
INSERT INTO rule_version (rule, version, kind, mode, scope, window_seconds, min_count, band, currencies, amounts, set_at, set_by)
VALUES ('structuring', 1, 'structuring', 'ACTIVE', 'PAIR', 86400, 3, 1000, '{EUR,USD}', '{1000000,1000000}', 0, 'deltran');

-- How far each version of a rule has come: the latest bucket, and what came too late to be counted.
CREATE TABLE rule_head (
    rule    text NOT NULL,
    version integer NOT NULL,
    latest  bigint,
    late    bigint NOT NULL DEFAULT 0 CHECK (late >= 0),
    PRIMARY KEY (rule, version),
    FOREIGN KEY (rule, version) REFERENCES rule_version
) WITH (fillfactor = 50);

-- What was added up, bucket by bucket; payee and currency are empty where the rule does not tell them apart.
-- At most 122 rows per thread. `first` are the ids of the first transactions, 16 bytes each.
CREATE TABLE rule_bucket (
    rule     text NOT NULL,
    version  integer NOT NULL,
    payer    text NOT NULL,
    payee    text NOT NULL,
    currency text NOT NULL,
    bucket   bigint NOT NULL,
    count    bigint NOT NULL CHECK (count > 0),
    amount   numeric(38, 0) NOT NULL CHECK (amount >= 0),
    first    bytea NOT NULL CHECK (length(first) % 16 = 0),
    PRIMARY KEY (rule, version, payer, payee, currency, bucket)
) WITH (fillfactor = 70);
CREATE INDEX rule_bucket_age ON rule_bucket (rule, version, bucket);

-- The batch that monitoring took last, written in the same transaction: by this a process knows whether what it
-- remembers is what is stored.
CREATE TABLE monitor_mark (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    batch uuid
) WITH (fillfactor = 50);
INSERT INTO monitor_mark DEFAULT VALUES;

-- What crossed a rule, for ever; shadow runs have no case.
CREATE TABLE rule_alert (
    alert_id       uuid PRIMARY KEY,
    rule           text NOT NULL,
    version        integer NOT NULL,
    kind           text NOT NULL,
    shadow         boolean NOT NULL,
    payer          text NOT NULL,
    payee          text NOT NULL,
    currency       text NOT NULL,
    window_from    bigint NOT NULL,
    window_to      bigint NOT NULL CHECK (window_to > window_from),
    count          bigint NOT NULL CHECK (count > 0),
    amount         numeric(38, 0) NOT NULL CHECK (amount >= 0),
    limit_kind     text NOT NULL CHECK (limit_kind IN ('count_over', 'count_reaches', 'amount_over')),
    limit_value    numeric(38, 0) NOT NULL CHECK (limit_value >= 0),
    transaction_id uuid NOT NULL,
    transactions   uuid[] NOT NULL CHECK (cardinality(transactions) BETWEEN 1 AND 50),
    raised_at      bigint NOT NULL,
    case_id        uuid REFERENCES case_file,
    FOREIGN KEY (rule, version) REFERENCES rule_version,
    CHECK (shadow = (case_id IS NULL)),
    -- A crossing is told once.
    UNIQUE (rule, version, payer, payee, currency, window_to)
);
CREATE INDEX rule_alert_payer ON rule_alert (payer, alert_id);
CREATE INDEX rule_alert_case ON rule_alert (case_id, alert_id);

REVOKE UPDATE, DELETE, TRUNCATE ON case_step, rule_version, rule_alert FROM deltran_compliance;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON case_step FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON case_step EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON rule_version FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON rule_version EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON rule_alert FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON rule_alert EXECUTE FUNCTION refuse_change();
