-- The registry of platforms: what was in config.toml alone until now, edited by command and API, and the sealed
-- passwords that belong to it. Whoever changes a row that collectors act on raises its revision and notifies the
-- channel virt_registry.

ALTER TABLE virt_platform
    ADD COLUMN source text NOT NULL DEFAULT 'config' CHECK (source IN ('config', 'registry')),
    ADD COLUMN user_name text,
    ADD COLUMN tls_verify boolean NOT NULL DEFAULT true,
    ADD COLUMN tls_ca_pem text,
    ADD COLUMN tls_thumbprint text,
    ADD COLUMN datacenters text[] NOT NULL DEFAULT '{}',
    ADD COLUMN include_paths text[] NOT NULL DEFAULT '{}',
    ADD COLUMN exclude_paths text[] NOT NULL DEFAULT '{}',
    ADD COLUMN is_active boolean NOT NULL DEFAULT true,
    ADD COLUMN in_maintenance boolean NOT NULL DEFAULT false,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN sync_asked_at timestamptz,
    ADD COLUMN synced_at timestamptz,
    ADD COLUMN removed_at timestamptz;
COMMENT ON COLUMN virt_platform.source IS 'config: provisioned from config.toml and read-only elsewhere; registry: added by command or API.';
COMMENT ON COLUMN virt_platform.user_name IS 'Account on the platform.';
COMMENT ON COLUMN virt_platform.tls_verify IS 'False: any certificate is taken, and whoever stands in between reads the password.';
COMMENT ON COLUMN virt_platform.tls_ca_pem IS 'Authorities that may sign its certificate, in PEM; NULL for those that the collector''s system trusts.';
COMMENT ON COLUMN virt_platform.tls_thumbprint IS 'SHA-256 of the one certificate that is trusted, as hexadecimal digits; NULL where authorities decide.';
COMMENT ON COLUMN virt_platform.datacenters IS 'Names of the datacenters that it contributes; empty for all.';
COMMENT ON COLUMN virt_platform.include_paths IS 'Patterns of inventory paths of which a host or VM must match one; empty for all.';
COMMENT ON COLUMN virt_platform.exclude_paths IS 'Patterns of inventory paths of which a host or VM must match none.';
COMMENT ON COLUMN virt_platform.is_active IS 'False: kept, but nobody connects to it.';
COMMENT ON COLUMN virt_platform.in_maintenance IS 'True: a person paused it; nobody polls it, no session is open. What the sources still hold afterwards is read then.';
COMMENT ON COLUMN virt_platform.revision IS 'Grows with each change that collectors act on.';
COMMENT ON COLUMN virt_platform.sync_asked_at IS 'When a person last asked for a reading of its inventory out of turn.';
COMMENT ON COLUMN virt_platform.synced_at IS 'When its inventory was last read and stored, what changes without a word included.';
COMMENT ON COLUMN virt_platform.removed_at IS 'When it was removed from the registry; its objects and samples stay.';

CREATE TABLE virt_platform_credential (
    platform_id integer PRIMARY KEY REFERENCES virt_platform,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE virt_platform_credential IS 'Passwords of platforms of the registry, sealed with a key that is not in the database.';
COMMENT ON COLUMN virt_platform_credential.platform_id IS 'The platform; part of what the seal covers.';
COMMENT ON COLUMN virt_platform_credential.key_id IS 'The key that sealed it.';
COMMENT ON COLUMN virt_platform_credential.sealed IS 'XChaCha20-Poly1305 envelope: version, key id, nonce, ciphertext with tag.';
COMMENT ON COLUMN virt_platform_credential.sealed_at IS 'When it was sealed.';

-- Sealed or not, it is nothing for dashboards.
REVOKE ALL ON virt_platform_credential FROM virt_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON virt_platform_credential TO virt_writer;

ALTER TABLE virt_vm ADD COLUMN custom_attributes jsonb;
COMMENT ON COLUMN virt_vm.custom_attributes IS 'Its values of the custom attributes that are allowed in [inventory] of config.toml, by name; NULL where it has none of them.';
