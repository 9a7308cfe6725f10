-- What the calls cost, from the attempts. An answer with an error status and no usage costs nothing. Any other call
-- whose cost is not known adds one to unpriced_calls: cost_usd is complete only where that is 0.
CREATE VIEW spend AS
SELECT
    (finished_at AT TIME ZONE 'UTC')::date AS day,
    batch_id,
    category,
    provider,
    model,
    provider_simulated,
    count(*) AS calls,
    count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'failed') AS failed,
    count(*) FILTER (WHERE outcome = 'unknown') AS unknown,
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
GROUP BY 1, 2, 3, 4, 5, 6
