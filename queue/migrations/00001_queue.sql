-- Times are microseconds since 1970, 0 is none. Each sum is the CRC-32C of its row, see sum.go.
-- +goose Up
CREATE TABLE jobs (
    n            INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    state        TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    owner        TEXT    NOT NULL,
    priority     BIGINT  NOT NULL,
    not_before   BIGINT  NOT NULL,
    max_attempts BIGINT  NOT NULL,
    retry_of     TEXT    NOT NULL,
    idem_key     TEXT    NOT NULL,
    body_hash    TEXT    NOT NULL,
    attempt      BIGINT  NOT NULL,
    why          TEXT    NOT NULL,
    next_at      BIGINT  NOT NULL,
    cancel_by    TEXT    NOT NULL,
    created      BIGINT  NOT NULL,
    started      BIGINT  NOT NULL,
    changed      BIGINT  NOT NULL,
    ended        BIGINT  NOT NULL,
    outcome      TEXT    NOT NULL,
    swept        BIGINT  NOT NULL DEFAULT 0, -- 1: its feed and samples are gone
    sum          BIGINT  NOT NULL,
    nodes        TEXT    NOT NULL, -- JSON
    limits       TEXT    NOT NULL, -- JSON
    spec         BLOB    NOT NULL,
    final        BLOB    NOT NULL
);
CREATE UNIQUE INDEX jobs_key ON jobs (owner, idem_key) WHERE idem_key <> '';
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_owner ON jobs (owner, id);
CREATE INDEX jobs_kind ON jobs (kind, id);
CREATE INDEX jobs_ended ON jobs (swept, ended) WHERE ended > 0;

CREATE TABLE job_nodes (
    node TEXT NOT NULL,
    id   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (node, id)
) WITHOUT ROWID;
CREATE INDEX job_nodes_id ON job_nodes (id);

CREATE TABLE attempts (
    job     BIGINT NOT NULL REFERENCES jobs (n) ON DELETE CASCADE,
    number  BIGINT NOT NULL,
    started BIGINT NOT NULL,
    ended   BIGINT NOT NULL,
    outcome TEXT   NOT NULL,
    why     TEXT   NOT NULL,
    sum     BIGINT NOT NULL,
    info    BLOB   NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- The feeds. place is the job's n * 2^32 + the record's number, so that the lines of a feed lie side by side: as a primary
-- key of two columns they would cost an index, and without rowid a page for each line of more than 1,000 bytes.
-- The greatest number of a job is always there; line is NULL where it was deleted.
CREATE TABLE records (
    place INTEGER PRIMARY KEY,
    sum   BIGINT NOT NULL,
    line  BLOB
);

-- How far the records of each task have come: what is not above was stored before.
CREATE TABLE tasks (
    job  BIGINT NOT NULL REFERENCES jobs (n) ON DELETE CASCADE,
    task TEXT   NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (job, task)
) WITHOUT ROWID;

CREATE TABLE samples (
    job  BIGINT NOT NULL REFERENCES jobs (n) ON DELETE CASCADE,
    slot BIGINT NOT NULL, -- of ten seconds
    item TEXT   NOT NULL,
    at   BIGINT NOT NULL,
    line BLOB   NOT NULL,
    PRIMARY KEY (job, slot, item)
) WITHOUT ROWID;

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    at       BIGINT NOT NULL, -- milliseconds
    who      TEXT   NOT NULL,
    what     TEXT   NOT NULL,
    object   TEXT   NOT NULL,
    decision TEXT   NOT NULL,
    reason   TEXT   NOT NULL,
    prev     TEXT   NOT NULL,
    hash     TEXT   NOT NULL
);
-- +goose StatementBegin
CREATE TRIGGER audit_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_same BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd
