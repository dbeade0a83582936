-- A hold on a participant keeps what an export for it would hand out: every leaf whose envelope names it anywhere as a
-- value of its own, not only those that concern it first. No index says that, so what the index does not find is looked
-- for in the bytes of the range: of one day, when it is about to leave.
CREATE OR REPLACE FUNCTION hold_touches(hold legal_hold, first timestamptz, past timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    first := greatest(first, hold.since);
    past := least(past, hold.until);
    IF first >= past THEN
        RETURN false;
    END IF;
    -- One statement for each index.
    IF hold.participant_id IS NOT NULL THEN
        RETURN EXISTS (SELECT FROM leaf WHERE participant_id = hold.participant_id
                AND (hold.correlation_id IS NULL OR correlation_id = hold.correlation_id)
                AND recorded_at >= first AND recorded_at < past)
            OR EXISTS (SELECT FROM leaf WHERE recorded_at >= first AND recorded_at < past
                AND (hold.correlation_id IS NULL OR correlation_id = hold.correlation_id)
                AND position(convert_to('"' || hold.participant_id || '"', 'UTF8') IN envelope) > 0);
    ELSIF hold.correlation_id IS NOT NULL THEN
        RETURN EXISTS (SELECT FROM leaf WHERE correlation_id = hold.correlation_id
            AND recorded_at >= first AND recorded_at < past);
    END IF;
    RETURN EXISTS (SELECT FROM leaf WHERE recorded_at >= first AND recorded_at < past);
END $$;
