-- Which collectors run on this database: what the fair share of platforms is counted from.

CREATE TABLE virt_collector (
    owner text PRIMARY KEY,
    host_name text NOT NULL,
    platforms text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE virt_collector IS 'Collectors that run on this database, with platforms or without. One that stops removes its row; one that was killed leaves it for a day. Only the clock of the database counts.';
COMMENT ON COLUMN virt_collector.owner IS 'The collector, as in virt_platform_lease and in application_name: virt-collector/<owner>/<purpose>.';
COMMENT ON COLUMN virt_collector.host_name IS 'The machine it runs on.';
COMMENT ON COLUMN virt_collector.platforms IS 'Names of the platforms that its configuration lists: those that it can take.';
COMMENT ON COLUMN virt_collector.started_at IS 'When it first announced itself.';
COMMENT ON COLUMN virt_collector.until IS 'It counts as running until then, unless it announces itself again.';

GRANT SELECT, INSERT, UPDATE, DELETE ON virt_collector TO virt_writer;
