-- One row per singleton of this engine. Every transaction of a singleton checks its epoch here.
CREATE TABLE IF NOT EXISTS lease (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    epoch      bigint NOT NULL CHECK (epoch > 0),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Makes the epoch part of a key, so that raising it waits for the transactions that checked it (they lock
-- FOR KEY SHARE), and renewing the lease does not.
CREATE UNIQUE INDEX IF NOT EXISTS lease_epoch ON lease (name, epoch);
