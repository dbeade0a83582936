-- A transaction that was committed has exactly one posting that reaches the payee (GROSS through a hold has two in all);
-- one that never was has none left standing: rejected and held ones have no posting at all.
SELECT 'transaction ' || t.id::text || ' is ' || t.state || ' with ' || count(p.seq)::text || ' postings'
FROM transaction t
LEFT JOIN posting p ON p.transaction_id = t.id
GROUP BY t.id, t.state, t.model, t.outcome_state, t.reserve_for
HAVING count(p.seq) <> CASE
    WHEN t.state IN ('REJECTED', 'HELD') THEN 0
    WHEN t.model = 'GROSS' AND t.state = 'RESERVED' THEN 1
    WHEN t.model = 'GROSS' AND t.state IN ('CANCELLED', 'EXPIRED') THEN 2
    WHEN t.model = 'GROSS' AND t.outcome_state = 'RESERVED' THEN 2
    -- Released from HELD into a reservation and committed: the reservation's posting and the commit's.
    WHEN t.model = 'GROSS' AND t.outcome_state = 'HELD' AND t.reserve_for IS NOT NULL THEN 2
    WHEN t.state = 'COMMITTED' THEN 1
    ELSE 0
END
ORDER BY 1
LIMIT 1
