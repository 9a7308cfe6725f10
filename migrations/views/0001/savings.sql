-- `savings_by_category`, added up over each batch.
CREATE VIEW savings AS
SELECT
    batch_id,
    frontier,
    provider_simulated,
    sum(calls)::bigint AS calls,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(compared)::bigint AS compared,
    sum(uncompared)::bigint AS uncompared,
    sum(cost_usd) AS cost_usd,
    sum(baseline_cost_usd) AS baseline_cost_usd,
    sum(saved_usd) AS saved_usd,
    sum(saved_usd) / nullif(sum(baseline_cost_usd), 0) AS saved_share
FROM savings_by_category
GROUP BY batch_id, frontier, provider_simulated
