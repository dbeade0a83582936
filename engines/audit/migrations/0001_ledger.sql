-- The audit ledger: one row per event, for ever appended to, by day of recording (UTC).
--
-- Whoever may connect as superuser can disable triggers; such tampering is detected by `verify`, not
-- prevented here.

CREATE TABLE leaf (
    -- Dense: 0, 1, 2, …
    leaf_index      bigint NOT NULL CHECK (leaf_index >= 0),
    -- SHA-256(0x00 || envelope), RFC 6962.
    leaf_hash       bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
    -- The exact bytes published; of a wrapped message its canonical wrapper.
    envelope        bytea NOT NULL,
    -- Whether the message was no line that can be a leaf: its bytes are in leaf_raw.
    wrapped         boolean NOT NULL,
    event_id        uuid,
    subject         text NOT NULL,
    domain          text NOT NULL,
    event_type      text NOT NULL,
    occurred_at     timestamptz,
    source          text NOT NULL,
    participant_id  text,
    correlation_id  text,
    producer        text,
    producer_seq    bigint,
    -- Where it was stored first. Not in the envelope.
    source_stream   text NOT NULL,
    source_sequence bigint NOT NULL,
    -- Never earlier than that of the leaf before, so that a day is a contiguous range of leaves.
    recorded_at     timestamptz NOT NULL,
    valid           boolean NOT NULL,
    invalid_reason  text,
    CHECK (valid = (invalid_reason IS NULL)),
    CHECK ((producer IS NULL) = (producer_seq IS NULL)),
    PRIMARY KEY (leaf_index, recorded_at)
) PARTITION BY RANGE (recorded_at);

CREATE INDEX leaf_event ON leaf (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX leaf_producer ON leaf (producer, producer_seq) WHERE producer IS NOT NULL;
CREATE INDEX leaf_correlation ON leaf (correlation_id, leaf_index) WHERE correlation_id IS NOT NULL;
CREATE INDEX leaf_participant ON leaf (participant_id, leaf_index) WHERE participant_id IS NOT NULL;

-- The bytes of messages that are no line of at most 65,535 bytes of UTF-8.
CREATE TABLE leaf_raw (
    leaf_index  bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    raw         bytea NOT NULL,
    PRIMARY KEY (leaf_index, recorded_at)
) PARTITION BY RANGE (recorded_at);

-- What has no producer number is known by id and content; without an id (nil) by content alone.
-- Apart from the leaves, because no unique key can span their partitions.
CREATE TABLE unnumbered (
    event_id    uuid NOT NULL,
    leaf_hash   bytea NOT NULL,
    wrapped     boolean NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (event_id, leaf_hash, wrapped)
);

-- Where the ledger ends. Locked by each append, so that two sequencers cannot fork it.
CREATE TABLE log_head (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    size        bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    recorded_at timestamptz NOT NULL DEFAULT '-infinity',
    invalid     bigint NOT NULL DEFAULT 0 CHECK (invalid >= 0),
    conflicts   bigint NOT NULL DEFAULT 0 CHECK (conflicts >= 0)
) WITH (fillfactor = 50);
INSERT INTO log_head DEFAULT VALUES;

-- The sequences of each stream that were received, repeated events too: sorted, disjoint ranges as
-- [low, high] pairs. AUDIT by its own sequence, the others by the sequence of origin.
CREATE TABLE stream_received (
    stream text PRIMARY KEY,
    ranges bigint[] NOT NULL CHECK (cardinality(ranges) % 2 = 0)
) WITH (fillfactor = 50);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

-- Cloned to every partition; TRUNCATE triggers are not, so each partition gets its own.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON leaf FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON leaf_raw FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON unnumbered FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON leaf EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON leaf_raw EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON unnumbered EXECUTE FUNCTION refuse_change();

CREATE FUNCTION head_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size < OLD.size OR NEW.recorded_at < OLD.recorded_at
        OR NEW.invalid < OLD.invalid OR NEW.conflicts < OLD.conflicts THEN
        RAISE EXCEPTION 'the head of the audit ledger only grows' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_grows BEFORE UPDATE ON log_head FOR EACH ROW EXECUTE FUNCTION head_only_grows();
CREATE TRIGGER append_only BEFORE DELETE ON log_head FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON log_head EXECUTE FUNCTION refuse_change();

REVOKE UPDATE, DELETE, TRUNCATE ON leaf, leaf_raw, unnumbered FROM deltran_audit;
REVOKE INSERT, DELETE, TRUNCATE ON log_head FROM deltran_audit;

-- Makes the partitions of `days` days from `first` on, as far as they are missing; returns how many
-- it made. It runs with the rights of whoever migrated, since the engine may not create tables here.
--
-- A table is made and then attached: that does not stop readers and appends, as CREATE TABLE …
-- PARTITION OF would.
CREATE FUNCTION ensure_partitions(first date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '3s' AS $$
DECLARE
    made   integer := 0;
    parent text;
    day    date;
    child  text;
BEGIN
    IF days NOT BETWEEN 1 AND 62 THEN
        RAISE EXCEPTION 'partitions are made for 1 to 62 days at once, not for %', days;
    END IF;
    -- Temporary tables come last, or a caller's could stand in for ours.
    PERFORM set_config('search_path', current_schema() || ', pg_temp', true);
    PERFORM pg_advisory_xact_lock(hashtext('deltran.audit.partitions'));
    FOREACH parent IN ARRAY ARRAY['leaf', 'leaf_raw'] LOOP
        FOR i IN 0 .. days - 1 LOOP
            day := first + i;
            child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', child, parent);
            EXECUTE format('REVOKE ALL ON %I FROM deltran_audit', child);
            EXECUTE format('GRANT SELECT ON %I TO deltran_audit', child);
            EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', child);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                day::timestamptz, (day + 1)::timestamptz);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION ensure_partitions(date, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions(date, integer) TO deltran_audit;
