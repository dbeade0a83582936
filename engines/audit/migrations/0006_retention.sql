-- Days that go: archived, read again there, verified, and then detached, in order. Only one function detaches, with the
-- rights of a role that nobody logs in as; it checks every rule itself.

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'deltran_audit_retention') THEN
        CREATE ROLE deltran_audit_retention NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
-- Whoever gives a table away must be a member of its new owner.
DO $$ BEGIN
    IF NOT pg_has_role(current_user, 'deltran_audit_retention', 'MEMBER') THEN
        GRANT deltran_audit_retention TO CURRENT_USER;
    END IF;
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO deltran_audit_retention', current_schema());
END $$;

-- Only the owner of a table may detach its partitions.
DO $$
DECLARE
    child regclass;
BEGIN
    FOR child IN
        SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent IN ('leaf'::regclass, 'leaf_raw'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO deltran_audit_retention', child);
    END LOOP;
END $$;
ALTER TABLE leaf OWNER TO deltran_audit_retention;
ALTER TABLE leaf_raw OWNER TO deltran_audit_retention;
ALTER FUNCTION ensure_partitions(date, integer) OWNER TO deltran_audit_retention;

-- Days that were written to the archive, read again there and verified.
CREATE TABLE day_archive (
    day             date PRIMARY KEY,
    from_leaf       bigint NOT NULL,
    to_leaf         bigint NOT NULL CHECK (to_leaf >= from_leaf),
    -- Below the archive's root.
    place           text NOT NULL CHECK (place <> ''),
    -- Of its manifest.
    manifest_sha256 bytea NOT NULL CHECK (octet_length(manifest_sha256) = 32),
    archived_at     timestamptz NOT NULL,
    -- When its bytes were read and verified last.
    verified_at     timestamptz NOT NULL
);
CREATE FUNCTION archive_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.day, NEW.from_leaf, NEW.to_leaf, NEW.place, NEW.manifest_sha256, NEW.archived_at)
            <> (OLD.day, OLD.from_leaf, OLD.to_leaf, OLD.place, OLD.manifest_sha256, OLD.archived_at)
        OR NEW.verified_at < OLD.verified_at THEN
        RAISE EXCEPTION 'what the archive holds of % does not change', OLD.day USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stays BEFORE UPDATE ON day_archive FOR EACH ROW EXECUTE FUNCTION archive_stays();
CREATE TRIGGER append_only BEFORE DELETE ON day_archive FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON day_archive EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON day_archive FROM deltran_audit;
GRANT UPDATE (verified_at) ON day_archive TO deltran_audit;

-- No day is detached that is younger, whatever the engine is configured to. For the owner of the database to change.
CREATE TABLE retention_floor (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    days integer NOT NULL DEFAULT 180 CHECK (days BETWEEN 1 AND 36500)
);
INSERT INTO retention_floor DEFAULT VALUES;
CREATE TRIGGER append_only BEFORE DELETE ON retention_floor FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON retention_floor EXECUTE FUNCTION refuse_change();
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON retention_floor FROM deltran_audit;

-- The days that were detached, in order; the last one is where the ledger in this database begins: the cut.
CREATE TABLE ledger_cut (
    day          date PRIMARY KEY,
    from_leaf    bigint NOT NULL CHECK (from_leaf >= 0),
    -- The first leaf that stays.
    to_leaf      bigint NOT NULL CHECK (to_leaf >= from_leaf),
    -- The hashes of the full subtrees that the first to_leaf leaves consist of, largest first.
    frontier     bytea NOT NULL CHECK (octet_length(frontier) % 32 = 0 AND octet_length(frontier) <= 2016),
    -- Of the leaves that went: those that are no valid events, those that contradict an earlier one, and decided transactions.
    invalid      bigint NOT NULL CHECK (invalid >= 0),
    conflicts    bigint NOT NULL CHECK (conflicts >= 0),
    transactions bigint NOT NULL CHECK (transactions >= 0),
    detached_at  timestamptz NOT NULL
);
-- The producers' numbers among them, as ranges.
CREATE TABLE ledger_cut_producer (
    day      date NOT NULL,
    producer text NOT NULL,
    low      bigint NOT NULL CHECK (low > 0),
    high     bigint NOT NULL CHECK (high >= low),
    PRIMARY KEY (producer, low, day)
);
CREATE FUNCTION only_retention() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'deltran_audit_retention' THEN
        RAISE EXCEPTION 'the audit ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER only_retention BEFORE INSERT ON ledger_cut FOR EACH ROW EXECUTE FUNCTION only_retention();
CREATE TRIGGER only_retention BEFORE INSERT ON ledger_cut_producer FOR EACH ROW EXECUTE FUNCTION only_retention();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_cut FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_cut_producer FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger_cut EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger_cut_producer EXECUTE FUNCTION refuse_change();
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ledger_cut, ledger_cut_producer FROM deltran_audit;

-- Tiles go with the leaves that they end with.
DROP TRIGGER append_only ON tile;
CREATE TRIGGER only_retention BEFORE DELETE ON tile FOR EACH ROW EXECUTE FUNCTION only_retention();

GRANT SELECT ON log_head, ledger_day, checkpoint, day_archive, retention_floor TO deltran_audit_retention;
GRANT SELECT, DELETE ON tile TO deltran_audit_retention;
GRANT SELECT, INSERT ON ledger_cut, ledger_cut_producer TO deltran_audit_retention;
-- UPDATE is what LOCK TABLE asks for; the table's trigger lets nothing be changed but the release.
GRANT SELECT, UPDATE ON legal_hold TO deltran_audit_retention;

-- Why a day may not be detached now, the first reason; null where it may.
CREATE FUNCTION day_stays(wanted date, retention_days integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    -- An archive that was verified longer ago than this is read again before its day goes.
    fresh   CONSTANT interval := '1 day';
    this    ledger_day;
    floor   integer;
    present timestamptz;
    hold    legal_hold;
    archive day_archive;
    earlier date;
BEGIN
    SELECT * INTO this FROM ledger_day WHERE day = wanted;
    IF NOT FOUND THEN
        RETURN 'it is not over: leaves may still be recorded in it';
    END IF;
    IF EXISTS (SELECT FROM ledger_cut WHERE day >= wanted) THEN
        RETURN 'it is detached already';
    END IF;
    SELECT days INTO STRICT floor FROM retention_floor;
    IF retention_days IS NULL OR retention_days < floor THEN
        RETURN format('a retention of %s days is below %s, the least that the database allows (retention_floor)',
            coalesce(retention_days, 0), floor);
    END IF;
    -- By the ledger's time and by the database's: neither a clock that is wrong nor a head that was moved ages a day alone.
    SELECT least(recorded_at, clock_timestamp()) INTO STRICT present FROM log_head;
    IF wanted + 1 + retention_days > present THEN
        RETURN format('it is kept for %s days, until %s', retention_days, wanted + 1 + retention_days);
    END IF;
    FOR hold IN SELECT * FROM legal_hold WHERE released_at IS NULL ORDER BY number LOOP
        IF hold_touches(hold, wanted, wanted + 1) THEN
            RETURN format('legal hold %s keeps it: %s', hold.hold_id, hold.reason);
        END IF;
    END LOOP;
    IF this.to_leaf > this.from_leaf THEN
        SELECT * INTO archive FROM day_archive WHERE day = wanted;
        IF NOT FOUND THEN
            RETURN 'it is not archived';
        END IF;
        IF (archive.from_leaf, archive.to_leaf) <> (this.from_leaf, this.to_leaf) THEN
            RETURN format('its archive has leaves %s up to %s, the day has %s up to %s', archive.from_leaf, archive.to_leaf,
                this.from_leaf, this.to_leaf);
        END IF;
        IF archive.verified_at < present - fresh THEN
            RETURN format('its archive was verified last on %s: it is read again before the day goes',
                archive.verified_at::date);
        END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM checkpoint WHERE size = this.to_leaf AND published) THEN
        RETURN format('no checkpoint of %s leaves is published: none covers it', this.to_leaf);
    END IF;
    SELECT min(day) INTO earlier FROM ledger_day
        WHERE day > coalesce((SELECT max(day) FROM ledger_cut), '-infinity') AND day < wanted;
    IF earlier IS NOT NULL THEN
        RETURN format('days go in order: %s is still here', earlier);
    END IF;
    RETURN NULL;
END $$;

-- The root over full subtrees, largest first: what a checkpoint signs.
CREATE FUNCTION root_of_frontier(frontier bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    place integer := octet_length(frontier) - 32;
    root  bytea;
BEGIN
    IF place < 0 THEN
        RETURN sha256('');
    END IF;
    root := substring(frontier FROM place + 1 FOR 32);
    WHILE place > 0 LOOP
        place := place - 32;
        root := sha256('\x01'::bytea || substring(frontier FROM place + 1 FOR 32) || root);
    END LOOP;
    RETURN root;
END $$;

-- Takes the oldest day out of the database: its leaves, what is beside them, and the tiles that end with them. Null where
-- that is done, else why the day stays. `edge` is the frontier of the ledger up to the end of the day; it must give the root
-- of the published checkpoint of that size.
--
-- Appends wait for the locks at most: two changes of the catalog at the very end, for which this waits 200 ms and gives up
-- (55P03). What may take long comes before, and locks nobody out.
CREATE FUNCTION detach_day(wanted date, retention_days integer, edge bytea, moment timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '200ms' AS $$
DECLARE
    first     timestamptz := wanted;
    past      timestamptz := wanted + 1;
    this      ledger_day;
    reason    text;
    leaves    bigint;
    gone      ledger_cut;
    producers text[];
    lows      bigint[];
    highs     bigint[];
    parent    text;
    child     text;
BEGIN
    -- Under a snapshot of its own a hold that was placed meanwhile would not be seen.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'days are detached under read committed, not under %', current_setting('transaction_isolation');
    END IF;
    -- Temporary tables come last, or a caller's could stand in for ours.
    PERFORM set_config('search_path', current_schema() || ', pg_temp', true);
    reason := day_stays(wanted, retention_days);
    IF reason IS NOT NULL THEN
        RETURN reason;
    END IF;
    SELECT * INTO STRICT this FROM ledger_day WHERE day = wanted;
    IF root_of_frontier(edge) IS DISTINCT FROM (SELECT root FROM checkpoint WHERE size = this.to_leaf AND published) THEN
        RETURN format('the frontier that was given is not that of the published checkpoint of %s leaves', this.to_leaf);
    END IF;
    SELECT count(*), count(*) FILTER (WHERE NOT valid), count(*) FILTER (WHERE starts_with(invalid_reason, 'conflict: ')),
            count(*) FILTER (WHERE valid AND starts_with(producer, 'token-engine/') AND CASE event_type
                WHEN 'transaction.created' THEN true
                WHEN 'transaction.rejected' THEN
                    convert_from(envelope, 'UTF8')::json #>> '{data,was_held}' IS NOT DISTINCT FROM 'false'
                ELSE false END)
        INTO leaves, gone.invalid, gone.conflicts, gone.transactions
        FROM leaf WHERE recorded_at >= first AND recorded_at < past
            AND leaf_index >= this.from_leaf AND leaf_index < this.to_leaf;
    IF leaves <> this.to_leaf - this.from_leaf THEN
        RETURN format('%s of its %s leaves stand in it', leaves, this.to_leaf - this.from_leaf);
    END IF;
    SELECT array_agg(r.producer), array_agg(r.low), array_agg(r.high) INTO producers, lows, highs FROM (
        SELECT n.producer, min(n.producer_seq) AS low, max(n.producer_seq) AS high FROM (
            SELECT l.producer, l.producer_seq, l.producer_seq
                    - row_number() OVER (PARTITION BY l.producer ORDER BY l.producer_seq) AS island
                FROM leaf l WHERE l.recorded_at >= first AND l.recorded_at < past AND l.producer IS NOT NULL
                GROUP BY l.producer, l.producer_seq
        ) n GROUP BY n.producer, n.island
    ) r;

    -- Whoever makes partitions waits, and so does whoever places a hold; then all is as it was checked, or is not done.
    PERFORM pg_advisory_xact_lock(hashtext('deltran.audit.partitions'));
    LOCK TABLE legal_hold IN SHARE MODE;
    reason := day_stays(wanted, retention_days);
    IF reason IS NOT NULL THEN
        RETURN reason;
    END IF;
    INSERT INTO ledger_cut (day, from_leaf, to_leaf, frontier, invalid, conflicts, transactions, detached_at)
        VALUES (wanted, this.from_leaf, this.to_leaf, edge, gone.invalid, gone.conflicts, gone.transactions, moment);
    INSERT INTO ledger_cut_producer (day, producer, low, high)
        SELECT wanted, r.producer, r.low, r.high FROM UNNEST(producers, lows, highs) AS r (producer, low, high);
    -- Tiles that end beyond the cut stay (C2SP tlog-tiles): every later proof is made of them. No ledger fills one of level 7.
    DELETE FROM tile WHERE level < 7 AND number < this.to_leaf >> (8 * (level + 1));
    -- A process that stops between here and COMMIT holds appends up for a second at most.
    PERFORM set_config('idle_in_transaction_session_timeout', '1000', true);
    FOREACH parent IN ARRAY ARRAY['leaf', 'leaf_raw'] LOOP
        child := format('%s_%s', parent, to_char(wanted, 'YYYYMMDD'));
        -- A day through which no process ran has none.
        CONTINUE WHEN to_regclass(child) IS NULL;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
        EXECUTE format('DROP TABLE %I', child);
    END LOOP;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION detach_day(date, integer, bytea, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION detach_day(date, integer, bytea, timestamptz) TO deltran_audit;
ALTER FUNCTION detach_day(date, integer, bytea, timestamptz) OWNER TO deltran_audit_retention;
