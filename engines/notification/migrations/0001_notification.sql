-- Subscriptions and feeds. Times are microseconds since 1970-01-01T00:00:00Z.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- What participants are told. A subscription ends and does not change otherwise.
CREATE TABLE subscription (
    number          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    subscription_id uuid PRIMARY KEY,
    participant     text NOT NULL,
    kinds           text[] NOT NULL CHECK (cardinality(kinds) > 0),
    currency        text CHECK (currency ~ '^[A-Z]{3}$'),
    minimum         numeric(38,0) CHECK (minimum >= 0),
    created_at      bigint NOT NULL,
    created_by      text NOT NULL,
    ended_at        bigint,
    ended_by        text,
    CHECK (minimum IS NULL OR currency IS NOT NULL),
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE INDEX subscription_present ON subscription (participant) WHERE ended_at IS NULL;

CREATE FUNCTION subscription_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL
       OR (NEW.number, NEW.subscription_id, NEW.participant, NEW.kinds, NEW.currency, NEW.minimum, NEW.created_at, NEW.created_by)
          IS DISTINCT FROM
          (OLD.number, OLD.subscription_id, OLD.participant, OLD.kinds, OLD.currency, OLD.minimum, OLD.created_at, OLD.created_by)
    THEN
        RAISE EXCEPTION 'subscription %: it may end and not change otherwise', OLD.subscription_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER subscription_guard BEFORE UPDATE ON subscription FOR EACH ROW EXECUTE FUNCTION subscription_guard();
REVOKE DELETE, TRUNCATE ON subscription FROM deltran_notification;

-- Counts the changes of subscriptions, so that one look tells whether what is in memory still holds. Every
-- change locks the row first, so that changes come one after another.
CREATE TABLE subscription_version (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO subscription_version DEFAULT VALUES;

-- The feed of each participant: how far it goes, and from where on it is kept.
CREATE TABLE feed (
    participant     text PRIMARY KEY,
    last_position   bigint NOT NULL CHECK (last_position > 0),
    -- One above the last where nothing is kept.
    oldest_position bigint NOT NULL CHECK (oldest_position BETWEEN 1 AND last_position + 1),
    -- The filing that it was touched by last.
    round           bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX feed_round ON feed (round);

-- Counts the filings, in the order of commits, so that one look tells what any process filed since.
CREATE TABLE filing (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    round bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO filing DEFAULT VALUES;

-- What was filed. `body` is what every way sends.
CREATE TABLE notification (
    participant     text NOT NULL REFERENCES feed,
    position        bigint NOT NULL CHECK (position > 0),
    notification_id uuid NOT NULL UNIQUE,
    kind            text NOT NULL,
    at              bigint NOT NULL,
    filed_at        bigint NOT NULL,
    body            text NOT NULL,
    PRIMARY KEY (participant, position)
);
CREATE INDEX notification_filed ON notification (filed_at);
CREATE TRIGGER notification_guard BEFORE UPDATE ON notification FOR EACH ROW EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, TRUNCATE ON notification FROM deltran_notification;
