-- The leaves of a batch, from index $1 on, all recorded at $2.
INSERT INTO leaf (
    leaf_index, recorded_at, leaf_hash, envelope, wrapped, event_id, subject, domain, event_type, occurred_at,
    source, participant_id, correlation_id, producer, producer_seq, source_stream, source_sequence, invalid_reason, valid
)
SELECT $1 + n - 1, $2, leaf_hash, envelope, wrapped, event_id, subject, domain, event_type, occurred_at,
    source, participant_id, correlation_id, producer, producer_seq, source_stream, source_sequence, invalid_reason,
    invalid_reason IS NULL
FROM UNNEST(
    $3::bytea[], $4::bytea[], $5::bool[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
    $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[], $17::bigint[], $18::text[]
) WITH ORDINALITY AS l (
    leaf_hash, envelope, wrapped, event_id, subject, domain, event_type, occurred_at,
    source, participant_id, correlation_id, producer, producer_seq, source_stream, source_sequence, invalid_reason, n
)
ORDER BY n
