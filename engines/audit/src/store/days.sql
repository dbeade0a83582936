-- A page of days, newest first, before the day of $1, in state $2 where it is given; $3 is the retention in days.
WITH last AS (
    SELECT max(day) AS day, coalesce(max(to_leaf), 0) AS to_leaf FROM ledger_day
), day AS (
    SELECT d.day, d.from_leaf, d.to_leaf, true AS closed FROM ledger_day d
    UNION ALL
    -- The one under way: from the end of the last closed one on.
    SELECT greatest((h.recorded_at AT TIME ZONE 'UTC')::date, last.day + 1), last.to_leaf, h.size, false
    FROM log_head h, last WHERE h.size > 0
), listed AS (
    SELECT day, d.from_leaf, d.to_leaf, d.closed, a.place, a.manifest_sha256, a.archived_at, a.verified_at, c.detached_at
    FROM day d LEFT JOIN day_archive a USING (day) LEFT JOIN ledger_cut c USING (day)
    WHERE ($1::timestamptz IS NULL OR day < ($1 AT TIME ZONE 'UTC')::date)
        AND ($2::text IS NULL OR $2 = CASE
            WHEN c.day IS NOT NULL THEN 'DETACHED' WHEN a.day IS NOT NULL THEN 'ARCHIVED' ELSE 'ONLINE' END)
    ORDER BY day DESC LIMIT $4
)
SELECT day::timestamptz AS day, from_leaf, to_leaf, closed, place, manifest_sha256, archived_at, verified_at, detached_at,
    CASE WHEN detached_at IS NULL THEN day_stays(day, $3) END AS stays_because
FROM listed ORDER BY day DESC
