-- Reports and their schedules.

CREATE TABLE report (
    report_id      uuid PRIMARY KEY,
    number         bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind           text NOT NULL CHECK (kind IN ('STATEMENT', 'SETTLEMENT', 'TRIAL_BALANCE')),
    participant    text,
    currency       text,
    day            integer,
    window_id      uuid,
    netting_set_id uuid,
    formats        text[] NOT NULL CHECK (cardinality(formats) > 0),
    verify_ledger  boolean NOT NULL,
    state          text NOT NULL CHECK (state IN ('REQUESTED', 'WAITING', 'WRITING', 'COMPLETED', 'FAILED', 'EXPIRED')),
    note           text NOT NULL DEFAULT '',
    requested_by   text NOT NULL,
    schedule       text,
    requested_at   bigint NOT NULL,
    completed_at   bigint,
    expires_at     bigint,
    -- As JSON.
    files          text NOT NULL DEFAULT '[]',
    CHECK ((state IN ('COMPLETED', 'EXPIRED')) = (completed_at IS NOT NULL))
);
CREATE INDEX report_open ON report (number) WHERE state IN ('WAITING', 'WRITING');
CREATE INDEX report_requested ON report (requested_at) WHERE state = 'REQUESTED';
CREATE INDEX report_expiry ON report (expires_at) WHERE state = 'COMPLETED';
CREATE INDEX report_participant ON report (participant, number);

-- The arrows that are drawn, whoever writes.
CREATE FUNCTION report_arrow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('REQUESTED', 'WAITING'), ('WAITING', 'WRITING'), ('WRITING', 'WAITING'), ('WRITING', 'COMPLETED'),
        ('REQUESTED', 'FAILED'), ('WAITING', 'FAILED'), ('WRITING', 'FAILED'), ('COMPLETED', 'EXPIRED')
    ) THEN
        RAISE EXCEPTION 'report %: % cannot become %', OLD.report_id, OLD.state, NEW.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER arrow BEFORE UPDATE ON report FOR EACH ROW EXECUTE FUNCTION report_arrow();

CREATE TABLE schedule (
    name       text PRIMARY KEY,
    kind       text NOT NULL,
    cron       text NOT NULL,
    time_zone  text NOT NULL,
    formats    text[] NOT NULL,
    enabled    boolean NOT NULL,
    changed_by text NOT NULL,
    -- Times up to this one are done.
    last_at    bigint NOT NULL
);
REVOKE DELETE, TRUNCATE ON report, schedule FROM deltran_reporting;
