-- A page of leaves after index $1; a parameter that is null does not filter.
SELECT * FROM leaf
WHERE leaf_index > $1
    AND ($3::text IS NULL OR domain = $3)
    AND ($4::text IS NULL OR event_type = $4)
    AND ($5::text IS NULL OR participant_id = $5)
    AND ($6::text IS NULL OR correlation_id = $6)
    AND ($7::timestamptz IS NULL OR recorded_at >= $7)
    AND ($8::timestamptz IS NULL OR recorded_at < $8)
ORDER BY leaf_index
LIMIT $2
