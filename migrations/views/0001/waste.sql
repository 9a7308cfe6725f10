-- Calls that gave no answer, and what they cost all the same. The outcome `unknown` is a call that its worker died in.
CREATE VIEW waste AS
SELECT
    batch_id,
    provider,
    model,
    provider_simulated,
    outcome,
    error_class,
    count(*) AS calls,
    sum(input_tokens)::bigint AS input_tokens,
    sum(cache_read_tokens)::bigint AS cache_read_tokens,
    sum(cache_write_tokens)::bigint AS cache_write_tokens,
    sum(output_tokens)::bigint AS output_tokens,
    sum(reasoning_tokens)::bigint AS reasoning_tokens,
    sum(CASE WHEN cost_usd IS NULL AND http_status >= 400 AND input_tokens IS NULL THEN 0 ELSE cost_usd END)
        AS cost_usd,
    count(*) FILTER (
        WHERE cost_usd IS NULL AND (http_status IS NULL OR http_status < 400 OR input_tokens IS NOT NULL)
    ) AS unpriced_calls
FROM attempts
WHERE outcome <> 'succeeded'
GROUP BY batch_id, provider, model, provider_simulated, outcome, error_class
