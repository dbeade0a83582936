-- One row per singleton of this engine. Every transaction of a singleton checks its epoch here.
CREATE TABLE IF NOT EXISTS lease (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    -- Where the holder takes requests; empty where it does not say.
    address    text NOT NULL DEFAULT '',
    epoch      bigint NOT NULL CHECK (epoch > 0),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Makes the epoch part of a key, so that raising it waits for the transactions that checked it (they lock
-- FOR KEY SHARE), and renewing the lease does not.
CREATE UNIQUE INDEX IF NOT EXISTS lease_epoch ON lease (name, epoch);

-- For a table that an earlier version made. Asked first, because the change would lock the table of a platform that runs.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'lease'::regclass AND attname = 'address') THEN
        ALTER TABLE lease ADD COLUMN address text NOT NULL DEFAULT '';
    END IF;
END $$;
