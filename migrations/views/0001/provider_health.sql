-- How each provider does now: those with a call in the last hour or a live worker. A worker is live while it has given
-- a sign of life in the last 30 seconds.
CREATE VIEW provider_health AS
SELECT
    coalesce(c.provider, w.provider) AS provider,
    coalesce(w.live_workers, 0) AS live_workers,
    coalesce(w.calls_in_flight, 0) AS calls_in_flight,
    coalesce(c.calls_5min, 0) AS calls_5min,
    round(c.failed_5min::numeric / nullif(c.calls_5min, 0), 4) AS failure_share_5min,
    coalesce(c.calls_1h, 0) AS calls_1h,
    round(c.failed_1h::numeric / nullif(c.calls_1h, 0), 4) AS failure_share_1h,
    c.p50_latency_ms,
    c.p95_latency_ms,
    e.error_class AS last_error_class,
    e.finished_at AS last_error_at
FROM (
    SELECT
        provider,
        count(*) FILTER (WHERE recent) AS calls_5min,
        count(*) FILTER (WHERE recent AND outcome <> 'succeeded') AS failed_5min,
        count(*) AS calls_1h,
        count(*) FILTER (WHERE outcome <> 'succeeded') AS failed_1h,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE outcome = 'succeeded')
            AS p50_latency_ms,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE outcome = 'succeeded')
            AS p95_latency_ms
    FROM (
        SELECT provider, outcome, latency_ms, finished_at > now() - interval '5 minutes' AS recent
        FROM attempts
        WHERE finished_at > now() - interval '1 hour'
    ) AS last_hour
    GROUP BY provider
) AS c
LEFT JOIN (
    SELECT DISTINCT ON (provider) provider, error_class, finished_at
    FROM attempts
    WHERE finished_at > now() - interval '1 hour' AND error_class IS NOT NULL
    ORDER BY provider, finished_at DESC
) AS e ON e.provider = c.provider
FULL JOIN (
    SELECT provider, count(*) AS live_workers, sum(calls_in_flight)::bigint AS calls_in_flight
    FROM workers
    WHERE stopped_at IS NULL AND heartbeat_at > now() - interval '30 seconds'
    GROUP BY provider
) AS w ON w.provider = c.provider
