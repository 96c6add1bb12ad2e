-- Gaps that are older than what the source keeps of 20-second samples, and are asked for as roll-ups.

ALTER TABLE virt_collection_gap
    ADD COLUMN ask_after timestamptz,
    ADD COLUMN lane text NOT NULL DEFAULT 'ring' CHECK (lane IN ('ring', 'rollup')),
    ADD COLUMN to_interval_seconds smallint NOT NULL DEFAULT 20;
COMMENT ON COLUMN virt_collection_gap.ask_after IS 'The source is not asked before this time of its own clock: what comes late has come by then. NULL: it can be asked at once.';
COMMENT ON COLUMN virt_collection_gap.lane IS 'Which memory of the source an open gap waits for: ring (an hour of 20-second samples) or rollup (300-second roll-ups, for what the ring no longer holds).';
COMMENT ON COLUMN virt_collection_gap.to_interval_seconds IS 'interval_seconds of the row at to_time: it starts so long before its stamp.';

-- With rows of 20 and of 300 seconds side by side, half of the row's own interval is no measure any more: a roll-up
-- would hide seven samples. Neighbours touch within ten seconds, whatever their intervals.
CREATE OR REPLACE FUNCTION virt_chain_break(since timestamptz DEFAULT '-infinity', before timestamptz DEFAULT 'infinity')
RETURNS TABLE (
    problem text,
    entity_kind text,
    entity_id integer,
    from_time timestamptz,
    to_time timestamptz,
    gap_rows bigint
)
LANGUAGE sql STABLE
AS $$
WITH pair AS (
    SELECT 'host' AS kind, host_id AS id, collected_at, interval_seconds,
           lag(collected_at) OVER (PARTITION BY host_id ORDER BY collected_at) AS previous
    FROM virt_host_metrics
    WHERE collected_at >= since AND collected_at < before
    UNION ALL
    SELECT 'vm', vm_id, collected_at, interval_seconds,
           lag(collected_at) OVER (PARTITION BY vm_id ORDER BY collected_at)
    FROM virt_vm_metrics
    WHERE collected_at >= since AND collected_at < before
), joint AS (
    -- Seconds from the end of the row before to the start of the row's interval.
    SELECT kind, id, previous, collected_at,
           extract(epoch FROM collected_at - previous) - interval_seconds AS apart
    FROM pair
    WHERE previous IS NOT NULL
), step AS (
    SELECT joint.kind, joint.id, joint.previous, joint.collected_at, gap.overlapping, gap.spanning
    FROM joint
    CROSS JOIN LATERAL (
        SELECT count(*) AS overlapping,
               count(*) FILTER (WHERE g.from_time <= joint.previous AND g.to_time >= joint.collected_at) AS spanning
        FROM virt_collection_gap AS g
        WHERE g.entity_kind = joint.kind AND g.entity_id = joint.id
          AND g.from_time < joint.collected_at AND coalesce(g.to_time, 'infinity') > joint.previous
    ) AS gap
    WHERE joint.apart > 10
)
SELECT 'overlap', kind, id, previous, collected_at, 0::bigint
FROM joint
WHERE apart < -10
UNION ALL
SELECT CASE WHEN spanning = 0 THEN 'unexplained' ELSE 'explained more than once' END,
       kind, id, previous, collected_at, overlapping
FROM step
WHERE overlapping <> 1 OR spanning <> 1
UNION ALL
SELECT 'samples inside a gap', g.entity_kind, g.entity_id, g.from_time, g.to_time, 1
FROM virt_collection_gap AS g
WHERE (g.entity_kind = 'host' AND EXISTS (
          SELECT FROM virt_host_metrics AS m
          WHERE m.host_id = g.entity_id AND m.collected_at > g.from_time
            AND m.collected_at < coalesce(g.to_time, 'infinity')
            AND m.collected_at >= since AND m.collected_at < before))
   OR (g.entity_kind = 'vm' AND EXISTS (
          SELECT FROM virt_vm_metrics AS m
          WHERE m.vm_id = g.entity_id AND m.collected_at > g.from_time
            AND m.collected_at < coalesce(g.to_time, 'infinity')
            AND m.collected_at >= since AND m.collected_at < before))
$$;
COMMENT ON FUNCTION virt_chain_break(timestamptz, timestamptz) IS 'Where the chain of samples is broken, between two times: no rows means that every step of more than ten seconds between the end of one sample of an entity and the start of the next is spanned by exactly one gap row, that no intervals overlap, and that no sample lies inside a gap.';
