-- A page of transactions in order of decision; every filter may be absent.
SELECT id, position, payer, payee, currency, amount, model, priority, end_to_end_id, uetr, purpose, reserve_for,
    return_of, body_hash, outcome_state, decided_at, state, updated_at, window_id, window_seq, expires_at,
    refusal_code, refusal_message, refusal_details, returned
FROM transaction
WHERE position > $1
  AND ($2::text IS NULL OR payer = $2 OR payee = $2)
  AND ($3::uuid IS NULL OR window_id = $3)
  AND ($4::text IS NULL OR state = $4)
  AND ($5::text IS NULL OR end_to_end_id = $5)
ORDER BY position
LIMIT $6
