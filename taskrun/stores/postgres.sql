-- Named queries of the Postgres store: `-- name: NAME`, then one statement. Rows come in field order of the records, which a test
-- holds against the migrations; rows of runs end with their `version`. `FOR …` is left out where somebody only reads.

-- name: begin
BEGIN ISOLATION LEVEL READ COMMITTED

-- name: begin_reading
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- Nearly all statements look for a key, or go along one index, so a plan serves whatever the values are, and planning cost more than
-- the rest. It may be made while the tables are empty, and is kept until they are analyzed: no whole table is to be read by it.
-- name: plan_once
SELECT set_config('plan_cache_mode', 'force_generic_plan', $1::boolean), set_config('enable_seqscan', 'off', $1::boolean),
    set_config('jit', 'off', $1::boolean)

-- name: plan_for_values
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'on', true)

-- name: plan_mode
SELECT current_setting('plan_cache_mode', true)

-- name: beside_others
SELECT pg_advisory_xact_lock_shared($1::bigint)

-- name: alone
SELECT pg_advisory_xact_lock($1::bigint)

-- What stands still within a transaction while others wait for it. The server's own timeout for that does not end a session in the
-- middle of a pipeline, whose state is `active`.
-- name: cut_off
SELECT pg_terminate_backend(pid), pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'
    AND xact_start IS NOT NULL AND state_change < clock_timestamp() - make_interval(secs => $2::float8)

-- name: lock
SELECT pg_advisory_xact_lock($1::bigint)

-- name: lock_shared
SELECT pg_advisory_xact_lock_shared($1::bigint)

-- name: check_engine
SELECT 1 / count(*) FROM (SELECT 1 FROM engines WHERE id = $1 FOR KEY SHARE) AS there

-- name: check_runs
SELECT 1 / (count(*) = cardinality($1::text[]))::int FROM (
    SELECT 1 FROM runs AS r JOIN unnest($1::text[], $2::bigint[]) AS known (id, version)
        ON r.id = known.id AND r.version = known.version
    ORDER BY r.id FOR NO KEY UPDATE OF r
) AS same

-- name: check_facts
SELECT 1 / (count(*) = cardinality($1::text[]))::int FROM unnest($1::text[], $2::text[]) AS known (key, value)
LEFT JOIN facts AS f ON f.key = known.key WHERE f.value IS NOT DISTINCT FROM known.value

-- name: now
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: add_runs
INSERT INTO runs
SELECT * FROM json_populate_recordset(NULL::runs, $1::json)

-- name: save_runs
UPDATE runs AS r SET
    status = n.status, reason = n.reason, attempt = n.attempt, engine = n.engine, started_at = n.started_at,
    ended_at = n.ended_at, wake_at = n.wake_at, deadline = n.deadline, blocked = n.blocked, placed = n.placed,
    cancel = n.cancel, pause = n.pause, crashes = n.crashes, progress = n.progress, failures = n.failures,
    error = n.error, output = coalesce(n.output, r.output), cause = n.cause, cancel_cause = n.cancel_cause,
    inherited = n.inherited, after = n.after, awaited = n.awaited, version = r.version + 1
FROM json_populate_recordset(NULL::runs, $1::json) AS n WHERE r.id = n.id
RETURNING r.id, r.version

-- name: touch_runs
UPDATE runs SET version = version + 1 WHERE id = ANY($1::text[])
RETURNING id, version, engine

-- name: run
SELECT * FROM runs WHERE id = $1 FOR NO KEY UPDATE

-- name: holds
SELECT 1 FROM runs
WHERE id = $1 AND engine = $2 AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
FOR NO KEY UPDATE

-- name: oldest
SELECT min(created_at) FROM runs
WHERE status <> 'succeeded' AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')

-- name: run_by_key
SELECT * FROM runs WHERE job = $1 AND key = $2 ORDER BY seq DESC LIMIT 1 FOR NO KEY UPDATE

-- name: run_by_debounce
SELECT * FROM runs WHERE debounce = $1 AND status = 'scheduled' ORDER BY seq DESC LIMIT 1 FOR NO KEY UPDATE

-- name: ready
SELECT r.* FROM unnest($1::text[]) AS j CROSS JOIN LATERAL (
    SELECT * FROM runs
    WHERE job = j AND status = 'queued' AND blocked IS NULL AND (engine IS NULL OR engine = $2)
        AND ($4::boolean OR crashes = 0 OR cancel IS NOT NULL)
    ORDER BY (cancel IS NULL), priority DESC, seq LIMIT $3::bigint
    FOR NO KEY UPDATE SKIP LOCKED
) AS r
ORDER BY (r.cancel IS NULL), r.priority DESC, r.seq LIMIT $3::bigint

-- name: any_ready
SELECT r.* FROM unnest($1::text[]) AS j CROSS JOIN LATERAL (
    SELECT * FROM runs
    WHERE job = j AND status = 'queued' AND blocked IS NULL AND (engine IS NULL OR engine = $2)
        AND ($4::boolean OR crashes = 0 OR cancel IS NOT NULL)
    ORDER BY (cancel IS NULL), priority DESC, seq LIMIT $3::bigint
) AS r
ORDER BY (r.cancel IS NULL), r.priority DESC, r.seq LIMIT $3::bigint

-- name: jobs_with_ready
SELECT j FROM unnest($1::text[]) AS j
WHERE EXISTS (SELECT 1 FROM runs WHERE job = j AND status = 'queued' AND blocked IS NULL AND engine IS NULL)

-- name: count_ready
SELECT count(*) FROM (
    SELECT 1 FROM unnest($1::text[]) AS j CROSS JOIN LATERAL (
        SELECT 1 FROM runs
        WHERE job = j AND status = 'queued' AND blocked IS NULL AND (engine IS NULL OR engine = $2)
            AND ($4::boolean OR crashes = 0 OR cancel IS NOT NULL)
        LIMIT $3::bigint
    ) AS r LIMIT $3::bigint
) AS enough

-- name: owned
SELECT * FROM runs
WHERE engine = $1 AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
ORDER BY seq FOR NO KEY UPDATE

-- name: executing
SELECT id FROM runs WHERE status = 'running' AND engine = $1

-- name: asked
SELECT * FROM runs
WHERE engine = $1 AND (cancel IS NOT NULL OR pause IS NOT NULL)
    AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')

-- name: asked_of_none
SELECT * FROM runs
WHERE engine IS NULL AND (cancel IS NOT NULL OR pause IS NOT NULL)
    AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')

-- name: blocked_queues
SELECT DISTINCT blocked FROM runs WHERE status = 'queued' AND blocked IS NOT NULL

-- name: due_runs
SELECT r.* FROM (
    SELECT seq, min(due) AS due FROM (
        (
            SELECT seq, wake_at AS due FROM runs
            WHERE status = 'scheduled' AND wake_at <= $1::float8 AND (engine IS NULL OR engine = $2)
            ORDER BY wake_at, seq LIMIT $3::bigint
        )
        UNION ALL
        (
            SELECT seq, deadline AS due FROM runs
            WHERE deadline <= $1::float8 AND ended_at IS NULL
                AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
                AND (engine IS NULL OR engine = $2)
            ORDER BY deadline, seq LIMIT $3::bigint
        )
    ) AS moments GROUP BY seq
) AS d JOIN runs AS r ON r.seq = d.seq
ORDER BY d.due, d.seq LIMIT $3::bigint
FOR NO KEY UPDATE OF r SKIP LOCKED

-- name: placed
SELECT count(*) FROM runs WHERE lane = $1 AND placed

-- name: holders
SELECT * FROM runs WHERE lane = $1 AND placed ORDER BY seq

-- name: blocked
SELECT * FROM runs WHERE blocked = $1 AND status = 'queued' ORDER BY priority DESC, seq LIMIT $2::bigint
FOR NO KEY UPDATE

-- name: blocked_of_jobs
SELECT * FROM runs WHERE blocked = $1 AND status = 'queued' AND job = ANY($3::text[])
ORDER BY priority DESC, seq LIMIT $2::bigint
FOR NO KEY UPDATE

-- name: count_runs
SELECT job, status, count(*) FROM runs GROUP BY job, status

-- name: count_children
SELECT count(*) FROM runs WHERE parent IS NOT NULL

-- name: drop_runs
DELETE FROM runs WHERE id = ANY($1::text[])

-- name: drop_steps_of_runs
DELETE FROM steps WHERE run = ANY($1::text[])

-- name: drop_logs_of_runs
DELETE FROM logs WHERE run = ANY($1::text[])

-- name: put_steps
INSERT INTO steps AS s (
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    failures, error, output, call
)
SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    failures, error, output, call
FROM json_populate_recordset(NULL::steps, $1::json)
ON CONFLICT (run, key) DO UPDATE SET
    name = excluded.name, kind = excluded.kind, status = excluded.status, attempt = excluded.attempt,
    started_at = excluded.started_at, ended_at = excluded.ended_at, wake_at = excluded.wake_at,
    "order" = excluded."order", topic = excluded.topic, "match" = excluded."match", cursor = excluded.cursor,
    child = excluded.child, failures = excluded.failures, error = excluded.error,
    output = excluded.output, call = excluded.call

-- name: step
SELECT * FROM steps WHERE run = $1 AND key = $2

-- name: open_steps
SELECT * FROM steps WHERE run = $1 AND status = 'running' ORDER BY n

-- name: steps
SELECT * FROM steps WHERE run = $1 ORDER BY n

-- name: step_page
SELECT * FROM steps WHERE run = $1 AND n > $2::bigint ORDER BY n LIMIT $3::bigint

-- name: last_step_page
SELECT * FROM (SELECT * FROM steps WHERE run = $1 AND n > $2::bigint ORDER BY n DESC LIMIT $3::bigint) AS last ORDER BY n

-- name: count_steps
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM steps WHERE run = $1 LIMIT $2::bigint) AS found),
    (SELECT count(*) FROM (SELECT 1 FROM steps WHERE run = $1 AND status = 'running' LIMIT $2::bigint) AS found)

-- name: open_step
SELECT * FROM steps WHERE run = $1 AND status = 'running' ORDER BY n DESC LIMIT 1

-- name: failed_step
SELECT * FROM steps WHERE run = $1 AND status = 'failed' ORDER BY n DESC LIMIT 1

-- name: successes
SELECT * FROM runs
WHERE (ended_at, seq) > ($2::float8, $3::bigint) AND job = $1 AND status = 'succeeded' AND seq NOT IN (
    SELECT cursor FROM steps
    WHERE run = $5 AND cursor IS NOT NULL AND status = 'succeeded'
        AND ($6::bigint IS NULL OR "order" < $6::bigint)
        AND (topic = 'job:' || $1 OR (topic >= 'job:' || $1 || '#' AND topic < 'job:' || $1 || '$'))
) ORDER BY ended_at, seq LIMIT $4::bigint

-- name: run_piece
SELECT substr(CASE $2 WHEN 'input' THEN input WHEN 'output' THEN output ELSE failures END, $3::int, $4::int)
FROM runs WHERE id = $1

-- name: step_piece
SELECT substr(CASE $3 WHEN 'output' THEN output ELSE failures END, $4::int, $5::int) FROM steps WHERE run = $1 AND key = $2

-- name: drop_steps
DELETE FROM steps WHERE run = $1 AND key = ANY($2::text[])

-- name: due_steps
SELECT s.* FROM steps AS s JOIN runs AS r ON r.id = s.run
WHERE s.status = 'running' AND s.wake_at <= $1::float8 AND (r.engine IS NULL OR r.engine = $2)
    AND r.status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
ORDER BY s.wake_at, s.n LIMIT $3::bigint
FOR NO KEY UPDATE OF r SKIP LOCKED

-- name: waiting_steps
SELECT * FROM steps WHERE topic = $1 AND status = 'running' ORDER BY n LIMIT $2::bigint

-- name: lock_runs
SELECT 1 FROM runs WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE

-- name: next_due
SELECT least(
    (
        SELECT wake_at FROM runs
        WHERE status = 'scheduled' AND wake_at IS NOT NULL AND (engine IS NULL OR engine = $1)
        ORDER BY wake_at LIMIT 1
    ),
    (
        SELECT deadline FROM runs
        WHERE deadline IS NOT NULL AND ended_at IS NULL
            AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
            AND (engine IS NULL OR engine = $1)
        ORDER BY deadline LIMIT 1
    ),
    (
        SELECT s.wake_at FROM steps AS s JOIN runs AS r ON r.id = s.run
        WHERE s.status = 'running' AND s.wake_at IS NOT NULL AND (r.engine IS NULL OR r.engine = $1)
            AND r.status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
        ORDER BY s.wake_at LIMIT 1
    )
)

-- name: add_event
INSERT INTO events (id, topic, at, data, input) VALUES ($1, $2, $3::float8, $4, $5) RETURNING seq

-- name: events
SELECT * FROM events WHERE topic = $1 AND at >= $2::float8 AND seq > $3::bigint AND seq NOT IN (
    SELECT cursor FROM steps
    WHERE run = $5 AND cursor IS NOT NULL AND status = 'succeeded'
        AND ($6::bigint IS NULL OR "order" < $6::bigint)
        AND (topic = $1 OR (topic >= $1 || '#' AND topic < $1 || '$'))
) ORDER BY seq LIMIT $4::bigint

-- name: drop_events
DELETE FROM events WHERE at < $1::float8

-- name: add_logs
INSERT INTO logs
SELECT * FROM json_populate_recordset(NULL::logs, $1::json)
ON CONFLICT (run, seq) DO NOTHING

-- name: logs
SELECT * FROM logs WHERE run = $1 AND seq > $2::bigint ORDER BY seq LIMIT $3::bigint

-- name: last_logs
SELECT * FROM (SELECT * FROM logs WHERE run = $1 AND seq > $2::bigint ORDER BY seq DESC LIMIT $3::bigint) AS last ORDER BY seq

-- name: log_blocks
SELECT min(seq), max(seq), count(*), sum(octet_length(text))::bigint FROM logs
WHERE run = $1 GROUP BY seq / $2::bigint ORDER BY 1

-- name: drop_logs
DELETE FROM logs WHERE run = $1 AND seq BETWEEN $2::bigint AND $3::bigint

-- name: last_log
SELECT max(seq) FROM logs WHERE run = $1

-- name: put_engine
INSERT INTO engines (id, name, lease_until, host, pid, leash) VALUES ($1, $2, $3::float8, $4, $5::bigint, $6)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, lease_until = excluded.lease_until, host = excluded.host,
    pid = excluded.pid, leash = excluded.leash

-- name: engine
SELECT * FROM engines WHERE id = $1 FOR KEY SHARE

-- name: engines
SELECT * FROM engines WHERE lease_until < $1::float8 ORDER BY id

-- name: drop_engine
DELETE FROM engines WHERE id = $1

-- name: get
SELECT value FROM facts WHERE key = $1

-- name: put_facts
INSERT INTO facts (key, value) SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: drop_facts
DELETE FROM facts WHERE key = ANY($1::text[])

-- name: facts
SELECT key, value FROM facts WHERE key >= $1 AND key < $1 || chr(1114111) ORDER BY key

-- name: bump_batch
WITH bumped AS (
    INSERT INTO batches AS b (writer, n) VALUES ($1, $2::bigint)
    ON CONFLICT (writer) DO UPDATE SET n = excluded.n, at = clock_timestamp() WHERE b.n < excluded.n
    RETURNING 1
)
SELECT 1 / count(*) FROM bumped

-- name: batch
SELECT coalesce(max(n), 0) FROM batches WHERE writer = $1

-- name: settle_batch
INSERT INTO batches AS b (writer, n) VALUES ($1, $3::bigint)
ON CONFLICT (writer) DO UPDATE SET n = CASE WHEN b.n = $2::bigint THEN b.n ELSE excluded.n END, at = clock_timestamp()
RETURNING n = $2::bigint

-- name: drop_batch
DELETE FROM batches WHERE writer = $1 OR at < clock_timestamp() - interval '30 days'

-- name: notify
SELECT pg_notify(channel, $2) FROM unnest($1::text[]) AS channel

-- The listing: the clauses that a filter sets, joined by AND.

-- name: runs
SELECT * FROM runs WHERE

-- name: runs_newest_first
ORDER BY seq DESC LIMIT

-- name: runs_oldest_first
ORDER BY seq LIMIT

-- name: runs_all
TRUE

-- name: runs_id
id = ?

-- name: runs_after
seq > ?::bigint

-- name: runs_job
job = ?

-- name: runs_parent
parent = ?

-- name: runs_roots
parent IS NULL

-- name: runs_not_under
(parent IS NULL OR parent NOT IN (SELECT id FROM runs WHERE job = ?))

-- name: runs_tag
tags IS NOT NULL AND tags::json ->> ? = coalesce(?, tags::json ->> ?)

-- name: runs_before
seq < ?::bigint

-- name: runs_since
created_at >= ?::float8

-- name: runs_until
ended_at < ?::float8

-- name: runs_status_any
status = ANY(?::text[])

-- name: runs_status_rare
status <> 'succeeded' AND status = ANY(?::text[])

-- name: runs_id_prefix
starts_with(id, ?)

-- name: runs_id_suffix
right(id, length(?)) = ?
