-- `spend`, added up by provider; simulated calls apart from real ones.
CREATE VIEW spend_by_provider AS
SELECT
    provider,
    provider_simulated,
    sum(calls)::bigint AS calls,
    sum(succeeded)::bigint AS succeeded,
    sum(failed)::bigint AS failed,
    sum(unknown)::bigint AS unknown,
    sum(input_tokens)::bigint AS input_tokens,
    sum(cache_read_tokens)::bigint AS cache_read_tokens,
    sum(cache_write_tokens)::bigint AS cache_write_tokens,
    sum(output_tokens)::bigint AS output_tokens,
    sum(reasoning_tokens)::bigint AS reasoning_tokens,
    sum(cost_usd) AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls
FROM spend
GROUP BY provider, provider_simulated
