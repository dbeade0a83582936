-- Legal holds: what an active one touches is not detached, whatever the retention.

CREATE TABLE legal_hold (
    hold_id        uuid PRIMARY KEY,
    -- The order of placing.
    number         bigint NOT NULL UNIQUE GENERATED ALWAYS AS IDENTITY,
    -- All conditions that are given together; at least one.
    participant_id text,
    correlation_id text,
    -- Recorded at or after, and before.
    since          timestamptz,
    until          timestamptz,
    reason         text NOT NULL CHECK (reason <> ''),
    placed_by      text NOT NULL,
    placed_at      timestamptz NOT NULL,
    released_by    text,
    released_at    timestamptz,
    release_reason text CHECK (release_reason <> ''),
    CHECK (num_nonnulls(participant_id, correlation_id, since, until) > 0),
    CHECK (since < until),
    CHECK (num_nonnulls(released_by, released_at, release_reason) IN (0, 3))
);
CREATE INDEX legal_hold_active ON legal_hold (number) WHERE released_at IS NULL;

-- A hold is placed once and released once.
CREATE FUNCTION hold_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.released_at IS NOT NULL
        OR (NEW.hold_id, NEW.number, NEW.reason, NEW.placed_by, NEW.placed_at)
            <> (OLD.hold_id, OLD.number, OLD.reason, OLD.placed_by, OLD.placed_at)
        OR (NEW.participant_id, NEW.correlation_id, NEW.since, NEW.until)
            IS DISTINCT FROM (OLD.participant_id, OLD.correlation_id, OLD.since, OLD.until) THEN
        RAISE EXCEPTION 'a legal hold does not change but to be released, once: %', OLD.hold_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stays BEFORE UPDATE ON legal_hold FOR EACH ROW EXECUTE FUNCTION hold_stays();
CREATE TRIGGER append_only BEFORE DELETE ON legal_hold FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON legal_hold EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON legal_hold FROM deltran_audit;
GRANT UPDATE (released_by, released_at, release_reason) ON legal_hold TO deltran_audit;

-- Whether a leaf that a hold names was recorded from `first` up to but without `past`.
CREATE FUNCTION hold_touches(hold legal_hold, first timestamptz, past timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    first := greatest(first, hold.since);
    past := least(past, hold.until);
    IF first >= past THEN
        RETURN false;
    END IF;
    -- One statement for each index.
    IF hold.participant_id IS NOT NULL THEN
        RETURN EXISTS (SELECT FROM leaf WHERE participant_id = hold.participant_id
            AND (hold.correlation_id IS NULL OR correlation_id = hold.correlation_id)
            AND recorded_at >= first AND recorded_at < past);
    ELSIF hold.correlation_id IS NOT NULL THEN
        RETURN EXISTS (SELECT FROM leaf WHERE correlation_id = hold.correlation_id
            AND recorded_at >= first AND recorded_at < past);
    END IF;
    RETURN EXISTS (SELECT FROM leaf WHERE recorded_at >= first AND recorded_at < past);
END $$;
