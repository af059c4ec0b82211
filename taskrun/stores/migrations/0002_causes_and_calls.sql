-- What decides is apart from what people read: `cause` and `cancel_cause` beside `reason` and `cancel`. Steps keep what they call.

ALTER TABLE runs ADD COLUMN cause TEXT;
ALTER TABLE runs ADD COLUMN cancel_cause TEXT;
ALTER TABLE runs ADD COLUMN inherited INTEGER;

UPDATE runs SET cause = reason
WHERE (status = 'scheduled' AND reason IN ('delay', 'debounce', 'throttle', 'backoff', 'retry'))
    OR (status = 'paused' AND reason IN ('exhausted', 'job'));
UPDATE runs SET cancel_cause = 'timeout' WHERE cancel = 'timeout' AND ended_at IS NULL;

CREATE INDEX runs_asked ON runs (engine)
    WHERE cancel IS NOT NULL OR pause IS NOT NULL;

CREATE TABLE new_steps (
    run TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    wake_at REAL,
    "order" INTEGER,
    topic TEXT,
    "match" TEXT,
    cursor INTEGER,
    child TEXT,
    failures TEXT,
    error TEXT,
    output TEXT,
    call TEXT,
    n INTEGER PRIMARY KEY, -- order of the first put
    UNIQUE (run, key)
);
INSERT INTO new_steps (
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    failures, error, output, n
) SELECT
    run, key, name, kind, status, attempt, started_at, ended_at, wake_at, "order", topic, "match", cursor, child,
    failures, error, output, n
FROM steps;
DROP TABLE steps;
ALTER TABLE new_steps RENAME TO steps;

CREATE INDEX steps_open ON steps (run)
    WHERE status = 'running';
CREATE INDEX steps_wake ON steps (wake_at)
    WHERE status = 'running' AND wake_at IS NOT NULL;
CREATE INDEX steps_topic ON steps (topic)
    WHERE status = 'running' AND topic IS NOT NULL;
CREATE INDEX steps_consumed ON steps (run)
    WHERE cursor IS NOT NULL;

-- A throttle keeps when it is over, so that what is over can be removed.
UPDATE facts SET value = '{"at":' || value || '}' WHERE key >= 'throttle:' AND key < 'throttle;';
UPDATE facts SET value = '{"topics":' || value || '}' WHERE key >= 'trigger:' AND key < 'trigger;';
UPDATE facts SET value = '"' || value || '"' WHERE key >= 'intent:' AND key < 'intent;';
