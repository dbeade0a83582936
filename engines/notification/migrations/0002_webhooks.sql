-- Webhooks. Times are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE endpoint (
    endpoint_id uuid PRIMARY KEY,
    participant text NOT NULL,
    url         text NOT NULL,
    -- Empty for all kinds.
    kinds       text[] NOT NULL,
    in_order    boolean NOT NULL,
    state       text NOT NULL CHECK (state IN ('ENABLED', 'DISABLED', 'DELETED')),
    cause       text CHECK (cause IN ('OWNER', 'OPERATOR', 'GONE', 'FAILING')),
    note        text NOT NULL,
    -- Rises with each change; the sender reads an endpoint anew where it has risen.
    version     bigint NOT NULL,
    created_at  bigint NOT NULL,
    changed_by  text NOT NULL,
    changed_at  bigint NOT NULL,
    CHECK ((state = 'DISABLED') = (cause IS NOT NULL))
);
CREATE INDEX endpoint_participant ON endpoint (participant, endpoint_id);

-- Every change of an endpoint.
CREATE TABLE endpoint_step (
    endpoint_id uuid NOT NULL REFERENCES endpoint,
    version     bigint NOT NULL,
    change      text NOT NULL,
    url         text NOT NULL,
    kinds       text[] NOT NULL,
    in_order    boolean NOT NULL,
    state       text NOT NULL,
    cause       text,
    note        text NOT NULL,
    by_user     text NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (endpoint_id, version)
);

-- How an endpoint fares. Apart from it, because it is written with every failure and an endpoint is locked where
-- deliveries are filed.
CREATE TABLE endpoint_health (
    endpoint_id   uuid PRIMARY KEY REFERENCES endpoint,
    failures      bigint NOT NULL,
    failing_since bigint,
    paused_until  bigint
);

-- Secrets, encrypted by a master key that is not in the database. The last one has no end.
CREATE TABLE endpoint_secret (
    endpoint_id uuid NOT NULL REFERENCES endpoint,
    number      integer NOT NULL,
    sealed      bytea NOT NULL,
    public_key  text NOT NULL,
    created_at  bigint NOT NULL,
    expires_at  bigint,
    PRIMARY KEY (endpoint_id, number)
);

-- Commands that were carried out, by their idempotency key.
CREATE TABLE endpoint_command (
    command_id  uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES endpoint,
    body        text NOT NULL,
    -- How many deliveries it concerned.
    deliveries  bigint NOT NULL,
    by_user     text NOT NULL,
    at          bigint NOT NULL
);

-- One notification on its way to one endpoint.
CREATE TABLE delivery (
    endpoint_id     uuid NOT NULL REFERENCES endpoint,
    -- The place of the notification among those of its participant.
    position        bigint NOT NULL,
    notification_id uuid NOT NULL,
    kind            text NOT NULL,
    notified_at     bigint NOT NULL,
    body            text NOT NULL,
    state           text NOT NULL CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    attempts        integer NOT NULL,
    -- Of those, the ones before it was last replayed.
    attempts_before integer NOT NULL,
    due_at          bigint NOT NULL,
    ended_at        bigint,
    PRIMARY KEY (endpoint_id, position),
    UNIQUE (endpoint_id, notification_id),
    CHECK ((state = 'PENDING') = (ended_at IS NULL))
);
CREATE INDEX delivery_due ON delivery (endpoint_id, due_at, position) WHERE state = 'PENDING';
CREATE INDEX delivery_in_order ON delivery (endpoint_id, position) WHERE state = 'PENDING';
CREATE INDEX delivery_failed ON delivery (endpoint_id, position) WHERE state = 'FAILED';

-- Every attempt, for ever.
CREATE TABLE attempt (
    attempt_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id uuid NOT NULL,
    position    bigint NOT NULL,
    number      integer NOT NULL,
    at          bigint NOT NULL,
    duration_ms bigint NOT NULL,
    status      integer,
    -- Empty where it was taken.
    error       text NOT NULL,
    response    text NOT NULL,
    UNIQUE (endpoint_id, position, number),
    FOREIGN KEY (endpoint_id, position) REFERENCES delivery
);
CREATE INDEX attempt_of_endpoint ON attempt (endpoint_id, attempt_id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON attempt EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON endpoint_step FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON endpoint_step EXECUTE FUNCTION refuse_change();

REVOKE UPDATE, DELETE ON attempt, endpoint_step FROM deltran_notification;
