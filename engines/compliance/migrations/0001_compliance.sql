-- Lists and holds. Times are microseconds since 1970-01-01T00:00:00Z.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- The bytes of every list that was ever in use.
CREATE TABLE list_content (
    version text PRIMARY KEY CHECK (version ~ '^[0-9a-f]{64}$'),
    content bytea NOT NULL
);

-- Which list is in use: one row per source, its version null while there is none. Whoever changes the
-- list locks this row first; other processes see by the revision that they must read anew.
CREATE TABLE list_head (
    source    text PRIMARY KEY CHECK (source = 'operator'),
    revision  bigint NOT NULL DEFAULT 0 CHECK (revision >= 0),
    version   text REFERENCES list_content,
    names     integer NOT NULL DEFAULT 0 CHECK (names >= 0),
    loaded_at bigint,
    loaded_by text,
    CHECK ((version IS NULL) = (revision = 0)),
    CHECK ((version IS NULL) = (loaded_at IS NULL)),
    CHECK ((version IS NULL) = (loaded_by IS NULL))
) WITH (fillfactor = 50);
INSERT INTO list_head (source) VALUES ('operator');

-- Every load, for ever.
CREATE TABLE list_load (
    source    text NOT NULL,
    revision  bigint NOT NULL,
    version   text NOT NULL REFERENCES list_content,
    names     integer NOT NULL,
    loaded_at bigint NOT NULL,
    loaded_by text NOT NULL,
    PRIMARY KEY (source, revision)
);

-- What screening did not let pass. matched_name is personal data and leaves this schema only to officers.
CREATE TABLE hold (
    hold_id        uuid PRIMARY KEY,
    transaction_id uuid NOT NULL,
    payer          text,
    state          text NOT NULL CHECK (state IN
        ('PLACED', 'RELEASE_PROPOSED', 'REJECT_PROPOSED', 'RELEASING', 'REJECTING', 'RELEASED', 'REJECTED')),
    evidence       text NOT NULL,
    score          integer NOT NULL CHECK (score BETWEEN 0 AND 10000),
    list_version   text,
    matched_name   text NOT NULL,
    proposed_by    text,
    decided_by     text,
    reason         text NOT NULL DEFAULT '',
    placed_at      bigint NOT NULL,
    screened_at    bigint NOT NULL,
    decided_at     bigint,
    outcome        text,
    -- Four eyes, whatever a program does.
    CHECK (state NOT IN ('RELEASING', 'REJECTING', 'RELEASED', 'REJECTED')
        OR (proposed_by IS NOT NULL AND decided_by IS NOT NULL AND lower(proposed_by) <> lower(decided_by))),
    CHECK ((outcome IS NOT NULL) = (state IN ('RELEASED', 'REJECTED')))
);

-- One hold per transaction. A hold that ended because the ledger never had the transaction does not count:
-- the same id may be submitted again and is held anew then.
CREATE UNIQUE INDEX hold_transaction ON hold (transaction_id) WHERE outcome IS DISTINCT FROM 'NOT_FOUND';
CREATE INDEX hold_state ON hold (state, hold_id);

-- Every step of every hold, for ever.
CREATE TABLE hold_step (
    step    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id uuid NOT NULL REFERENCES hold,
    state   text NOT NULL,
    by_user text NOT NULL,
    reason  text NOT NULL,
    at      bigint NOT NULL
);
CREATE INDEX hold_step_hold ON hold_step (hold_id, step);

-- Conditions that were alerted and still hold: each is told once.
CREATE TABLE alert (
    kind      text PRIMARY KEY,
    raised_at bigint NOT NULL
);

REVOKE UPDATE, DELETE, TRUNCATE ON list_content, list_load, hold_step FROM deltran_compliance;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON list_content FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON list_content EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON list_load FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON list_load EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON hold_step FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON hold_step EXECUTE FUNCTION refuse_change();
