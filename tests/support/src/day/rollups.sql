-- The roll-ups of all samples, by plain SQL: what the daemon's refreshes come to after they have caught up. Buckets of
-- 5 minutes up to three minutes ago, as in a service at work, and hours and days that have ended.

DO $$
DECLARE
    kind text;
    entity text;
    measure text;
    source text;
    width interval;
    finer text;
    level text;
    weight text;
    unit text;
    fixed text;
    names text;
    sums text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['host', 'vm', 'datastore'] LOOP
        entity := kind || '_id';
        unit := CASE kind WHEN 'datastore' THEN 'samples' ELSE 'seconds' END;
        finer := NULL;
        FOREACH level IN ARRAY ARRAY['5m', '1h', '1d'] LOOP
            width := CASE level WHEN '5m' THEN '5 minutes' WHEN '1h' THEN '1 hour' ELSE '1 day' END;
            fixed := CASE kind WHEN 'datastore' THEN 'sample_count' ELSE 'covered_seconds, coarse_seconds' END;
            names := format('%I, collected_at, %s', entity, fixed);
            sums := CASE
                WHEN finer IS NOT NULL AND kind = 'datastore' THEN 'sum(sample_count)'
                WHEN finer IS NOT NULL THEN 'sum(covered_seconds), sum(coarse_seconds)'
                WHEN kind = 'datastore' THEN 'count(*)'
                ELSE 'sum(interval_seconds), coalesce(sum(interval_seconds) FILTER (WHERE interval_seconds = 300), 0)'
            END;
            weight := CASE kind WHEN 'datastore' THEN '1' ELSE 'interval_seconds' END;
            FOR measure IN
                SELECT regexp_replace(column_name, '_sum$', '')
                FROM information_schema.columns
                WHERE table_name = format('virt_%s_metrics_%s', kind, level) AND column_name LIKE '%\_sum'
                ORDER BY ordinal_position
            LOOP
                source := CASE measure
                    WHEN 'disk_latency_ms' THEN 'greatest(disk_read_latency_ms, disk_write_latency_ms)'
                    WHEN 'used_bytes' THEN '(capacity_bytes - free_bytes)'
                    ELSE measure
                END;
                names := names || format(', %1$s_sum, %1$s_%2$s, %1$s_max', measure, unit);
                sums := sums || CASE
                    WHEN finer IS NOT NULL
                        THEN format(', sum(%1$s_sum), sum(%1$s_%2$s), max(%1$s_max)', measure, unit)
                    ELSE format(', sum(%1$s::double precision * %2$s), '
                                'coalesce(sum(%2$s) FILTER (WHERE %1$s IS NOT NULL), 0), max(%1$s)', source, weight)
                END;
            END LOOP;
            EXECUTE format(
                'INSERT INTO virt_%1$s_metrics_%2$s (%3$s)
                 SELECT %4$I, bucket, %5$s
                 FROM (SELECT *, time_bucket(%6$L, collected_at + %6$L - INTERVAL ''1 microsecond'') AS bucket
                       FROM virt_%1$s_metrics%7$s) AS sample
                 WHERE bucket <= clock_timestamp() - INTERVAL ''3 minutes''
                 GROUP BY %4$I, bucket
                 ORDER BY bucket, %4$I',
                kind, level, names, entity, regexp_replace(sums, '^, ', ''), width, coalesce('_' || finer, ''));
            finer := level;
        END LOOP;
    END LOOP;
END
$$;

DELETE FROM virt_rollup_pending;
-- The bucket of just now: due in a minute.
INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level)
SELECT time_bucket('5 minutes', clock_timestamp() + INTERVAL '5 minutes'), clock_timestamp() + INTERVAL '1 minute',
       platform_id, kind, '5m'
FROM virt_platform, unnest(ARRAY['host', 'vm']) AS kind;

INSERT INTO virt_retention (relation, keep)
SELECT format('virt_%s_metrics%s', kind, suffix), keep
FROM unnest(ARRAY['host', 'vm', 'datastore']) AS kind,
     (VALUES ('', INTERVAL '30 days'), ('_5m', '180 days'), ('_1h', '730 days'), ('_1d', NULL)) AS level (suffix, keep)
ON CONFLICT (relation) DO NOTHING;
