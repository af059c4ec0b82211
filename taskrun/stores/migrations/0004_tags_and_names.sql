-- Tags and names of runs, the runs that a run starts after, and what of its input nobody is shown.

ALTER TABLE runs ADD COLUMN after TEXT;
ALTER TABLE runs ADD COLUMN awaited INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tags TEXT;
ALTER TABLE runs ADD COLUMN name TEXT;
ALTER TABLE runs ADD COLUMN secrets TEXT;

CREATE INDEX runs_tagged ON runs (tags)
    WHERE tags IS NOT NULL;
