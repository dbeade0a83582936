-- What every batch writes, in one statement; one array per column. Nothing is written unless the counters are what memory
-- says. No table is read but for its one row, so that the plan is the same whatever the tables have grown to.
WITH numbers AS (
    UPDATE outbox_counter SET assigned = $1 WHERE assigned = $2 AND epoch = $3 RETURNING 1
), state AS (
    UPDATE writer_state SET batch = $4, posting_seq = $5, position = $6, last_at = $7, epoch = $9
    WHERE batch = $8 AND EXISTS (SELECT FROM numbers) RETURNING 1
), transactions AS (
    INSERT INTO transaction (
        id, position, payer, payee, currency, amount, model, priority, end_to_end_id, uetr, purpose, reserve_for,
        return_of, body_hash, outcome_state, decided_at, state, updated_at, window_id, window_seq, expires_at,
        refusal_code, refusal_message, refusal_details, returned
    )
    SELECT * FROM UNNEST(
        $10::uuid[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::numeric[], $16::text[], $17::smallint[],
        $18::text[], $19::uuid[], $20::text[], $21::bigint[], $22::uuid[], $23::bytea[], $24::text[], $25::bigint[],
        $26::text[], $27::bigint[], $28::uuid[], $29::bigint[], $30::bigint[], $31::text[], $32::text[], $33::text[],
        $34::numeric[]
    ) WHERE EXISTS (SELECT FROM state)
), postings AS (
    INSERT INTO posting (seq, group_id, debit, credit, amount, transaction_id, posted_at)
    SELECT * FROM UNNEST(
        $35::bigint[], $36::uuid[], $37::text[], $38::text[], $39::numeric[], $40::uuid[], $41::bigint[]
    ) WHERE EXISTS (SELECT FROM state)
), windows AS (
    INSERT INTO ledger_window (id, currency, count, gross, digest, opened_at)
    SELECT * FROM UNNEST($42::uuid[], $43::text[], $44::bigint[], $45::numeric[], $46::bytea[], $47::bigint[])
    WHERE EXISTS (SELECT FROM state)
    ON CONFLICT (id) DO UPDATE SET count = EXCLUDED.count, gross = EXCLUDED.gross, digest = EXCLUDED.digest
)
SELECT count(*) FROM state
