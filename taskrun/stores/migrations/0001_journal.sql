-- Column order is field order of the records. Every index that a plain run never needs is partial: its life from
-- trigger to end must not pay for lanes, keys, timers or debounces that it does not use.

CREATE TABLE runs (
    id TEXT NOT NULL UNIQUE,
    job TEXT NOT NULL,
    created_at REAL NOT NULL,
    parent TEXT,
    key TEXT,
    source TEXT NOT NULL,
    slot REAL,
    retried_from TEXT,
    retry INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    timeout REAL,
    lane TEXT,
    lane_limit INTEGER,
    lane_period REAL,
    throttle TEXT,
    throttle_period REAL,
    debounce TEXT,
    input TEXT NOT NULL,
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL,
    reason TEXT,
    attempt INTEGER NOT NULL,
    engine TEXT,
    started_at REAL,
    ended_at REAL,
    wake_at REAL,
    deadline REAL,
    blocked TEXT,
    placed INTEGER NOT NULL,
    cancel TEXT,
    pause TEXT,
    crashes INTEGER NOT NULL,
    progress TEXT,
    failures TEXT,
    error TEXT,
    output TEXT
);

-- ready: one seek for each job, whatever else fills the queue
CREATE INDEX runs_ready ON runs (job, (cancel IS NULL), priority DESC, seq, engine)
    WHERE status = 'queued' AND blocked IS NULL;
CREATE INDEX runs_blocked ON runs (blocked, priority DESC, seq, job)
    WHERE status = 'queued' AND blocked IS NOT NULL;
CREATE INDEX runs_placed ON runs (lane)
    WHERE placed = 1 AND lane IS NOT NULL;
CREATE INDEX runs_wake ON runs (wake_at)
    WHERE status = 'scheduled' AND wake_at IS NOT NULL;
CREATE INDEX runs_deadline ON runs (deadline)
    WHERE deadline IS NOT NULL AND status IN ('scheduled', 'queued', 'running', 'waiting', 'paused');
-- owned, counts, listings by status; succeeded runs are the bulk, and are found by seq
CREATE INDEX runs_active ON runs (status, engine, job)
    WHERE status <> 'succeeded';
CREATE INDEX runs_job ON runs (job);
CREATE INDEX runs_ended ON runs (ended_at)
    WHERE ended_at IS NOT NULL;
CREATE INDEX runs_key ON runs (job, key)
    WHERE key IS NOT NULL;
CREATE INDEX runs_debounce ON runs (debounce)
    WHERE debounce IS NOT NULL AND status = 'scheduled';
CREATE INDEX runs_parent ON runs (parent)
    WHERE parent IS NOT NULL;

CREATE TABLE steps (
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
    n INTEGER PRIMARY KEY, -- order of the first put
    UNIQUE (run, key)
);

CREATE INDEX steps_open ON steps (run)
    WHERE status = 'running';
CREATE INDEX steps_wake ON steps (wake_at)
    WHERE status = 'running' AND wake_at IS NOT NULL;
CREATE INDEX steps_topic ON steps (topic)
    WHERE status = 'running' AND topic IS NOT NULL;

CREATE TABLE events (
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    at REAL NOT NULL,
    data TEXT NOT NULL,
    input TEXT,
    seq INTEGER PRIMARY KEY AUTOINCREMENT
);

-- A first look begins at a moment, a later one at a cursor: seqs and moments need not have the same order.
CREATE INDEX events_topic ON events (topic);
CREATE INDEX events_at ON events (topic, at);

CREATE TABLE logs (
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    text TEXT NOT NULL,
    stream TEXT NOT NULL,
    step TEXT,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;

CREATE TABLE engines (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    lease_until REAL NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    leash TEXT
) WITHOUT ROWID;

CREATE TABLE facts (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- The number of transactions that wrote: a journal that comes back with a lower one is missing some.
CREATE TABLE commits (n INTEGER NOT NULL);
INSERT INTO commits VALUES (0);

-- The number of the last batch of each writer: after a COMMIT that failed it tells whether that one was written.
CREATE TABLE batches (writer TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
