-- An account that reads, for Grafana and people: virt-collector migrate --reader NAME, or by a superuser.
-- Running it again repairs what has changed since, and otherwise changes nothing. Whoever runs it has rights of which
-- others have less: nothing of theirs stands in front of what is called here.
SET search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    reader text := current_setting('virt.reader');
    other text;
    setting text;
BEGIN
    IF reader IN ('virt_owner', 'virt_writer', 'virt_reader') THEN
        RAISE EXCEPTION 'the account % is not for people; take another name', reader;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', reader);
    END IF;

    -- It does no more than read: one that does is somebody else's.
    SELECT granted.rolname INTO other
    FROM pg_auth_members AS member
    JOIN pg_roles AS granted ON granted.oid = member.roleid
    WHERE member.member = reader::regrole AND granted.rolname <> 'virt_reader'
    LIMIT 1;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'the account % is a member of %, and would do more than read; take another name', reader, other;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = reader
               AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls))
    THEN
        RAISE EXCEPTION 'the account % has rights of its own, and would do more than read; take another name', reader;
    END IF;
    SELECT relation.relname INTO other
    FROM pg_class AS relation
    CROSS JOIN LATERAL aclexplode(relation.relacl) AS granted
    WHERE relation.relnamespace = 'public'::regnamespace AND granted.grantee = reader::regrole
    LIMIT 1;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'the account % has rights of its own on %: REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I;',
            reader, other, reader;
    END IF;

    IF NOT (SELECT rolcanlogin AND rolinherit FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('ALTER ROLE %I LOGIN INHERIT', reader);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_auth_members WHERE member = reader::regrole AND roleid = 'virt_reader'::regrole) THEN
        EXECUTE format('GRANT virt_reader TO %I', reader);
    END IF;
    -- What a role is set to is not inherited. A dashboard neither writes by mistake nor runs for ever, and finds the
    -- tables by their names alone; compiling costs its short queries more than it gains.
    FOREACH setting IN ARRAY ARRAY['default_transaction_read_only=on', 'statement_timeout=60s', 'lock_timeout=5s',
                                   'idle_in_transaction_session_timeout=60s', 'search_path=public', 'work_mem=32MB',
                                   'jit=off']
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_db_role_setting AS stored
            WHERE stored.setrole = reader::regrole AND setting = ANY (stored.setconfig)
              AND stored.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
        THEN
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET %s = %L', reader, current_database(),
                           split_part(setting, '=', 1), split_part(setting, '=', 2));
        END IF;
    END LOOP;
END
$$;

RESET search_path;
