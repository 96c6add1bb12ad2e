-- What was known of an entity when a gap was found: the gap's reason, if the source turns out to have nothing there.

ALTER TABLE virt_collection_gap ADD COLUMN hint text
    CHECK (hint IN (
        'powered_off', 'suspended', 'host_disconnected', 'maintenance', 'removed', 'unreachable', 'no_permission',
        'not_published', 'expired', 'rollup_edge', 'clock_step', 'refused', 'poison'));
COMMENT ON COLUMN virt_collection_gap.hint IS 'What was known of the entity when the gap was found; becomes the reason if the source has nothing there. NULL: nothing.';

-- Which entities are silent is read with the watermarks, and looked up when one of them speaks again.
CREATE INDEX virt_collection_gap_silent ON virt_collection_gap (platform_id, entity_kind, entity_id)
    WHERE to_time IS NULL;

-- One list of gaps for people, with names.
CREATE VIEW virt_collection_gap_detail AS
SELECT platform.name AS platform,
       gap.entity_kind AS kind,
       coalesce(host.name, vm.name) AS name,
       gap.state,
       coalesce(gap.reason, gap.hint) AS reason,
       gap.from_time,
       gap.to_time,
       gap.attempts,
       gap.asked_at,
       gap.gap_id
FROM virt_collection_gap AS gap
JOIN virt_platform AS platform USING (platform_id)
LEFT JOIN virt_host AS host ON gap.entity_kind = 'host' AND host.host_id = gap.entity_id
LEFT JOIN virt_vm AS vm ON gap.entity_kind = 'vm' AND vm.vm_id = gap.entity_id;
COMMENT ON VIEW virt_collection_gap_detail IS 'Every gap row with the names of platform and entity.';
COMMENT ON COLUMN virt_collection_gap_detail.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_collection_gap_detail.kind IS 'host or vm.';
COMMENT ON COLUMN virt_collection_gap_detail.name IS 'Name of the host or VM.';
COMMENT ON COLUMN virt_collection_gap_detail.state IS 'open or explained.';
COMMENT ON COLUMN virt_collection_gap_detail.reason IS 'Why there are no samples; while open, what is known so far.';
COMMENT ON COLUMN virt_collection_gap_detail.from_time IS 'collected_at of the row before the gap.';
COMMENT ON COLUMN virt_collection_gap_detail.to_time IS 'collected_at of the row after the gap; NULL while there is none.';
COMMENT ON COLUMN virt_collection_gap_detail.attempts IS 'How often the source was asked in vain.';
COMMENT ON COLUMN virt_collection_gap_detail.asked_at IS 'When the source was last asked in vain.';
COMMENT ON COLUMN virt_collection_gap_detail.gap_id IS 'Key of the gap row.';

GRANT SELECT ON virt_collection_gap_detail TO virt_writer;
