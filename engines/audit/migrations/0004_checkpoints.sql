-- Signed checkpoints (C2SP tlog-checkpoint), and the days of the ledger.

CREATE TABLE checkpoint (
    size      bigint PRIMARY KEY CHECK (size >= 0),
    root      bytea NOT NULL CHECK (octet_length(root) = 32),
    -- The signed note: text, signatures, cosignatures.
    note      text NOT NULL,
    signed_at timestamptz NOT NULL,
    -- Whether it has left the system: then it is kept for ever.
    published boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
CREATE INDEX checkpoint_passing ON checkpoint (signed_at) WHERE NOT published;

-- Signatures may be added at the end, and what is not published may be let go of. Nothing else changes.
CREATE FUNCTION checkpoint_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.published THEN
            RAISE EXCEPTION 'a checkpoint that has left the system is kept: size %', OLD.size
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN OLD;
    END IF;
    IF NEW.size <> OLD.size OR NEW.root <> OLD.root OR NEW.signed_at <> OLD.signed_at
        OR NOT starts_with(NEW.note, OLD.note) OR (OLD.published AND NOT NEW.published) THEN
        RAISE EXCEPTION 'a checkpoint does not change: size %', OLD.size USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stays BEFORE UPDATE OR DELETE ON checkpoint FOR EACH ROW EXECUTE FUNCTION checkpoint_stays();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON checkpoint EXECUTE FUNCTION refuse_change();
REVOKE TRUNCATE ON checkpoint FROM deltran_audit;

-- Days (UTC, of recording) that are over: no leaf is recorded in them any more.
CREATE TABLE ledger_day (
    day        date PRIMARY KEY,
    -- Its leaves: from_leaf up to but without to_leaf.
    from_leaf  bigint NOT NULL CHECK (from_leaf >= 0),
    to_leaf    bigint NOT NULL CHECK (to_leaf >= from_leaf),
    closed_at  timestamptz NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_day FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger_day EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON ledger_day FROM deltran_audit;
