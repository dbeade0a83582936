-- Deliveries that have ended are dropped after their time, with their attempts. What is still to be sent never is, and
-- attempts go with their delivery only.

CREATE FUNCTION attempt_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM delivery WHERE endpoint_id = OLD.endpoint_id AND position = OLD.position) THEN
        RAISE EXCEPTION 'attempt is append-only: it goes with its delivery' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$;
DROP TRIGGER append_only ON attempt;
CREATE TRIGGER append_only BEFORE UPDATE ON attempt FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempt_guard BEFORE DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION attempt_guard();
ALTER TABLE attempt
    DROP CONSTRAINT attempt_endpoint_id_position_fkey,
    ADD CONSTRAINT attempt_of_delivery FOREIGN KEY (endpoint_id, position) REFERENCES delivery ON DELETE CASCADE;

CREATE FUNCTION refuse_to_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'delivery % of endpoint % is still to be sent', OLD.position, OLD.endpoint_id
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER delivery_guard BEFORE DELETE ON delivery FOR EACH ROW WHEN (OLD.state = 'PENDING')
    EXECUTE FUNCTION refuse_to_forget();
REVOKE TRUNCATE ON delivery FROM deltran_notification;

CREATE INDEX delivery_ended ON delivery (ended_at) WHERE state <> 'PENDING';
