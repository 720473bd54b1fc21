-- So that an index can be made anew beside the live one: what has been asked for, and how far it has come.
CREATE TABLE etl.rebuild (
    kind text PRIMARY KEY,
    phase text NOT NULL DEFAULT 'requested'
        CHECK (phase IN ('requested', 'filling', 'switching', 'cancelled', 'failed')),
    index_name text NOT NULL,
    index_uuid text,
    mapping text,
    settings text,
    keep_old boolean NOT NULL,
    filled_to uuid,
    documents bigint NOT NULL DEFAULT 0,
    expected bigint NOT NULL DEFAULT 0,
    failure text,
    troubled_since timestamptz,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE etl.rebuild IS
    'A new index that is filled beside the live one, of the rows of this table (`kind`). The row is removed when the new index has taken the place of the live one.';
COMMENT ON COLUMN etl.rebuild.filled_to IS
    'The documents of all rows up to this id have been sent to the new index. NULL: none yet.';
COMMENT ON COLUMN etl.rebuild.troubled_since IS
    'Since when the new index takes nothing, although the live one does.';
COMMENT ON COLUMN etl.rebuild.settings IS
    'What the new index is to have once it is filled (JSON).';

-- What an index was made with tells what an operator has changed since.
ALTER TABLE etl.state
    ADD COLUMN settings text,
    ADD COLUMN is_loading boolean NOT NULL DEFAULT false,
    ADD COLUMN former_index text,
    ADD COLUMN retired_at timestamptz;
COMMENT ON COLUMN etl.state.former_index IS
    'The index that was live before a rebuild, until it is deleted: when no search can be at work in it any more.';
COMMENT ON COLUMN etl.state.settings IS
    'The replicas and the refresh interval that the index was made with (JSON). NULL: not known.';
COMMENT ON COLUMN etl.state.is_loading IS
    'The index is filled for the first time, without replicas and refresh; it gets its settings afterwards.';

-- For the look for work, which asks for each kind.
DROP INDEX etl.rejected_retry_at;
CREATE INDEX rejected_kind_retry_at ON etl.rejected (kind, retry_at);
