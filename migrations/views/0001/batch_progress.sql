-- How far each batch is. A prompt is done when it has its result, whatever that is. Both counts read an index and never
-- the answers; `succeeded` is what is left.
CREATE VIEW batch_progress AS
SELECT
    b.id AS batch_id,
    b.name,
    b.state,
    b.simulated,
    b.prompt_count,
    b.rejected_count,
    r.done - u.failed - u.cancelled AS succeeded,
    u.failed,
    u.cancelled,
    r.done,
    b.prompt_count - r.done AS remaining,
    b.created_at,
    b.finished_at
FROM batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) AS done
    FROM results
    WHERE results.batch_id = b.id
) AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE results.state = 'failed') AS failed,
        count(*) FILTER (WHERE results.state = 'cancelled') AS cancelled
    FROM results
    WHERE results.batch_id = b.id AND results.state <> 'succeeded'
) AS u
