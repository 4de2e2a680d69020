-- The ledger: what was dropped, what jobs it became, what was tried and what came out.
-- Local disk only: WAL does not work over network filesystems.
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);

-- Always empty: what is put in and taken out again leaves free pages, for when the disk is full.
CREATE TABLE IF NOT EXISTS reserve (room BLOB);

CREATE TABLE IF NOT EXISTS drops (
    id TEXT PRIMARY KEY,
    relative BLOB NOT NULL,          -- bytes: file names need not be text
    state TEXT NOT NULL,
    mode TEXT NOT NULL,
    members TEXT NOT NULL,           -- JSON list of relative paths, surrogate escapes
    ino INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL DEFAULT '',
    claimed_at REAL NOT NULL,
    ended_at REAL,
    location TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS drops_by_relative ON drops (relative);
CREATE INDEX IF NOT EXISTS drops_by_state ON drops (state, id);

CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    drop_id TEXT NOT NULL REFERENCES drops (id),
    idx INTEGER NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,       -- 0 high, 1 normal, 2 low
    folder TEXT NOT NULL,
    stem TEXT NOT NULL,
    spec TEXT NOT NULL,
    source_name TEXT NOT NULL, source_sha256 TEXT NOT NULL, source_bytes INTEGER NOT NULL,
    submitted_at REAL NOT NULL, started_at REAL, ended_at REAL,
    worker TEXT, heartbeat_at REAL,     -- heartbeat: monotonic seconds, so that clock jumps kill nobody
    stage TEXT NOT NULL DEFAULT '', done_chunks INTEGER NOT NULL DEFAULT 0, total_chunks INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,  -- the machine was at fault: not again before this moment
    error_code TEXT, error_message TEXT, error_hint TEXT
);
CREATE INDEX IF NOT EXISTS jobs_to_do ON jobs (state, priority, submitted_at, idx);
CREATE INDEX IF NOT EXISTS jobs_to_cancel ON jobs (id) WHERE state = 'queued' AND cancel_requested = 1;
CREATE INDEX IF NOT EXISTS jobs_by_drop ON jobs (drop_id);
CREATE INDEX IF NOT EXISTS jobs_running_by_name ON jobs (folder, stem) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS jobs_queued_by_name ON jobs (folder, stem, submitted_at) WHERE state = 'queued';

CREATE TABLE IF NOT EXISTS attempts (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT,                    -- done failed cancelled interrupted environment died lost; NULL while it runs
    PRIMARY KEY (job_id, number)
);
CREATE INDEX IF NOT EXISTS attempts_by_outcome ON attempts (outcome);

-- One row for each name in the outbox that is ours: planned when the job is claimed, filled when published.
CREATE TABLE IF NOT EXISTS results (
    folder TEXT NOT NULL,
    stem_key TEXT PRIMARY KEY,       -- folder and stem, folded: what a case-blind disk would call the same
    stem TEXT NOT NULL,
    source BLOB NOT NULL,            -- relative path of the drop
    idx INTEGER NOT NULL,            -- which of its jobs
    job_id TEXT NOT NULL,
    files TEXT NOT NULL DEFAULT '[]',  -- JSON: name, bytes, mtime_ns, sha256
    published_at REAL
);
CREATE INDEX IF NOT EXISTS results_by_job ON results (job_id);

-- What went wrong, by code: the last ten of each, and how many there ever were.
CREATE TABLE IF NOT EXISTS faults (
    code TEXT NOT NULL,
    number INTEGER NOT NULL,         -- how many of this code there had been when this was the last
    times INTEGER NOT NULL,          -- equal ones in a row
    at REAL NOT NULL, file TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (code, number)
);

-- Sums that only grow.
CREATE TABLE IF NOT EXISTS tallies (what TEXT PRIMARY KEY, sum REAL NOT NULL);
