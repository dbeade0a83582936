-- One insert for all new transactions of a batch; one array per column.
INSERT INTO transaction (
    id, position, payer, payee, currency, amount, model, priority, end_to_end_id, uetr, purpose, reserve_for, return_of,
    body_hash, outcome_state, decided_at, state, updated_at, window_id, window_seq, expires_at, refusal_code,
    refusal_message, refusal_details, returned
)
SELECT * FROM UNNEST(
    $1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::text[], $8::smallint[], $9::text[],
    $10::uuid[], $11::text[], $12::bigint[], $13::uuid[], $14::bytea[], $15::text[], $16::bigint[], $17::text[],
    $18::bigint[], $19::uuid[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::text[], $25::numeric[]
)
