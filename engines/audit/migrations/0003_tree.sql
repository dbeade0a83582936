-- The Merkle tree over the leaves (RFC 6962), in tiles of up to 256 hashes (C2SP tlog-tiles).

-- A tile only grows to the right; what stands in it never changes.
CREATE TABLE tile (
    -- Hashes of subtrees of height 8 * level.
    level  smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    -- Its place within the level, from the left.
    number bigint NOT NULL CHECK (number >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, number)
);
-- Hashes do not compress.
ALTER TABLE tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- The right edge of the tree: the hashes of the full subtrees that it consists of, largest first.
CREATE TABLE tree_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    size     bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    frontier bytea NOT NULL DEFAULT '' CHECK (octet_length(frontier) % 32 = 0 AND octet_length(frontier) <= 2016)
) WITH (fillfactor = 50);
INSERT INTO tree_head DEFAULT VALUES;

CREATE FUNCTION tile_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.level <> OLD.level OR NEW.number <> OLD.number
        OR substring(NEW.hashes FROM 1 FOR octet_length(OLD.hashes)) <> OLD.hashes THEN
        RAISE EXCEPTION 'a tile of the audit ledger only grows' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_grows BEFORE UPDATE ON tile FOR EACH ROW EXECUTE FUNCTION tile_only_grows();

CREATE FUNCTION tree_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size < OLD.size THEN
        RAISE EXCEPTION 'the tree of the audit ledger only grows' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_grows BEFORE UPDATE ON tree_head FOR EACH ROW EXECUTE FUNCTION tree_only_grows();

CREATE TRIGGER append_only BEFORE DELETE ON tile FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON tree_head FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON tile EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON tree_head EXECUTE FUNCTION refuse_change();

REVOKE UPDATE, DELETE, TRUNCATE ON tile FROM deltran_audit;
GRANT UPDATE (hashes) ON tile TO deltran_audit;
REVOKE INSERT, DELETE, TRUNCATE ON tree_head FROM deltran_audit;
