-- Run once by a superuser in the database that is to hold the samples, a database of their own:
--     psql -X -d virt -f bootstrap.sql
-- Running it again changes nothing. Afterwards give the accounts passwords (\password virt_writer) or map them
-- in pg_hba.conf, and run: virt-collector migrate

-- A superuser runs this, also where others have been at home: nothing of theirs stands in front of what is called here.
SET search_path = pg_catalog, pg_temp;

-- virt_owner owns the tables and is used by `virt-collector migrate` only; virt_writer is the service;
-- virt_reader is for dashboards and people.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['virt_owner', 'virt_writer', 'virt_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', role_name);
            EXCEPTION
                -- Made by the same script in another database meanwhile.
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;

    EXECUTE format('ALTER DATABASE %I OWNER TO virt_owner', current_database());
    -- Whoever else has an account of this server: nobody fills the disk with tables of their own.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO virt_writer', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO virt_reader', current_database());
    -- A dashboard neither writes by mistake nor runs for ever.
    EXECUTE format('ALTER ROLE virt_reader IN DATABASE %I SET default_transaction_read_only = on', current_database());
    EXECUTE format('ALTER ROLE virt_reader IN DATABASE %I SET statement_timeout = ''60s''', current_database());
END
$$;

-- Up to PostgreSQL 14 everybody may create tables in schema public.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO virt_owner;
GRANT USAGE ON SCHEMA public TO virt_writer, virt_reader;

CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;

RESET search_path;
