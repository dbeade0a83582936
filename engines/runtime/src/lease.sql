-- One row per singleton of this engine. Every transaction of a singleton checks its epoch here.
CREATE TABLE IF NOT EXISTS lease (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    epoch      bigint NOT NULL CHECK (epoch > 0),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
