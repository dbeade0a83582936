-- Limits and breakers. Times are microseconds since 1970-01-01T00:00:00Z, amounts minor units.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- Rises with every approval, every limit that takes effect and every breaker that is set. Whoever changes
-- what is in force locks this row first; other processes see by it that they must read anew.
CREATE TABLE gate (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0)
) WITH (fillfactor = 50);
INSERT INTO gate DEFAULT VALUES;

CREATE TABLE limits (
    limit_id       uuid PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('NET_DEBIT_CAP', 'SINGLE_TRANSACTION_MAXIMUM', 'BILATERAL',
                                                 'CORRIDOR_MAXIMUM', 'CORRIDOR_GROSS', 'RATE')),
    participant    text,
    counterparty   text,
    corridor       text,
    currency       text,
    amount         numeric(38,0) CHECK (amount >= 0),
    transactions   bigint CHECK (transactions > 0),
    window_seconds integer CHECK (window_seconds > 0),
    effective_from bigint,
    reason         text NOT NULL,
    state          text NOT NULL
        CHECK (state IN ('PROPOSED', 'APPROVED', 'ACTIVE', 'SUPERSEDED', 'REJECTED', 'WITHDRAWN')),
    proposed_by    text NOT NULL,
    approved_by    text,
    proposed_at    bigint NOT NULL,
    due_at         bigint,
    effective_at   bigint,
    approval       bigint NOT NULL DEFAULT 0,
    refusal        text,
    ended_by       text,
    ended_reason   text,
    CHECK (kind NOT IN ('NET_DEBIT_CAP', 'BILATERAL') OR participant IS NOT NULL),
    CHECK ((kind = 'BILATERAL') = (counterparty IS NOT NULL)),
    CHECK ((kind IN ('CORRIDOR_MAXIMUM', 'CORRIDOR_GROSS')) = (corridor IS NOT NULL)),
    CHECK (kind NOT IN ('CORRIDOR_MAXIMUM', 'CORRIDOR_GROSS') OR participant IS NULL),
    CHECK ((kind = 'RATE') = (amount IS NULL) AND (amount IS NULL) = (currency IS NULL)),
    CHECK ((kind = 'RATE') = (transactions IS NOT NULL) AND (transactions IS NULL) = (window_seconds IS NULL)),
    -- Four eyes, whatever a program does.
    CHECK (state IN ('PROPOSED', 'REJECTED', 'WITHDRAWN')
           OR (approved_by IS NOT NULL AND lower(approved_by) <> lower(proposed_by))),
    CHECK ((effective_at IS NOT NULL) = (state IN ('ACTIVE', 'SUPERSEDED'))),
    CHECK (state <> 'APPROVED' OR due_at IS NOT NULL),
    CHECK ((state IN ('REJECTED', 'WITHDRAWN')) = (ended_by IS NOT NULL))
);

-- One limit in force for each thing that is limited.
CREATE UNIQUE INDEX limits_in_force ON limits
    (kind, coalesce(participant, ''), coalesce(counterparty, ''), coalesce(corridor, ''), coalesce(currency, ''))
    WHERE state = 'ACTIVE';
CREATE INDEX limits_waiting ON limits (due_at, approval) WHERE state = 'APPROVED';
CREATE INDEX limits_of_participant ON limits (participant, limit_id);

-- Every step of every limit, for ever.
CREATE TABLE limit_step (
    step     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limit_id uuid NOT NULL REFERENCES limits,
    state    text NOT NULL,
    by_user  text NOT NULL,
    note     text NOT NULL,
    at       bigint NOT NULL
);
CREATE INDEX limit_step_limit ON limit_step (limit_id, step);

CREATE TABLE breaker (
    scope      text PRIMARY KEY,
    state      text NOT NULL CHECK (state IN ('CLOSED', 'OPEN', 'HALF_OPEN', 'REDUCING')),
    trigger    text NOT NULL CHECK (trigger IN ('MANUAL', 'REJECT_RATE', 'VOLUME_SPIKE', 'STALE_DATA', 'PROBES')),
    reason     text NOT NULL,
    changed_by text NOT NULL,
    changed_at bigint NOT NULL,
    open_until bigint
);

-- Every change of a breaker, by hand under its command's id, with what it led to, for ever.
CREATE TABLE breaker_command (
    command_id uuid PRIMARY KEY,
    scope      text NOT NULL,
    state      text NOT NULL,
    trigger    text NOT NULL,
    reason     text NOT NULL,
    changed_by text NOT NULL,
    changed_at bigint NOT NULL,
    open_until bigint
);

REVOKE DELETE, TRUNCATE ON limits, breaker FROM deltran_risk;
REVOKE UPDATE, DELETE, TRUNCATE ON limit_step, breaker_command FROM deltran_risk;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON limit_step FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON limit_step EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON breaker_command FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON breaker_command EXECUTE FUNCTION refuse_change();
