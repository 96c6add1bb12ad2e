-- Roll-ups: what months of samples come to, by 5 minutes, hour and day.
--
-- A bucket holds the samples whose stamp lies in (collected_at - width, collected_at]: stamps are ends of intervals, so
-- the bucket of 10:05 covers what happened from 10:00 to 10:05, as vCenter's own roll-ups do. Days are those of UTC.
-- Buckets of 5 minutes are made from samples, those of an hour from 5 minutes, those of a day from hours.
--
-- Per measure: the sum of value x seconds, the seconds of samples that had a value, the maximum. So every average is
-- one over time, whatever the length of the samples, and coarser buckets are sums of finer ones. 8-byte columns first.

CREATE TABLE virt_host_metrics_5m (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    power_watts_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    host_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    power_watts_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer,
    power_watts_max integer
);
SELECT create_hypertable('virt_host_metrics_5m', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_host_metrics_5m_key ON virt_host_metrics_5m (host_id, collected_at);
CREATE INDEX virt_host_metrics_5m_time ON virt_host_metrics_5m USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_host_metrics_5m
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_host_metrics_5m IS 'Samples of hosts by 5 minutes, as sums; virt_host_5m shows averages.';
COMMENT ON COLUMN virt_host_metrics_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.power_watts_sum IS 'Sum of power_watts x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_metrics_5m.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_host_metrics_5m.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_host_metrics_5m.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_host_metrics_5m.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_host_metrics_5m.power_watts_seconds IS 'Seconds of samples that had power_watts.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_host_metrics_5m.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_5m.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_5m.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_host_metrics_5m.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_5m.power_watts_max IS 'Its maximum; watts.';

CREATE VIEW virt_host_5m AS
SELECT collected_at,
       host_id,
       300 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max,
       power_watts_sum / nullif(power_watts_seconds, 0) AS power_watts,
       power_watts_max
FROM virt_host_metrics_5m;
COMMENT ON VIEW virt_host_5m IS 'Averages over time and maxima of hosts by 5 minutes.';
COMMENT ON COLUMN virt_host_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_host_5m.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_5m.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_host_5m.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_host_5m.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_5m.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_5m.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_5m.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_host_5m.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_host_5m.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_5m.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_5m.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_5m.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_5m.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_host_5m.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_host_5m.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_5m.power_watts IS 'Average; watts.';
COMMENT ON COLUMN virt_host_5m.power_watts_max IS 'Maximum; watts.';

CREATE TABLE virt_host_metrics_1h (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    power_watts_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    host_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    power_watts_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer,
    power_watts_max integer
);
SELECT create_hypertable('virt_host_metrics_1h', 'collected_at',
                         chunk_time_interval => INTERVAL '7 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_host_metrics_1h_key ON virt_host_metrics_1h (host_id, collected_at);
CREATE INDEX virt_host_metrics_1h_time ON virt_host_metrics_1h USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_host_metrics_1h
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_host_metrics_1h IS 'Samples of hosts by 1 hour, as sums; virt_host_1h shows averages.';
COMMENT ON COLUMN virt_host_metrics_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.power_watts_sum IS 'Sum of power_watts x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_metrics_1h.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_host_metrics_1h.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_host_metrics_1h.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_host_metrics_1h.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_host_metrics_1h.power_watts_seconds IS 'Seconds of samples that had power_watts.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_host_metrics_1h.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1h.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1h.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_host_metrics_1h.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1h.power_watts_max IS 'Its maximum; watts.';

CREATE VIEW virt_host_1h AS
SELECT collected_at,
       host_id,
       3600 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max,
       power_watts_sum / nullif(power_watts_seconds, 0) AS power_watts,
       power_watts_max
FROM virt_host_metrics_1h;
COMMENT ON VIEW virt_host_1h IS 'Averages over time and maxima of hosts by 1 hour.';
COMMENT ON COLUMN virt_host_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_host_1h.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_1h.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_host_1h.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_host_1h.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_1h.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1h.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1h.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_host_1h.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_host_1h.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1h.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1h.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1h.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1h.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_host_1h.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_host_1h.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1h.power_watts IS 'Average; watts.';
COMMENT ON COLUMN virt_host_1h.power_watts_max IS 'Maximum; watts.';

CREATE TABLE virt_host_metrics_1d (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    power_watts_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    host_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    power_watts_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer,
    power_watts_max integer
);
SELECT create_hypertable('virt_host_metrics_1d', 'collected_at',
                         chunk_time_interval => INTERVAL '90 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_host_metrics_1d_key ON virt_host_metrics_1d (host_id, collected_at);
CREATE INDEX virt_host_metrics_1d_time ON virt_host_metrics_1d USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_host_metrics_1d
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_host_metrics_1d IS 'Samples of hosts by 1 day, as sums; virt_host_1d shows averages.';
COMMENT ON COLUMN virt_host_metrics_1d.collected_at IS 'End of the bucket, midnight UTC, in the clock of the platform.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.power_watts_sum IS 'Sum of power_watts x seconds over the samples that had one.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_metrics_1d.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_host_metrics_1d.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_host_metrics_1d.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_host_metrics_1d.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_host_metrics_1d.power_watts_seconds IS 'Seconds of samples that had power_watts.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_host_metrics_1d.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1d.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_host_metrics_1d.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_host_metrics_1d.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_metrics_1d.power_watts_max IS 'Its maximum; watts.';

CREATE VIEW virt_host_1d AS
SELECT collected_at,
       host_id,
       86400 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max,
       power_watts_sum / nullif(power_watts_seconds, 0) AS power_watts,
       power_watts_max
FROM virt_host_metrics_1d;
COMMENT ON VIEW virt_host_1d IS 'Averages over time and maxima of hosts by 1 day.';
COMMENT ON COLUMN virt_host_1d.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_host_1d.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_1d.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_host_1d.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_host_1d.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_host_1d.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1d.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1d.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_host_1d.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_host_1d.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1d.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1d.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_host_1d.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_host_1d.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_host_1d.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_host_1d.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_host_1d.power_watts IS 'Average; watts.';
COMMENT ON COLUMN virt_host_1d.power_watts_max IS 'Maximum; watts.';

CREATE TABLE virt_vm_metrics_5m (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    cpu_costop_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    vm_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    cpu_costop_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    cpu_costop_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer
);
SELECT create_hypertable('virt_vm_metrics_5m', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_vm_metrics_5m_key ON virt_vm_metrics_5m (vm_id, collected_at);
CREATE INDEX virt_vm_metrics_5m_time ON virt_vm_metrics_5m USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_vm_metrics_5m
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_vm_metrics_5m IS 'Samples of VMs by 5 minutes, as sums; virt_vm_5m shows averages.';
COMMENT ON COLUMN virt_vm_metrics_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_costop_percent_sum IS 'Sum of cpu_costop_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_5m.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_metrics_5m.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_vm_metrics_5m.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_costop_percent_seconds IS 'Seconds of samples that had cpu_costop_percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_vm_metrics_5m.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_5m.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.cpu_costop_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_5m.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_metrics_5m.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_5m.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';

CREATE VIEW virt_vm_5m AS
SELECT collected_at,
       vm_id,
       300 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       cpu_costop_percent_sum / nullif(cpu_costop_percent_seconds, 0) AS cpu_costop_percent,
       cpu_costop_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max
FROM virt_vm_metrics_5m;
COMMENT ON VIEW virt_vm_5m IS 'Averages over time and maxima of VMs by 5 minutes.';
COMMENT ON COLUMN virt_vm_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_5m.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_5m.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_vm_5m.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_vm_5m.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_5m.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_5m.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_5m.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_vm_5m.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_vm_5m.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_5m.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_5m.cpu_costop_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_5m.cpu_costop_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_5m.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_5m.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_5m.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_vm_5m.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_5m.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_5m.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';

CREATE TABLE virt_vm_metrics_1h (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    cpu_costop_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    vm_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    cpu_costop_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    cpu_costop_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer
);
SELECT create_hypertable('virt_vm_metrics_1h', 'collected_at',
                         chunk_time_interval => INTERVAL '7 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_vm_metrics_1h_key ON virt_vm_metrics_1h (vm_id, collected_at);
CREATE INDEX virt_vm_metrics_1h_time ON virt_vm_metrics_1h USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_vm_metrics_1h
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_vm_metrics_1h IS 'Samples of VMs by 1 hour, as sums; virt_vm_1h shows averages.';
COMMENT ON COLUMN virt_vm_metrics_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_costop_percent_sum IS 'Sum of cpu_costop_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1h.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_metrics_1h.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_vm_metrics_1h.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_costop_percent_seconds IS 'Seconds of samples that had cpu_costop_percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_vm_metrics_1h.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1h.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.cpu_costop_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1h.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_metrics_1h.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1h.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';

CREATE VIEW virt_vm_1h AS
SELECT collected_at,
       vm_id,
       3600 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       cpu_costop_percent_sum / nullif(cpu_costop_percent_seconds, 0) AS cpu_costop_percent,
       cpu_costop_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max
FROM virt_vm_metrics_1h;
COMMENT ON VIEW virt_vm_1h IS 'Averages over time and maxima of VMs by 1 hour.';
COMMENT ON COLUMN virt_vm_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_1h.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_1h.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_vm_1h.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_vm_1h.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_1h.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1h.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1h.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_vm_1h.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_vm_1h.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1h.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1h.cpu_costop_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1h.cpu_costop_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1h.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1h.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1h.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_vm_1h.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_1h.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1h.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';

CREATE TABLE virt_vm_metrics_1d (
    collected_at timestamptz NOT NULL,
    cpu_usage_percent_sum double precision,
    cpu_usage_mhz_sum double precision,
    cpu_ready_percent_sum double precision,
    cpu_costop_percent_sum double precision,
    memory_usage_percent_sum double precision,
    memory_consumed_kib_sum double precision,
    memory_active_kib_sum double precision,
    disk_read_kibps_sum double precision,
    disk_write_kibps_sum double precision,
    disk_latency_ms_sum double precision,
    network_rx_kibps_sum double precision,
    network_tx_kibps_sum double precision,
    memory_consumed_kib_max bigint,
    memory_active_kib_max bigint,
    vm_id integer NOT NULL,
    covered_seconds integer NOT NULL,
    coarse_seconds integer NOT NULL,
    cpu_usage_percent_seconds integer NOT NULL,
    cpu_usage_mhz_seconds integer NOT NULL,
    cpu_ready_percent_seconds integer NOT NULL,
    cpu_costop_percent_seconds integer NOT NULL,
    memory_usage_percent_seconds integer NOT NULL,
    memory_consumed_kib_seconds integer NOT NULL,
    memory_active_kib_seconds integer NOT NULL,
    disk_read_kibps_seconds integer NOT NULL,
    disk_write_kibps_seconds integer NOT NULL,
    disk_latency_ms_seconds integer NOT NULL,
    network_rx_kibps_seconds integer NOT NULL,
    network_tx_kibps_seconds integer NOT NULL,
    cpu_usage_percent_max real,
    cpu_usage_mhz_max integer,
    cpu_ready_percent_max real,
    cpu_costop_percent_max real,
    memory_usage_percent_max real,
    disk_read_kibps_max integer,
    disk_write_kibps_max integer,
    disk_latency_ms_max real,
    network_rx_kibps_max integer,
    network_tx_kibps_max integer
);
SELECT create_hypertable('virt_vm_metrics_1d', 'collected_at',
                         chunk_time_interval => INTERVAL '90 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_vm_metrics_1d_key ON virt_vm_metrics_1d (vm_id, collected_at);
CREATE INDEX virt_vm_metrics_1d_time ON virt_vm_metrics_1d USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_vm_metrics_1d
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_vm_metrics_1d IS 'Samples of VMs by 1 day, as sums; virt_vm_1d shows averages.';
COMMENT ON COLUMN virt_vm_metrics_1d.collected_at IS 'End of the bucket, midnight UTC, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_percent_sum IS 'Sum of cpu_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_mhz_sum IS 'Sum of cpu_usage_mhz x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_ready_percent_sum IS 'Sum of cpu_ready_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_costop_percent_sum IS 'Sum of cpu_costop_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_usage_percent_sum IS 'Sum of memory_usage_percent x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_consumed_kib_sum IS 'Sum of memory_consumed_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_active_kib_sum IS 'Sum of memory_active_kib x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_read_kibps_sum IS 'Sum of disk_read_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_write_kibps_sum IS 'Sum of disk_write_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_latency_ms_sum IS 'Sum of disk_latency_ms x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.network_rx_kibps_sum IS 'Sum of network_rx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.network_tx_kibps_sum IS 'Sum of network_tx_kibps x seconds over the samples that had one.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_consumed_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_active_kib_max IS 'Its maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1d.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_metrics_1d.covered_seconds IS 'Seconds of the bucket that samples cover.';
COMMENT ON COLUMN virt_vm_metrics_1d.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_percent_seconds IS 'Seconds of samples that had cpu_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_mhz_seconds IS 'Seconds of samples that had cpu_usage_mhz.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_ready_percent_seconds IS 'Seconds of samples that had cpu_ready_percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_costop_percent_seconds IS 'Seconds of samples that had cpu_costop_percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_usage_percent_seconds IS 'Seconds of samples that had memory_usage_percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_consumed_kib_seconds IS 'Seconds of samples that had memory_consumed_kib.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_active_kib_seconds IS 'Seconds of samples that had memory_active_kib.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_read_kibps_seconds IS 'Seconds of samples that had disk_read_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_write_kibps_seconds IS 'Seconds of samples that had disk_write_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_latency_ms_seconds IS 'Seconds of samples that had disk_latency_ms.';
COMMENT ON COLUMN virt_vm_metrics_1d.network_rx_kibps_seconds IS 'Seconds of samples that had network_rx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1d.network_tx_kibps_seconds IS 'Seconds of samples that had network_tx_kibps.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_usage_mhz_max IS 'Its maximum; MHz.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_ready_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.cpu_costop_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.memory_usage_percent_max IS 'Its maximum; percent.';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_read_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_write_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1d.disk_latency_ms_max IS 'Its maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_metrics_1d.network_rx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_metrics_1d.network_tx_kibps_max IS 'Its maximum; KiB per second (1,024 bytes).';

CREATE VIEW virt_vm_1d AS
SELECT collected_at,
       vm_id,
       86400 AS interval_seconds,
       covered_seconds,
       coarse_seconds,
       cpu_usage_percent_sum / nullif(cpu_usage_percent_seconds, 0) AS cpu_usage_percent,
       cpu_usage_percent_max,
       cpu_usage_mhz_sum / nullif(cpu_usage_mhz_seconds, 0) AS cpu_usage_mhz,
       cpu_usage_mhz_max,
       cpu_ready_percent_sum / nullif(cpu_ready_percent_seconds, 0) AS cpu_ready_percent,
       cpu_ready_percent_max,
       cpu_costop_percent_sum / nullif(cpu_costop_percent_seconds, 0) AS cpu_costop_percent,
       cpu_costop_percent_max,
       memory_usage_percent_sum / nullif(memory_usage_percent_seconds, 0) AS memory_usage_percent,
       memory_usage_percent_max,
       memory_consumed_kib_sum / nullif(memory_consumed_kib_seconds, 0) AS memory_consumed_kib,
       memory_consumed_kib_max,
       memory_active_kib_sum / nullif(memory_active_kib_seconds, 0) AS memory_active_kib,
       memory_active_kib_max,
       disk_read_kibps_sum / nullif(disk_read_kibps_seconds, 0) AS disk_read_kibps,
       disk_read_kibps_max,
       disk_write_kibps_sum / nullif(disk_write_kibps_seconds, 0) AS disk_write_kibps,
       disk_write_kibps_max,
       disk_latency_ms_sum / nullif(disk_latency_ms_seconds, 0) AS disk_latency_ms,
       disk_latency_ms_max,
       network_rx_kibps_sum / nullif(network_rx_kibps_seconds, 0) AS network_rx_kibps,
       network_rx_kibps_max,
       network_tx_kibps_sum / nullif(network_tx_kibps_seconds, 0) AS network_tx_kibps,
       network_tx_kibps_max
FROM virt_vm_metrics_1d;
COMMENT ON VIEW virt_vm_1d IS 'Averages over time and maxima of VMs by 1 day.';
COMMENT ON COLUMN virt_vm_1d.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_1d.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_1d.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_vm_1d.covered_seconds IS 'Seconds of it that samples cover.';
COMMENT ON COLUMN virt_vm_1d.coarse_seconds IS 'Of these, seconds from 300-second samples.';
COMMENT ON COLUMN virt_vm_1d.cpu_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1d.cpu_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1d.cpu_usage_mhz IS 'Average; MHz.';
COMMENT ON COLUMN virt_vm_1d.cpu_usage_mhz_max IS 'Maximum; MHz.';
COMMENT ON COLUMN virt_vm_1d.cpu_ready_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1d.cpu_ready_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1d.cpu_costop_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1d.cpu_costop_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1d.memory_usage_percent IS 'Average; percent.';
COMMENT ON COLUMN virt_vm_1d.memory_usage_percent_max IS 'Maximum; percent.';
COMMENT ON COLUMN virt_vm_1d.memory_consumed_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.memory_consumed_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.memory_active_kib IS 'Average; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.memory_active_kib_max IS 'Maximum; KiB (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.disk_read_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.disk_read_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.disk_write_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.disk_write_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.disk_latency_ms IS 'Average; milliseconds.';
COMMENT ON COLUMN virt_vm_1d.disk_latency_ms_max IS 'Maximum; milliseconds.';
COMMENT ON COLUMN virt_vm_1d.network_rx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.network_rx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.network_tx_kibps IS 'Average; KiB per second (1,024 bytes).';
COMMENT ON COLUMN virt_vm_1d.network_tx_kibps_max IS 'Maximum; KiB per second (1,024 bytes).';

CREATE TABLE virt_datastore_metrics_5m (
    collected_at timestamptz NOT NULL,
    capacity_bytes_sum double precision,
    used_bytes_sum double precision,
    uncommitted_bytes_sum double precision,
    capacity_bytes_max bigint,
    used_bytes_max bigint,
    uncommitted_bytes_max bigint,
    datastore_id integer NOT NULL,
    sample_count integer NOT NULL,
    capacity_bytes_samples integer NOT NULL,
    used_bytes_samples integer NOT NULL,
    uncommitted_bytes_samples integer NOT NULL
);
SELECT create_hypertable('virt_datastore_metrics_5m', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_datastore_metrics_5m_key ON virt_datastore_metrics_5m (datastore_id, collected_at);
CREATE INDEX virt_datastore_metrics_5m_time ON virt_datastore_metrics_5m USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_datastore_metrics_5m
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_datastore_metrics_5m IS 'Samples of datastores by 5 minutes, as sums; virt_datastore_5m shows averages.';
COMMENT ON COLUMN virt_datastore_metrics_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_metrics_5m.capacity_bytes_sum IS 'Sum of capacity_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_5m.used_bytes_sum IS 'Sum of used_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_5m.uncommitted_bytes_sum IS 'Sum of uncommitted_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_5m.capacity_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_5m.used_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_5m.uncommitted_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_5m.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_metrics_5m.sample_count IS 'Samples in the bucket.';
COMMENT ON COLUMN virt_datastore_metrics_5m.capacity_bytes_samples IS 'Samples that had capacity_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_5m.used_bytes_samples IS 'Samples that had used_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_5m.uncommitted_bytes_samples IS 'Samples that had uncommitted_bytes.';

CREATE VIEW virt_datastore_5m AS
SELECT collected_at,
       datastore_id,
       300 AS interval_seconds,
       sample_count,
       capacity_bytes_sum / nullif(capacity_bytes_samples, 0) AS capacity_bytes,
       capacity_bytes_max,
       used_bytes_sum / nullif(used_bytes_samples, 0) AS used_bytes,
       used_bytes_max,
       uncommitted_bytes_sum / nullif(uncommitted_bytes_samples, 0) AS uncommitted_bytes,
       uncommitted_bytes_max
FROM virt_datastore_metrics_5m;
COMMENT ON VIEW virt_datastore_5m IS 'Averages over time and maxima of datastores by 5 minutes.';
COMMENT ON COLUMN virt_datastore_5m.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_5m.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_5m.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_datastore_5m.sample_count IS 'Samples in it.';
COMMENT ON COLUMN virt_datastore_5m.capacity_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_5m.capacity_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_5m.used_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_5m.used_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_5m.uncommitted_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_5m.uncommitted_bytes_max IS 'Maximum; bytes.';

CREATE TABLE virt_datastore_metrics_1h (
    collected_at timestamptz NOT NULL,
    capacity_bytes_sum double precision,
    used_bytes_sum double precision,
    uncommitted_bytes_sum double precision,
    capacity_bytes_max bigint,
    used_bytes_max bigint,
    uncommitted_bytes_max bigint,
    datastore_id integer NOT NULL,
    sample_count integer NOT NULL,
    capacity_bytes_samples integer NOT NULL,
    used_bytes_samples integer NOT NULL,
    uncommitted_bytes_samples integer NOT NULL
);
SELECT create_hypertable('virt_datastore_metrics_1h', 'collected_at',
                         chunk_time_interval => INTERVAL '7 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_datastore_metrics_1h_key ON virt_datastore_metrics_1h (datastore_id, collected_at);
CREATE INDEX virt_datastore_metrics_1h_time ON virt_datastore_metrics_1h USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_datastore_metrics_1h
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_datastore_metrics_1h IS 'Samples of datastores by 1 hour, as sums; virt_datastore_1h shows averages.';
COMMENT ON COLUMN virt_datastore_metrics_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_metrics_1h.capacity_bytes_sum IS 'Sum of capacity_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1h.used_bytes_sum IS 'Sum of used_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1h.uncommitted_bytes_sum IS 'Sum of uncommitted_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1h.capacity_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1h.used_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1h.uncommitted_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1h.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_metrics_1h.sample_count IS 'Samples in the bucket.';
COMMENT ON COLUMN virt_datastore_metrics_1h.capacity_bytes_samples IS 'Samples that had capacity_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1h.used_bytes_samples IS 'Samples that had used_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1h.uncommitted_bytes_samples IS 'Samples that had uncommitted_bytes.';

CREATE VIEW virt_datastore_1h AS
SELECT collected_at,
       datastore_id,
       3600 AS interval_seconds,
       sample_count,
       capacity_bytes_sum / nullif(capacity_bytes_samples, 0) AS capacity_bytes,
       capacity_bytes_max,
       used_bytes_sum / nullif(used_bytes_samples, 0) AS used_bytes,
       used_bytes_max,
       uncommitted_bytes_sum / nullif(uncommitted_bytes_samples, 0) AS uncommitted_bytes,
       uncommitted_bytes_max
FROM virt_datastore_metrics_1h;
COMMENT ON VIEW virt_datastore_1h IS 'Averages over time and maxima of datastores by 1 hour.';
COMMENT ON COLUMN virt_datastore_1h.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_1h.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_1h.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_datastore_1h.sample_count IS 'Samples in it.';
COMMENT ON COLUMN virt_datastore_1h.capacity_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1h.capacity_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_1h.used_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1h.used_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_1h.uncommitted_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1h.uncommitted_bytes_max IS 'Maximum; bytes.';

CREATE TABLE virt_datastore_metrics_1d (
    collected_at timestamptz NOT NULL,
    capacity_bytes_sum double precision,
    used_bytes_sum double precision,
    uncommitted_bytes_sum double precision,
    capacity_bytes_max bigint,
    used_bytes_max bigint,
    uncommitted_bytes_max bigint,
    datastore_id integer NOT NULL,
    sample_count integer NOT NULL,
    capacity_bytes_samples integer NOT NULL,
    used_bytes_samples integer NOT NULL,
    uncommitted_bytes_samples integer NOT NULL
);
SELECT create_hypertable('virt_datastore_metrics_1d', 'collected_at',
                         chunk_time_interval => INTERVAL '90 days', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_datastore_metrics_1d_key ON virt_datastore_metrics_1d (datastore_id, collected_at);
CREATE INDEX virt_datastore_metrics_1d_time ON virt_datastore_metrics_1d USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_datastore_metrics_1d
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_datastore_metrics_1d IS 'Samples of datastores by 1 day, as sums; virt_datastore_1d shows averages.';
COMMENT ON COLUMN virt_datastore_metrics_1d.collected_at IS 'End of the bucket, midnight UTC, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_metrics_1d.capacity_bytes_sum IS 'Sum of capacity_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1d.used_bytes_sum IS 'Sum of used_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1d.uncommitted_bytes_sum IS 'Sum of uncommitted_bytes over the samples that had one.';
COMMENT ON COLUMN virt_datastore_metrics_1d.capacity_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1d.used_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1d.uncommitted_bytes_max IS 'Its maximum; bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1d.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_metrics_1d.sample_count IS 'Samples in the bucket.';
COMMENT ON COLUMN virt_datastore_metrics_1d.capacity_bytes_samples IS 'Samples that had capacity_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1d.used_bytes_samples IS 'Samples that had used_bytes.';
COMMENT ON COLUMN virt_datastore_metrics_1d.uncommitted_bytes_samples IS 'Samples that had uncommitted_bytes.';

CREATE VIEW virt_datastore_1d AS
SELECT collected_at,
       datastore_id,
       86400 AS interval_seconds,
       sample_count,
       capacity_bytes_sum / nullif(capacity_bytes_samples, 0) AS capacity_bytes,
       capacity_bytes_max,
       used_bytes_sum / nullif(used_bytes_samples, 0) AS used_bytes,
       used_bytes_max,
       uncommitted_bytes_sum / nullif(uncommitted_bytes_samples, 0) AS uncommitted_bytes,
       uncommitted_bytes_max
FROM virt_datastore_metrics_1d;
COMMENT ON VIEW virt_datastore_1d IS 'Averages over time and maxima of datastores by 1 day.';
COMMENT ON COLUMN virt_datastore_1d.collected_at IS 'End of the bucket, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_1d.datastore_id IS 'The datastore.';
COMMENT ON COLUMN virt_datastore_1d.interval_seconds IS 'Width of the bucket.';
COMMENT ON COLUMN virt_datastore_1d.sample_count IS 'Samples in it.';
COMMENT ON COLUMN virt_datastore_1d.capacity_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1d.capacity_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_1d.used_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1d.used_bytes_max IS 'Maximum; bytes.';
COMMENT ON COLUMN virt_datastore_1d.uncommitted_bytes IS 'Average; bytes.';
COMMENT ON COLUMN virt_datastore_1d.uncommitted_bytes_max IS 'Maximum; bytes.';
------------------------------------------------------------------------------------------------------------------
-- What is yet to be rolled up
------------------------------------------------------------------------------------------------------------------

-- A queue: the transaction that stores samples adds a row per bucket that it touched, and the refresh that makes the
-- bucket anew deletes it. Neither a key nor an update, so that writers never wait for one another.
CREATE TABLE virt_rollup_pending (
    bucket timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    platform_id integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('host', 'vm', 'datastore')),
    level text NOT NULL CHECK (level IN ('5m', '1h', '1d')),
    entity_ids integer[]
);
CREATE INDEX virt_rollup_pending_due ON virt_rollup_pending (platform_id, due_at);
COMMENT ON TABLE virt_rollup_pending IS 'Buckets of roll-ups whose samples have changed. The same bucket may stand here often; it is made once.';
COMMENT ON COLUMN virt_rollup_pending.bucket IS 'End of the bucket.';
COMMENT ON COLUMN virt_rollup_pending.due_at IS 'When it is made: not before its samples have come, so that it is made once.';
COMMENT ON COLUMN virt_rollup_pending.platform_id IS 'The platform.';
COMMENT ON COLUMN virt_rollup_pending.kind IS 'host, vm or datastore.';
COMMENT ON COLUMN virt_rollup_pending.level IS '5m, 1h or 1d.';
COMMENT ON COLUMN virt_rollup_pending.entity_ids IS 'Whose; NULL for all of the platform.';

-- Samples that were stored before there were roll-ups.
INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level)
SELECT bucket, clock_timestamp(), platform.platform_id, stored.kind, '5m'
FROM (
    SELECT CASE hypertable_name WHEN 'virt_host_metrics' THEN 'host' WHEN 'virt_vm_metrics' THEN 'vm'
                                ELSE 'datastore' END AS kind,
           min(range_start) AS first, least(max(range_end), clock_timestamp() + INTERVAL '10 minutes') AS last
    FROM timescaledb_information.chunks
    WHERE hypertable_schema = 'public'
      AND hypertable_name IN ('virt_host_metrics', 'virt_vm_metrics', 'virt_datastore_metrics')
    GROUP BY hypertable_name
) AS stored
CROSS JOIN LATERAL generate_series(first, last, INTERVAL '5 minutes') AS bucket
CROSS JOIN virt_platform AS platform;

------------------------------------------------------------------------------------------------------------------
-- How long each is kept
------------------------------------------------------------------------------------------------------------------

CREATE TABLE virt_retention (
    relation text PRIMARY KEY,
    keep interval,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_before timestamptz
);
COMMENT ON TABLE virt_retention IS 'How long samples and roll-ups are kept, as the service was last told by its configuration.';
COMMENT ON COLUMN virt_retention.relation IS 'The hypertable.';
COMMENT ON COLUMN virt_retention.keep IS 'How long; NULL for ever.';
COMMENT ON COLUMN virt_retention.checked_at IS 'When the service last looked for what is older.';
COMMENT ON COLUMN virt_retention.dropped_before IS 'What is older than this has been dropped; NULL while nothing was.';

-- What the service may drop, and no more: the oldest chunk of a relation, once it is as old as is kept. One chunk a
-- call, so that each is a transaction of its own, waits little for whoever reads it, and leaves nothing half done.
--
-- Age is counted from the clock or from the newest chunk of samples, whichever is earlier: a clock of the server that
-- is set into the future takes nothing with it.
CREATE FUNCTION virt_drop_chunks(relation text, keep interval)
RETURNS TABLE (
    chunk_end timestamptz,
    pending bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    of_kind text;
    of_level text;
    first timestamptz;
    newest timestamptz;
BEGIN
    SELECT matched[1], coalesce(matched[2], 'raw') INTO of_kind, of_level
    FROM regexp_match(relation, '^virt_(host|vm|datastore)_metrics(?:_(5m|1h|1d))?$') AS matched;
    IF of_kind IS NULL THEN
        RAISE EXCEPTION '"%" holds neither samples nor roll-ups', relation USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF keep IS NULL OR keep < INTERVAL '2 days' THEN
        RAISE EXCEPTION 'nothing that is younger than 2 days is dropped: back-fill works there'
            USING ERRCODE = 'insufficient_privilege';
    END IF;

    SELECT max(chunks.range_end) INTO newest
    FROM timescaledb_information.chunks AS chunks
    WHERE chunks.hypertable_schema = 'public'
      AND chunks.hypertable_name IN ('virt_host_metrics', 'virt_vm_metrics', 'virt_datastore_metrics');
    SELECT chunks.range_start, chunks.range_end INTO first, chunk_end
    FROM timescaledb_information.chunks AS chunks
    WHERE chunks.hypertable_schema = 'public' AND chunks.hypertable_name = relation
      AND chunks.range_end <= least(clock_timestamp(), newest) - keep
    ORDER BY chunks.range_start
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- Nothing goes that is yet to be rolled up, nor what a bucket that is yet to be made will be written to.
    SELECT count(*) INTO pending
    FROM virt_rollup_pending AS rollup
    CROSS JOIN LATERAL (
        SELECT CASE rollup.level WHEN '5m' THEN INTERVAL '5 minutes' WHEN '1h' THEN INTERVAL '1 hour'
                                 ELSE INTERVAL '24 hours' END
    ) AS bucket (width)
    WHERE rollup.kind = of_kind
      AND rollup.level = ANY (CASE of_level
          WHEN 'raw' THEN ARRAY['5m'] WHEN '5m' THEN ARRAY['5m', '1h'] WHEN '1h' THEN ARRAY['1h', '1d']
          ELSE ARRAY['1d'] END)
      AND rollup.bucket >= first AND rollup.bucket - bucket.width < chunk_end;
    IF pending = 0 THEN
        PERFORM drop_chunks(format('public.%I', relation)::regclass, older_than => chunk_end);
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION virt_drop_chunks(text, interval) IS 'Drops the oldest chunk of samples or roll-ups, if all of it is older than what is kept, which is at least 2 days. Returns its end, and how many buckets of roll-ups that need it are pending: with any, it was not dropped. No row: there is nothing to drop.';

-- Compression of samples is a matter of the edition and the version of TimescaleDB, which may change under a fixed
-- schema: so it is looked at again and again, and brought to what is wanted. Older versions lose rows where an insert
-- with ON CONFLICT meets a compressed chunk, as a repeated flush would.
CREATE FUNCTION virt_compress_after(age interval)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    relation text;
    entity text;
    installed integer[];
    policy interval;
    has_policy boolean;
BEGIN
    IF age < INTERVAL '2 days' THEN
        RAISE EXCEPTION 'nothing that is younger than 2 days is compressed: back-fill works there'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN 'edition';
    END IF;
    SELECT string_to_array(substring(extversion FROM '^\d+\.\d+\.\d+'), '.')::integer[] INTO installed
    FROM pg_extension WHERE extname = 'timescaledb';
    IF installed < ARRAY[2, 18, 1] THEN
        RETURN 'version';
    END IF;

    -- Several collectors may come by at once.
    PERFORM pg_advisory_xact_lock(hashtextextended('virt_compress_after', 0));
    FOR relation, entity IN VALUES ('virt_host_metrics', 'host_id'), ('virt_vm_metrics', 'vm_id') LOOP
        IF age IS NOT NULL AND NOT (
            SELECT hypertables.compression_enabled FROM timescaledb_information.hypertables AS hypertables
            WHERE hypertables.hypertable_schema = 'public' AND hypertables.hypertable_name = relation)
        THEN
            EXECUTE format('ALTER TABLE public.%I SET (timescaledb.compress, timescaledb.compress_segmentby = %L, '
                           'timescaledb.compress_orderby = %L)', relation, entity, 'collected_at DESC');
        END IF;
        SELECT (jobs.config ->> 'compress_after')::interval INTO policy
        FROM timescaledb_information.jobs AS jobs
        WHERE jobs.hypertable_schema = 'public' AND jobs.hypertable_name = relation
          AND jobs.proc_name = 'policy_compression';
        has_policy := FOUND;
        IF has_policy AND policy IS DISTINCT FROM age THEN
            PERFORM remove_compression_policy(format('public.%I', relation)::regclass, if_exists => true);
            has_policy := false;
        END IF;
        IF age IS NOT NULL AND NOT has_policy THEN
            PERFORM add_compression_policy(format('public.%I', relation)::regclass, age, if_not_exists => true);
        END IF;
    END LOOP;
    RETURN CASE WHEN age IS NULL THEN 'off' ELSE 'on' END;
END
$$;
COMMENT ON FUNCTION virt_compress_after(interval) IS 'Brings compression of samples to what is wanted: chunks older than this, at least 2 days; NULL for none, what is compressed stays so. Returns on, off, edition (only the Community edition of TimescaleDB compresses) or version (it does from 2.18.1 on). Calling it again changes nothing.';

REVOKE EXECUTE ON FUNCTION virt_drop_chunks(text, interval), virt_compress_after(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION virt_drop_chunks(text, interval), virt_compress_after(interval) TO virt_writer;

------------------------------------------------------------------------------------------------------------------
-- One name for samples and roll-ups
------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION virt_history_level(relation text, from_time timestamptz, to_time timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT level
FROM (VALUES (1, 'raw', '', INTERVAL '6 hours'), (2, '5m', '_5m', INTERVAL '7 days'),
             (3, '1h', '_1h', INTERVAL '90 days'), (4, '1d', '_1d', NULL)) AS choice (rank, level, suffix, longest)
LEFT JOIN virt_retention AS retention ON retention.relation = virt_history_level.relation || choice.suffix
WHERE (longest IS NULL OR to_time - from_time <= longest)
  AND (keep IS NULL OR level = '1d' OR from_time >= now() - keep)
ORDER BY rank
LIMIT 1
$$;
COMMENT ON FUNCTION virt_history_level(text, timestamptz, timestamptz) IS 'What serves a span of time: raw up to 6 hours, 5m up to 7 days, 1h up to 90 days, else 1d; a coarser one where the finer is not kept that long.';

-- Each level has its longest span beside virt_history_level once more: the planner evaluates that one condition by itself,
-- and leaves out all chunks of the levels that are too fine, which with months of them is most of the time of a query.

CREATE FUNCTION virt_host_history(from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    collected_at timestamptz,
    host_id integer,
    interval_seconds integer,
    cpu_usage_percent double precision,
    cpu_usage_percent_max double precision,
    cpu_usage_mhz double precision,
    cpu_usage_mhz_max double precision,
    cpu_ready_percent double precision,
    cpu_ready_percent_max double precision,
    memory_usage_percent double precision,
    memory_usage_percent_max double precision,
    memory_consumed_kib double precision,
    memory_consumed_kib_max double precision,
    memory_active_kib double precision,
    memory_active_kib_max double precision,
    disk_read_kibps double precision,
    disk_read_kibps_max double precision,
    disk_write_kibps double precision,
    disk_write_kibps_max double precision,
    disk_latency_ms double precision,
    disk_latency_ms_max double precision,
    network_rx_kibps double precision,
    network_rx_kibps_max double precision,
    network_tx_kibps double precision,
    network_tx_kibps_max double precision,
    power_watts double precision,
    power_watts_max double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT collected_at, host_id, interval_seconds::integer, cpu_usage_percent::double precision,
       cpu_usage_percent::double precision, cpu_usage_mhz::double precision, cpu_usage_mhz::double precision,
       cpu_ready_percent::double precision, cpu_ready_percent::double precision, memory_usage_percent::double
       precision, memory_usage_percent::double precision, memory_consumed_kib::double precision,
       memory_consumed_kib::double precision, memory_active_kib::double precision, memory_active_kib::double
       precision, disk_read_kibps::double precision, disk_read_kibps::double precision, disk_write_kibps::double
       precision, disk_write_kibps::double precision, greatest(disk_read_latency_ms, disk_write_latency_ms)::double
       precision, greatest(disk_read_latency_ms, disk_write_latency_ms)::double precision, network_rx_kibps::double
       precision, network_rx_kibps::double precision, network_tx_kibps::double precision, network_tx_kibps::double
       precision, power_watts::double precision, power_watts::double precision
FROM virt_host_metrics
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '6 hours'
  AND virt_history_level('virt_host_metrics', from_time, to_time) = 'raw'
UNION ALL
SELECT collected_at, host_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, memory_usage_percent, memory_usage_percent_max::double precision, memory_consumed_kib,
       memory_consumed_kib_max::double precision, memory_active_kib, memory_active_kib_max::double precision,
       disk_read_kibps, disk_read_kibps_max::double precision, disk_write_kibps, disk_write_kibps_max::double
       precision, disk_latency_ms, disk_latency_ms_max::double precision, network_rx_kibps,
       network_rx_kibps_max::double precision, network_tx_kibps, network_tx_kibps_max::double precision, power_watts,
       power_watts_max::double precision
FROM virt_host_5m
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '7 days'
  AND virt_history_level('virt_host_metrics', from_time, to_time) = '5m'
UNION ALL
SELECT collected_at, host_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, memory_usage_percent, memory_usage_percent_max::double precision, memory_consumed_kib,
       memory_consumed_kib_max::double precision, memory_active_kib, memory_active_kib_max::double precision,
       disk_read_kibps, disk_read_kibps_max::double precision, disk_write_kibps, disk_write_kibps_max::double
       precision, disk_latency_ms, disk_latency_ms_max::double precision, network_rx_kibps,
       network_rx_kibps_max::double precision, network_tx_kibps, network_tx_kibps_max::double precision, power_watts,
       power_watts_max::double precision
FROM virt_host_1h
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '90 days'
  AND virt_history_level('virt_host_metrics', from_time, to_time) = '1h'
UNION ALL
SELECT collected_at, host_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, memory_usage_percent, memory_usage_percent_max::double precision, memory_consumed_kib,
       memory_consumed_kib_max::double precision, memory_active_kib, memory_active_kib_max::double precision,
       disk_read_kibps, disk_read_kibps_max::double precision, disk_write_kibps, disk_write_kibps_max::double
       precision, disk_latency_ms, disk_latency_ms_max::double precision, network_rx_kibps,
       network_rx_kibps_max::double precision, network_tx_kibps, network_tx_kibps_max::double precision, power_watts,
       power_watts_max::double precision
FROM virt_host_1d
WHERE collected_at > from_time AND collected_at <= to_time
  AND virt_history_level('virt_host_metrics', from_time, to_time) = '1d'
$$;
COMMENT ON FUNCTION virt_host_history(timestamptz, timestamptz) IS 'Samples or roll-ups of hosts between two times, whatever serves the span: see virt_history_level. Of samples, the maximum is the sample.';

CREATE FUNCTION virt_vm_history(from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    collected_at timestamptz,
    vm_id integer,
    interval_seconds integer,
    cpu_usage_percent double precision,
    cpu_usage_percent_max double precision,
    cpu_usage_mhz double precision,
    cpu_usage_mhz_max double precision,
    cpu_ready_percent double precision,
    cpu_ready_percent_max double precision,
    cpu_costop_percent double precision,
    cpu_costop_percent_max double precision,
    memory_usage_percent double precision,
    memory_usage_percent_max double precision,
    memory_consumed_kib double precision,
    memory_consumed_kib_max double precision,
    memory_active_kib double precision,
    memory_active_kib_max double precision,
    disk_read_kibps double precision,
    disk_read_kibps_max double precision,
    disk_write_kibps double precision,
    disk_write_kibps_max double precision,
    disk_latency_ms double precision,
    disk_latency_ms_max double precision,
    network_rx_kibps double precision,
    network_rx_kibps_max double precision,
    network_tx_kibps double precision,
    network_tx_kibps_max double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT collected_at, vm_id, interval_seconds::integer, cpu_usage_percent::double precision, cpu_usage_percent::double
       precision, cpu_usage_mhz::double precision, cpu_usage_mhz::double precision, cpu_ready_percent::double
       precision, cpu_ready_percent::double precision, cpu_costop_percent::double precision,
       cpu_costop_percent::double precision, memory_usage_percent::double precision, memory_usage_percent::double
       precision, memory_consumed_kib::double precision, memory_consumed_kib::double precision,
       memory_active_kib::double precision, memory_active_kib::double precision, disk_read_kibps::double precision,
       disk_read_kibps::double precision, disk_write_kibps::double precision, disk_write_kibps::double precision,
       greatest(disk_read_latency_ms, disk_write_latency_ms)::double precision, greatest(disk_read_latency_ms,
       disk_write_latency_ms)::double precision, network_rx_kibps::double precision, network_rx_kibps::double
       precision, network_tx_kibps::double precision, network_tx_kibps::double precision
FROM virt_vm_metrics
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '6 hours'
  AND virt_history_level('virt_vm_metrics', from_time, to_time) = 'raw'
UNION ALL
SELECT collected_at, vm_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, cpu_costop_percent, cpu_costop_percent_max::double precision, memory_usage_percent,
       memory_usage_percent_max::double precision, memory_consumed_kib, memory_consumed_kib_max::double precision,
       memory_active_kib, memory_active_kib_max::double precision, disk_read_kibps, disk_read_kibps_max::double
       precision, disk_write_kibps, disk_write_kibps_max::double precision, disk_latency_ms,
       disk_latency_ms_max::double precision, network_rx_kibps, network_rx_kibps_max::double precision,
       network_tx_kibps, network_tx_kibps_max::double precision
FROM virt_vm_5m
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '7 days'
  AND virt_history_level('virt_vm_metrics', from_time, to_time) = '5m'
UNION ALL
SELECT collected_at, vm_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, cpu_costop_percent, cpu_costop_percent_max::double precision, memory_usage_percent,
       memory_usage_percent_max::double precision, memory_consumed_kib, memory_consumed_kib_max::double precision,
       memory_active_kib, memory_active_kib_max::double precision, disk_read_kibps, disk_read_kibps_max::double
       precision, disk_write_kibps, disk_write_kibps_max::double precision, disk_latency_ms,
       disk_latency_ms_max::double precision, network_rx_kibps, network_rx_kibps_max::double precision,
       network_tx_kibps, network_tx_kibps_max::double precision
FROM virt_vm_1h
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '90 days'
  AND virt_history_level('virt_vm_metrics', from_time, to_time) = '1h'
UNION ALL
SELECT collected_at, vm_id, interval_seconds, cpu_usage_percent, cpu_usage_percent_max::double precision,
       cpu_usage_mhz, cpu_usage_mhz_max::double precision, cpu_ready_percent, cpu_ready_percent_max::double
       precision, cpu_costop_percent, cpu_costop_percent_max::double precision, memory_usage_percent,
       memory_usage_percent_max::double precision, memory_consumed_kib, memory_consumed_kib_max::double precision,
       memory_active_kib, memory_active_kib_max::double precision, disk_read_kibps, disk_read_kibps_max::double
       precision, disk_write_kibps, disk_write_kibps_max::double precision, disk_latency_ms,
       disk_latency_ms_max::double precision, network_rx_kibps, network_rx_kibps_max::double precision,
       network_tx_kibps, network_tx_kibps_max::double precision
FROM virt_vm_1d
WHERE collected_at > from_time AND collected_at <= to_time
  AND virt_history_level('virt_vm_metrics', from_time, to_time) = '1d'
$$;
COMMENT ON FUNCTION virt_vm_history(timestamptz, timestamptz) IS 'Samples or roll-ups of VMs between two times, whatever serves the span: see virt_history_level. Of samples, the maximum is the sample.';

CREATE FUNCTION virt_datastore_history(from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    collected_at timestamptz,
    datastore_id integer,
    interval_seconds integer,
    capacity_bytes double precision,
    capacity_bytes_max double precision,
    used_bytes double precision,
    used_bytes_max double precision,
    uncommitted_bytes double precision,
    uncommitted_bytes_max double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT collected_at, datastore_id, NULL::integer, capacity_bytes::double precision, capacity_bytes::double precision,
       (capacity_bytes - free_bytes)::double precision, (capacity_bytes - free_bytes)::double precision,
       uncommitted_bytes::double precision, uncommitted_bytes::double precision
FROM virt_datastore_metrics
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '6 hours'
  AND virt_history_level('virt_datastore_metrics', from_time, to_time) = 'raw'
UNION ALL
SELECT collected_at, datastore_id, interval_seconds, capacity_bytes, capacity_bytes_max::double precision,
       used_bytes, used_bytes_max::double precision, uncommitted_bytes, uncommitted_bytes_max::double precision
FROM virt_datastore_5m
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '7 days'
  AND virt_history_level('virt_datastore_metrics', from_time, to_time) = '5m'
UNION ALL
SELECT collected_at, datastore_id, interval_seconds, capacity_bytes, capacity_bytes_max::double precision,
       used_bytes, used_bytes_max::double precision, uncommitted_bytes, uncommitted_bytes_max::double precision
FROM virt_datastore_1h
WHERE collected_at > from_time AND collected_at <= to_time
  AND to_time - from_time <= INTERVAL '90 days'
  AND virt_history_level('virt_datastore_metrics', from_time, to_time) = '1h'
UNION ALL
SELECT collected_at, datastore_id, interval_seconds, capacity_bytes, capacity_bytes_max::double precision,
       used_bytes, used_bytes_max::double precision, uncommitted_bytes, uncommitted_bytes_max::double precision
FROM virt_datastore_1d
WHERE collected_at > from_time AND collected_at <= to_time
  AND virt_history_level('virt_datastore_metrics', from_time, to_time) = '1d'
$$;
COMMENT ON FUNCTION virt_datastore_history(timestamptz, timestamptz) IS 'Samples or roll-ups of datastores between two times, whatever serves the span: see virt_history_level. Of samples, the maximum is the sample.';
------------------------------------------------------------------------------------------------------------------
-- Grants
------------------------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE ON
    virt_host_metrics_5m, virt_host_metrics_1h, virt_host_metrics_1d,
    virt_vm_metrics_5m, virt_vm_metrics_1h, virt_vm_metrics_1d,
    virt_datastore_metrics_5m, virt_datastore_metrics_1h, virt_datastore_metrics_1d
TO virt_writer;
GRANT SELECT ON
    virt_host_5m, virt_host_1h, virt_host_1d, virt_vm_5m, virt_vm_1h, virt_vm_1d,
    virt_datastore_5m, virt_datastore_1h, virt_datastore_1d
TO virt_writer;
GRANT SELECT, INSERT, DELETE ON virt_rollup_pending TO virt_writer;
GRANT SELECT, INSERT, UPDATE ON virt_retention TO virt_writer;
