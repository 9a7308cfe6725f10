-- What the same tokens would have cost at the batch's frontier model. Compared are the answers of which both costs are
-- known, against all that was spent on the category, failed calls included; answers that could not be compared
-- are left out on both sides and counted.
CREATE VIEW savings_by_category AS
SELECT
    s.batch_id,
    s.category,
    b.frontier,
    s.provider_simulated,
    s.calls,
    s.unpriced_calls,
    coalesce(r.compared, 0) AS compared,
    coalesce(r.uncompared, 0) AS uncompared,
    s.cost_usd,
    r.baseline_cost_usd,
    r.baseline_cost_usd - (s.cost_usd - r.uncompared_cost_usd) AS saved_usd,
    (r.baseline_cost_usd - (s.cost_usd - r.uncompared_cost_usd)) / nullif(r.baseline_cost_usd, 0) AS saved_share
FROM (
    SELECT
        batch_id,
        category,
        provider_simulated,
        sum(calls)::bigint AS calls,
        sum(unpriced_calls)::bigint AS unpriced_calls,
        sum(cost_usd) AS cost_usd
    FROM spend
    GROUP BY batch_id, category, provider_simulated
) AS s
JOIN batches AS b ON b.id = s.batch_id
LEFT JOIN (
    SELECT
        batch_id,
        category,
        provider_simulated,
        count(*) FILTER (WHERE cost_usd IS NOT NULL AND baseline_cost_usd IS NOT NULL) AS compared,
        count(*) FILTER (WHERE cost_usd IS NULL OR baseline_cost_usd IS NULL) AS uncompared,
        sum(baseline_cost_usd) FILTER (WHERE cost_usd IS NOT NULL) AS baseline_cost_usd,
        coalesce(sum(cost_usd) FILTER (WHERE baseline_cost_usd IS NULL), 0) AS uncompared_cost_usd
    FROM results
    WHERE state = 'succeeded'
    GROUP BY batch_id, category, provider_simulated
) AS r USING (batch_id, category, provider_simulated)
