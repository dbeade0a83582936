-- Lists, the allow-list and holds. Times are microseconds since 1970-01-01T00:00:00Z.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- Every version of a list that was ever in use, and its bytes.
CREATE TABLE list_version (
    source  text NOT NULL CHECK (source IN ('ofac', 'un', 'operator')),
    version text NOT NULL CHECK (version ~ '^[0-9a-f]{64}$'),
    dated   text,
    names   integer NOT NULL CHECK (names > 0),
    aliases integer NOT NULL CHECK (aliases >= 0),
    PRIMARY KEY (source, version)
);
CREATE TABLE list_file (
    source  text NOT NULL,
    version text NOT NULL,
    name    text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (source, version, name),
    FOREIGN KEY (source, version) REFERENCES list_version
);

-- Which list is in use: one row per source, its version null while there is none. Whoever changes a list locks its
-- row first; other processes see by the revision that they must read anew.
CREATE TABLE list_head (
    source    text PRIMARY KEY CHECK (source IN ('ofac', 'un', 'operator')),
    revision  bigint NOT NULL DEFAULT 0 CHECK (revision >= 0),
    version   text,
    loaded_at bigint,
    loaded_by text,
    FOREIGN KEY (source, version) REFERENCES list_version,
    CHECK ((version IS NULL) = (revision = 0)),
    CHECK ((version IS NULL) = (loaded_at IS NULL)),
    CHECK ((version IS NULL) = (loaded_by IS NULL))
) WITH (fillfactor = 50);
INSERT INTO list_head (source) VALUES ('ofac'), ('un'), ('operator');

-- Every load, for ever.
CREATE TABLE list_load (
    load      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source    text NOT NULL,
    revision  bigint NOT NULL,
    version   text NOT NULL,
    loaded_at bigint NOT NULL,
    loaded_by text NOT NULL,
    UNIQUE (source, revision),
    FOREIGN KEY (source, version) REFERENCES list_version
);

-- Reviewed false positives and how they were taken back, for ever. The names are personal data.
CREATE TABLE allowance (
    allowance_id uuid PRIMARY KEY,
    name         text NOT NULL,
    normal       text NOT NULL,
    source       text NOT NULL CHECK (source IN ('ofac', 'un', 'operator')),
    entry_id     text NOT NULL,
    reason       text NOT NULL,
    added_by     text NOT NULL,
    added_at     bigint NOT NULL,
    expires_at   bigint NOT NULL,
    CHECK (expires_at > added_at)
);
CREATE TABLE allowance_end (
    allowance_id uuid PRIMARY KEY REFERENCES allowance,
    revoked_by   text NOT NULL,
    revoked_at   bigint NOT NULL,
    reason       text NOT NULL
);

-- Rises with each change of the allow-list: other processes see by it that they must read anew.
CREATE TABLE allow_list (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO allow_list DEFAULT VALUES;

-- What screening did not let pass. matched_name and matches are personal data and leave this schema only to officers;
-- matches is a JSON array, the best first.
CREATE TABLE hold (
    hold_id        uuid PRIMARY KEY,
    transaction_id uuid NOT NULL,
    payer          text,
    state          text NOT NULL CHECK (state IN
        ('PLACED', 'RELEASE_PROPOSED', 'REJECT_PROPOSED', 'RELEASING', 'REJECTING', 'RELEASED', 'REJECTED')),
    evidence       text NOT NULL,
    score          integer NOT NULL CHECK (score BETWEEN 0 AND 10000),
    list_versions  text[] NOT NULL,
    rule_version   text NOT NULL,
    matched_name   text NOT NULL,
    matches        text NOT NULL DEFAULT '[]',
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

REVOKE UPDATE, DELETE, TRUNCATE ON list_version, list_file, list_load, allowance, allowance_end, hold_step
    FROM deltran_compliance;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON list_version FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON list_version EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON list_file FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON list_file EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON list_load FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON list_load EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON allowance FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON allowance EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON allowance_end FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON allowance_end EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON hold_step FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON hold_step EXECUTE FUNCTION refuse_change();
