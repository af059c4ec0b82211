-- Named queries of the SQLite store: `-- name: NAME`, then one statement. `SELECT *` is in field order of the records,
-- which a test holds against the migrations.

-- name: add_run
INSERT INTO runs (
    id, job, created_at, parent, key, source, slot, retried_from, retry, priority, timeout,
    lane, lane_limit, lane_period, throttle, throttle_period, debounce, input,
    status, reason, attempt, engine, started_at, ended_at, wake_at, deadline, blocked, placed, cancel, pause,
    crashes, progress, failures, error, output, cause, cancel_cause, inherited, after, awaited, tags, name, secrets
) VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)

-- name: save_run
UPDATE runs SET
    status = ?, reason = ?, attempt = ?, engine = ?, started_at = ?, ended_at = ?, wake_at = ?, deadline = ?,
    blocked = ?, placed = ?, cancel = ?, pause = ?, crashes = ?, progress = ?, failures = ?, error = ?,
    output = coalesce(?, output), cause = ?, cancel_cause = ?, inherited = ?,
    after = ?, awaited = ?
WHERE id = ?

-- name: run
SELECT * FROM runs WHERE id = ?

-- name: oldest
SELECT min(created_at) FROM runs
WHERE status <> 'succeeded' AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')

-- name: run_by_key
SELECT * FROM runs WHERE job = ? AND key = ? ORDER BY seq DESC LIMIT 1

-- name: run_by_debounce
SELECT * FROM runs WHERE debounce = ? AND status = 'scheduled' ORDER BY seq DESC LIMIT 1

-- name: ready
SELECT r.* FROM json_each(?1) AS j CROSS JOIN runs AS r
WHERE r.seq IN (
    SELECT seq FROM runs
    WHERE job = j.value AND status = 'queued' AND blocked IS NULL AND (engine IS NULL OR engine = ?2)
        AND (?4 OR crashes = 0 OR cancel IS NOT NULL)
    ORDER BY cancel IS NULL, priority DESC, seq LIMIT ?3
)
ORDER BY r.cancel IS NULL, r.priority DESC, r.seq LIMIT ?3

-- name: any_ready
SELECT 1 FROM runs INDEXED BY runs_ready WHERE status = 'queued' AND blocked IS NULL LIMIT 1

-- name: owned
SELECT * FROM runs
WHERE status <> 'succeeded' AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused') AND engine = ?
ORDER BY seq

-- name: executing
SELECT id FROM runs WHERE status = 'running' AND engine = ? AND status <> 'succeeded'

-- name: asked
SELECT * FROM runs
WHERE engine IS ? AND (cancel IS NOT NULL OR pause IS NOT NULL)
    AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')

-- name: blocked_queues
SELECT DISTINCT blocked FROM runs WHERE status = 'queued' AND blocked IS NOT NULL

-- name: due_runs
SELECT r.* FROM (
    SELECT seq, min(due) AS due FROM (
        SELECT * FROM (
            SELECT seq, wake_at AS due FROM runs
            WHERE status = 'scheduled' AND wake_at <= ?1 AND (engine IS NULL OR engine = ?2)
            ORDER BY wake_at, seq LIMIT ?3
        )
        UNION ALL
        SELECT * FROM (
            SELECT seq, deadline AS due FROM runs
            WHERE deadline <= ?1 AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
                AND (engine IS NULL OR engine = ?2)
            ORDER BY deadline, seq LIMIT ?3
        )
    ) GROUP BY seq
) AS d CROSS JOIN runs AS r ON r.seq = d.seq
ORDER BY d.due, d.seq LIMIT ?3

-- name: placed
SELECT count(*) FROM runs WHERE lane = ? AND placed = 1

-- name: holders
SELECT * FROM runs WHERE lane = ? AND placed = 1 ORDER BY seq

-- name: blocked
SELECT * FROM runs WHERE blocked = ? AND status = 'queued' ORDER BY priority DESC, seq LIMIT ?

-- name: blocked_of_jobs
SELECT * FROM runs WHERE blocked = ? AND status = 'queued' AND job IN (SELECT value FROM json_each(?))
ORDER BY priority DESC, seq LIMIT ?

-- name: count_by_job
SELECT job, count(*) FROM runs GROUP BY job

-- name: count_by_status
SELECT +job, status, count(*) FROM runs INDEXED BY runs_active WHERE status <> 'succeeded' GROUP BY +job, status

-- name: count_children
SELECT count(*) FROM runs WHERE parent IS NOT NULL

-- name: drop_run
DELETE FROM runs WHERE id = ?

-- name: drop_steps_of_run
DELETE FROM steps WHERE run = ?

-- name: drop_logs_of_run
DELETE FROM logs WHERE run = ?

-- name: put_step
INSERT INTO steps (
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    failures, error, output, call
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, key) DO UPDATE SET
    name = excluded.name, kind = excluded.kind, status = excluded.status, attempt = excluded.attempt,
    started_at = excluded.started_at, ended_at = excluded.ended_at, wake_at = excluded.wake_at,
    "order" = excluded."order", topic = excluded.topic, "match" = excluded."match", cursor = excluded.cursor,
    child = excluded.child, failures = excluded.failures, error = excluded.error,
    output = excluded.output, call = excluded.call

-- name: step
SELECT * FROM steps WHERE run = ? AND key = ?

-- name: holds
SELECT EXISTS (
    SELECT 1 FROM runs
    WHERE id = ? AND engine = ? AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
)

-- name: open_steps
SELECT * FROM steps WHERE run = ? AND status = 'running' ORDER BY n

-- name: steps
SELECT * FROM steps WHERE run = ? ORDER BY n

-- name: step_page
SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    CASE WHEN length(failures) > 20000 THEN '…' || substr(failures, 1, 2100) ELSE failures END,
    CASE WHEN length(error) > 200000 THEN json_remove(error, '$.args') ELSE error END,
    CASE WHEN length(output) > 20000 THEN '…' || substr(output, 1, 2100) ELSE output END, call, n
FROM steps WHERE n IN (SELECT n FROM steps WHERE run = ? AND +n > ? ORDER BY n LIMIT ?) ORDER BY n

-- name: last_step_page
SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    CASE WHEN length(failures) > 20000 THEN '…' || substr(failures, 1, 2100) ELSE failures END,
    CASE WHEN length(error) > 200000 THEN json_remove(error, '$.args') ELSE error END,
    CASE WHEN length(output) > 20000 THEN '…' || substr(output, 1, 2100) ELSE output END, call, n
FROM steps WHERE n IN (SELECT n FROM steps WHERE run = ? AND +n > ? ORDER BY n DESC LIMIT ?) ORDER BY n

-- name: count_steps
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM steps WHERE run = ?1 LIMIT ?2)),
    (SELECT count(*) FROM (SELECT 1 FROM steps WHERE run = ?1 AND status = 'running' LIMIT ?2))

-- name: open_step
SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    CASE WHEN length(failures) > 20000 THEN '…' || substr(failures, 1, 2100) ELSE failures END,
    CASE WHEN length(error) > 200000 THEN json_remove(error, '$.args') ELSE error END,
    CASE WHEN length(output) > 20000 THEN '…' || substr(output, 1, 2100) ELSE output END, call, n
FROM steps WHERE run = ? AND status = 'running' ORDER BY n DESC LIMIT 1

-- name: failed_step
SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    CASE WHEN length(failures) > 20000 THEN '…' || substr(failures, 1, 2100) ELSE failures END,
    CASE WHEN length(error) > 200000 THEN json_remove(error, '$.args') ELSE error END,
    CASE WHEN length(output) > 20000 THEN '…' || substr(output, 1, 2100) ELSE output END, call, n
FROM steps WHERE run = ? AND status = 'failed' ORDER BY n DESC LIMIT 1

-- name: successes
SELECT * FROM runs
WHERE ended_at >= ?2 AND (ended_at, seq) > (?2, ?3) AND +job = ?1 AND status = 'succeeded' AND seq NOT IN (
    SELECT cursor FROM steps
    WHERE run = ?5 AND cursor IS NOT NULL AND status = 'succeeded' AND (?6 IS NULL OR "order" < ?6)
        AND (topic = 'job:' || ?1 OR (topic >= 'job:' || ?1 || '#' AND topic < 'job:' || ?1 || '$'))
) ORDER BY ended_at, seq LIMIT ?4

-- name: run_piece
SELECT substr(CASE ?2 WHEN 'input' THEN input WHEN 'output' THEN output ELSE failures END, ?3, ?4) FROM runs WHERE id = ?1

-- name: step_piece
SELECT substr(CASE ?3 WHEN 'output' THEN output ELSE failures END, ?4, ?5) FROM steps WHERE run = ?1 AND key = ?2

-- name: drop_step
DELETE FROM steps WHERE run = ? AND key = ?

-- name: due_steps
SELECT s.* FROM steps AS s CROSS JOIN runs AS r ON r.id = s.run
WHERE s.status = 'running' AND s.wake_at <= ?1 AND (r.engine IS NULL OR r.engine = ?2)
    AND r.status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
ORDER BY s.wake_at, s.n LIMIT ?3

-- name: waiting_steps
SELECT * FROM steps WHERE topic = ? AND status = 'running' ORDER BY n LIMIT ?

-- name: next_due
SELECT min(due) FROM (
    SELECT * FROM (
        SELECT wake_at AS due FROM runs
        WHERE status = 'scheduled' AND wake_at IS NOT NULL AND (engine IS NULL OR engine = ?1)
        ORDER BY wake_at LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT deadline AS due FROM runs
        WHERE deadline IS NOT NULL AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
            AND (engine IS NULL OR engine = ?1)
        ORDER BY deadline LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT s.wake_at AS due FROM steps AS s CROSS JOIN runs AS r ON r.id = s.run
        WHERE s.status = 'running' AND s.wake_at IS NOT NULL AND (r.engine IS NULL OR r.engine = ?1)
            AND r.status IN ('scheduled', 'queued', 'running', 'waiting', 'paused')
        ORDER BY s.wake_at LIMIT 1
    )
)

-- name: add_event
INSERT INTO events (id, topic, at, data, input) VALUES (?, ?, ?, ?, ?)

-- name: events_since
SELECT * FROM events WHERE seq IN (
    SELECT seq FROM events WHERE topic = ?1 AND at >= ?2 AND +seq > ?3 AND seq NOT IN (
        SELECT cursor FROM steps
        WHERE run = ?5 AND cursor IS NOT NULL AND status = 'succeeded' AND (?6 IS NULL OR "order" < ?6)
            AND (topic = ?1 OR (topic >= ?1 || '#' AND topic < ?1 || '$'))
    ) ORDER BY +seq LIMIT ?4
) ORDER BY seq

-- name: events_after
SELECT * FROM events WHERE topic = ?1 AND +at >= ?2 AND seq > ?3 AND seq NOT IN (
    SELECT cursor FROM steps
    WHERE run = ?5 AND cursor IS NOT NULL AND status = 'succeeded' AND (?6 IS NULL OR "order" < ?6)
        AND (topic = ?1 OR (topic >= ?1 || '#' AND topic < ?1 || '$'))
) ORDER BY seq LIMIT ?4

-- name: drop_events
DELETE FROM events WHERE topic IN (SELECT DISTINCT topic FROM events) AND at < ?

-- name: add_logs
INSERT INTO logs (run, seq, at, text, stream, step) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO NOTHING

-- name: logs
SELECT * FROM logs WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: last_logs
SELECT * FROM (SELECT * FROM logs WHERE run = ? AND seq > ? ORDER BY seq DESC LIMIT ?) ORDER BY seq

-- name: log_blocks
SELECT min(seq), max(seq), count(*), sum(length(CAST(text AS BLOB))) FROM logs
WHERE run = ? GROUP BY seq / ? ORDER BY 1

-- name: drop_logs
DELETE FROM logs WHERE run = ? AND seq BETWEEN ? AND ?

-- name: last_log
SELECT max(seq) FROM logs WHERE run = ?

-- name: put_engine
INSERT INTO engines (id, name, lease_until, host, pid, leash) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, lease_until = excluded.lease_until, host = excluded.host,
    pid = excluded.pid, leash = excluded.leash

-- name: engine
SELECT * FROM engines WHERE id = ?

-- name: engines
SELECT * FROM engines WHERE lease_until < ? ORDER BY id

-- name: drop_engine
DELETE FROM engines WHERE id = ?

-- name: get
SELECT value FROM facts WHERE key = ?

-- name: put
INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: unput
DELETE FROM facts WHERE key = ?

-- name: facts
SELECT key, value FROM facts WHERE key >= ?1 AND key < ?1 || char(1114111) ORDER BY key

-- name: bump_commits
UPDATE commits SET n = n + 1

-- name: bump_batch
INSERT INTO batches (writer, n) VALUES (?, ?) ON CONFLICT (writer) DO UPDATE SET n = excluded.n

-- name: batch
SELECT 1 FROM batches WHERE writer = ? AND n = ?

-- name: drop_batch
DELETE FROM batches WHERE writer = ?

-- name: commits
SELECT n FROM commits

-- The listing: the clauses that a filter sets, joined by AND. A clause of the form `seq IN (…)` makes the planner go
-- through the index named in it and never through all runs.

-- name: runs
SELECT * FROM runs WHERE

-- name: runs_brief
SELECT
    id, job, created_at, parent, key, source, slot, retried_from, retry, priority, timeout,
    lane, lane_limit, lane_period, throttle, throttle_period, debounce,
    CASE WHEN length(input) > 20000 THEN '…' || substr(input, 1, 2100) ELSE input END, seq,
    status, reason, attempt, engine, started_at, ended_at, wake_at, deadline, blocked, placed, cancel, pause,
    crashes, progress,
    CASE WHEN length(failures) > 20000 THEN '…' || substr(failures, 1, 2100) ELSE failures END,
    CASE WHEN length(error) > 200000 THEN json_remove(error, '$.args') ELSE error END,
    CASE WHEN length(output) > 20000 THEN '…' || substr(output, 1, 2100) ELSE output END,
    cause, cancel_cause, inherited, after, awaited, tags, name, secrets
FROM runs WHERE

-- name: runs_newest_first
ORDER BY seq DESC LIMIT ?

-- name: runs_oldest_first
ORDER BY seq LIMIT ?

-- name: runs_all
seq > 0

-- name: runs_id
id = ?

-- name: runs_after
seq > ?

-- name: runs_job
job = ?

-- name: runs_parent
parent = ?

-- name: runs_roots
parent IS NULL

-- name: runs_not_under
(parent IS NULL OR parent NOT IN (SELECT id FROM runs WHERE job = ?))

-- name: runs_tag
seq IN (
    SELECT r.seq FROM runs AS r, json_each(r.tags) AS t
    WHERE r.tags IS NOT NULL AND t.key = ? AND t.value = coalesce(?, t.value)
)

-- name: runs_before
seq < ?

-- name: runs_since
created_at >= ?

-- name: runs_until
seq IN (SELECT seq FROM runs WHERE ended_at < ?)

-- name: runs_status_any
status IN (SELECT value FROM json_each(?))

-- name: runs_status_rare
seq IN (SELECT seq FROM runs WHERE status <> 'succeeded' AND status IN (SELECT value FROM json_each(?)))

-- name: runs_id_prefix
id >= ? AND id < ? || char(1114111)

-- name: runs_id_suffix
seq IN (SELECT seq FROM runs WHERE substr(id, -length(?)) = ?)
