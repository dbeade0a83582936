-- Numbers are dense from 1, agree with the window's counters, and no committed NET transaction lacks a window.
SELECT breach FROM (
    SELECT 'window ' || w.id::text || ': says ' || w.count::text || ' and ' || w.gross::text || ', has '
        || count(t.id)::text || ' and ' || COALESCE(sum(t.amount), 0)::text || ', highest ' || COALESCE(max(t.window_seq), 0)::text AS breach
    FROM ledger_window w
    LEFT JOIN transaction t ON t.window_id = w.id AND t.state = 'COMMITTED'
    GROUP BY w.id, w.count, w.gross
    HAVING count(t.id) <> w.count OR COALESCE(sum(t.amount), 0) <> w.gross OR COALESCE(max(t.window_seq), 0) <> w.count
        OR COALESCE(min(t.window_seq), 1) <> 1
    UNION ALL
    SELECT 'transaction ' || id::text || ' is ' || state || ' and ' || CASE WHEN window_id IS NULL THEN 'in no window' ELSE 'in a window' END
    FROM transaction
    WHERE (state = 'COMMITTED' AND model <> 'GROSS') <> (window_id IS NOT NULL)
    UNION ALL
    SELECT 'transaction ' || t.id::text || ' names window ' || t.window_id::text || ', which the ledger does not have'
    FROM transaction t WHERE t.window_id IS NOT NULL AND NOT EXISTS (SELECT FROM ledger_window w WHERE w.id = t.window_id)
) AS breaches
ORDER BY breach
LIMIT 1
