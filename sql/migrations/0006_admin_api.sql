-- The admin API: its tokens, the actions that people ask for, and what was asked and done.
--
-- virt_operation is the queue of actions: whoever inserts a row notifies the channel virt_operation with the
-- platform's id, and the holder of the platform's lease carries it out under its fence.

CREATE TABLE virt_api_token (
    token_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> ''),
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'auditor')),
    platforms text[],
    key_id text NOT NULL,
    mac bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CHECK (cardinality(platforms) > 0)
);
COMMENT ON TABLE virt_api_token IS 'Who may use the admin API. The token itself is shown once, when it is made, and stored nowhere.';
COMMENT ON COLUMN virt_api_token.token_id IS 'Key; part of the token.';
COMMENT ON COLUMN virt_api_token.name IS 'Who it is for; stands in the audit log. Never given twice.';
COMMENT ON COLUMN virt_api_token.role IS 'viewer, operator, admin or auditor.';
COMMENT ON COLUMN virt_api_token.platforms IS 'Names of the platforms it is limited to; NULL for all.';
COMMENT ON COLUMN virt_api_token.key_id IS 'The key of the key ring that the MAC was made with.';
COMMENT ON COLUMN virt_api_token.mac IS 'HMAC-SHA256 over the token, its row and its rights: a row that was written or changed without the key lets nobody in.';
COMMENT ON COLUMN virt_api_token.created_at IS 'When it was made.';
COMMENT ON COLUMN virt_api_token.expires_at IS 'From when on it is refused.';
COMMENT ON COLUMN virt_api_token.revoked_at IS 'When it was revoked; NULL while it may be used.';
COMMENT ON COLUMN virt_api_token.last_used_at IS 'When it was last used, to the minute.';

CREATE TABLE virt_operation (
    operation_id uuid PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    vm_id integer NOT NULL REFERENCES virt_vm,
    vm_name text,
    vm_instance_uuid text,
    action text NOT NULL CHECK (action IN (
        'power_on', 'power_off', 'reset', 'suspend', 'shutdown_guest', 'reboot_guest',
        'create_snapshot', 'revert_snapshot', 'remove_snapshot', 'remove_all_snapshots')),
    arguments jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'unknown')),
    requested_by text NOT NULL,
    request_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    sent_at timestamptz,
    sent_at_source timestamptz,
    seen_before jsonb,
    accepted_at timestamptz,
    task text,
    progress smallint CHECK (progress BETWEEN 0 AND 100),
    result jsonb,
    code text,
    detail text,
    CHECK ((state IN ('succeeded', 'failed', 'unknown')) = (ended_at IS NOT NULL)),
    CHECK ((state = 'queued') <= (sent_at IS NULL)),
    CHECK ((state IN ('failed', 'unknown')) <= (code IS NOT NULL AND detail IS NOT NULL))
);
-- One action at a time on a VM, whoever asks.
CREATE UNIQUE INDEX virt_operation_of_vm ON virt_operation (vm_id) WHERE state IN ('queued', 'running');
CREATE INDEX virt_operation_open ON virt_operation (platform_id) WHERE state IN ('queued', 'running');
CREATE INDEX virt_operation_newest ON virt_operation (created_at);
COMMENT ON TABLE virt_operation IS 'Power and snapshot actions that were asked for through the admin API, from the queue to their end.';
COMMENT ON COLUMN virt_operation.operation_id IS 'Key, a UUID of version 7. Stands in the description of a snapshot that it creates.';
COMMENT ON COLUMN virt_operation.platform_id IS 'The platform of the VM.';
COMMENT ON COLUMN virt_operation.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_operation.vm_name IS 'Its name when it was asked for. If it has another when it is to be done, nothing is done.';
COMMENT ON COLUMN virt_operation.vm_instance_uuid IS 'Its instance UUID when it was asked for; as with the name.';
COMMENT ON COLUMN virt_operation.action IS 'What is to be done.';
COMMENT ON COLUMN virt_operation.arguments IS 'How: name, description, memory and quiesce of a new snapshot; the moref of one that is reverted to or removed, and whether its children go too.';
COMMENT ON COLUMN virt_operation.state IS 'queued, running, succeeded, failed, or unknown: sent, and nothing tells what became of it.';
COMMENT ON COLUMN virt_operation.requested_by IS 'Name of the token that asked for it.';
COMMENT ON COLUMN virt_operation.request_id IS 'The request that asked for it, as in logs and in the audit log.';
COMMENT ON COLUMN virt_operation.created_at IS 'When it was asked for.';
COMMENT ON COLUMN virt_operation.started_at IS 'When a collector took it up.';
COMMENT ON COLUMN virt_operation.ended_at IS 'When its end was found out.';
COMMENT ON COLUMN virt_operation.sent_at IS 'Written before the call is sent: without it the action cannot have happened, with it the call is never sent again.';
COMMENT ON COLUMN virt_operation.sent_at_source IS 'The same moment in the clock of the platform.';
COMMENT ON COLUMN virt_operation.seen_before IS 'What the VM looked like just before: power state, current snapshot, boot time, recent tasks.';
COMMENT ON COLUMN virt_operation.accepted_at IS 'When the platform was heard to accept it; NULL while its answer is out.';
COMMENT ON COLUMN virt_operation.task IS 'The platform''s task, where one is known.';
COMMENT ON COLUMN virt_operation.progress IS 'Of the task, in percent, where the platform tells.';
COMMENT ON COLUMN virt_operation.result IS 'What came of it: the moref of a new snapshot, whether there was anything to do, what else to know.';
COMMENT ON COLUMN virt_operation.code IS 'Kind of failure or doubt, one word.';
COMMENT ON COLUMN virt_operation.detail IS 'Why, in plain words; while it runs, what it waits for.';

CREATE TABLE virt_api_idempotency (
    token_id integer NOT NULL REFERENCES virt_api_token,
    idempotency_key text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    digest bytea NOT NULL,
    operation_id uuid NOT NULL REFERENCES virt_operation,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (token_id, idempotency_key)
);
COMMENT ON TABLE virt_api_idempotency IS 'Requests that were sent with an Idempotency-Key, for 24 hours.';
COMMENT ON COLUMN virt_api_idempotency.token_id IS 'Who sent it.';
COMMENT ON COLUMN virt_api_idempotency.idempotency_key IS 'The key, as sent.';
COMMENT ON COLUMN virt_api_idempotency.digest IS 'SHA-256 of method, path and body: the same key with another request is refused.';
COMMENT ON COLUMN virt_api_idempotency.operation_id IS 'The operation that answers the request, however often it is sent.';
COMMENT ON COLUMN virt_api_idempotency.created_at IS 'When it was first sent.';

CREATE TABLE virt_audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    entry text NOT NULL CHECK (entry IN ('intent', 'outcome', 'denied')),
    actor text NOT NULL,
    client text,
    request_id text NOT NULL,
    action text NOT NULL,
    platform text,
    target text,
    target_name text,
    operation_id uuid,
    outcome text CHECK (outcome IN ('ok', 'denied', 'error', 'unknown')),
    code text,
    detail text,
    before jsonb,
    after jsonb,
    CHECK ((entry = 'intent') = (outcome IS NULL))
);
CREATE INDEX virt_audit_log_operation ON virt_audit_log (operation_id) WHERE operation_id IS NOT NULL;
COMMENT ON TABLE virt_audit_log IS 'What was asked of the admin API and what came of it: an intent before anything is done, an outcome after, and what was denied. Rows are added and never changed: the service may do no more.';
COMMENT ON COLUMN virt_audit_log.audit_id IS 'Key, in order of writing.';
COMMENT ON COLUMN virt_audit_log.at IS 'When, by the clock of the database; the service cannot set it.';
COMMENT ON COLUMN virt_audit_log.entry IS 'intent, outcome, or denied.';
COMMENT ON COLUMN virt_audit_log.actor IS 'Name of the token; empty where none was recognised.';
COMMENT ON COLUMN virt_audit_log.client IS 'Address that the request came from; NULL for an outcome that a collector found out.';
COMMENT ON COLUMN virt_audit_log.request_id IS 'The request, as in its answer and in the logs.';
COMMENT ON COLUMN virt_audit_log.action IS 'What was asked for, as an action of virt_operation, or the name of another right.';
COMMENT ON COLUMN virt_audit_log.platform IS 'Name of the platform, where there is one.';
COMMENT ON COLUMN virt_audit_log.target IS 'moref of the VM, where there is one.';
COMMENT ON COLUMN virt_audit_log.target_name IS 'Its name at that moment.';
COMMENT ON COLUMN virt_audit_log.operation_id IS 'The operation, where there is one.';
COMMENT ON COLUMN virt_audit_log.outcome IS 'ok, denied, error or unknown.';
COMMENT ON COLUMN virt_audit_log.code IS 'Kind of failure, one word, as in the answer.';
COMMENT ON COLUMN virt_audit_log.detail IS 'Why, in plain words.';
COMMENT ON COLUMN virt_audit_log.before IS 'What was there before, where that helps to explain.';
COMMENT ON COLUMN virt_audit_log.after IS 'What was asked for, or what is there after.';

-- Nothing for dashboards.
REVOKE ALL ON virt_api_token, virt_api_idempotency, virt_audit_log, virt_operation FROM virt_reader;

GRANT SELECT, INSERT ON virt_api_token TO virt_writer;
GRANT UPDATE (revoked_at, last_used_at) ON virt_api_token TO virt_writer;
GRANT SELECT, INSERT ON virt_operation TO virt_writer;
GRANT UPDATE (state, started_at, ended_at, sent_at, sent_at_source, seen_before, accepted_at, task,
    progress, result, code, detail)
    ON virt_operation TO virt_writer;
GRANT SELECT, INSERT, DELETE ON virt_api_idempotency TO virt_writer;
-- The number and the time of an entry are the database's to give.
GRANT SELECT ON virt_audit_log TO virt_writer;
GRANT INSERT (entry, actor, client, request_id, action, platform, target, target_name, operation_id, outcome, code,
    detail, before, after) ON virt_audit_log TO virt_writer;
