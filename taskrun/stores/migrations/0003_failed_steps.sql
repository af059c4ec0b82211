-- Listings name the step that a run failed at without reading all of its steps.

CREATE INDEX steps_failed ON steps (run)
    WHERE status = 'failed';
